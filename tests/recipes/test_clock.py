"""The clock of a comparison: what takes turns, what comes of it, what is taken up or refused."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbert.errors import ExportError, TrainingError
from fastbert.exits.engine import ExitResult
from fastbert.export import export
from fastbert.folder.export import ExportManifest
from fastbert.folder.read import open_folder
from fastbert.recipes import arena, clock
from fastbert.recipes.clock import ROUNDS, full_model
from fastbert.recipes.comparison import Comparison
from fastbert.recipes.contenders import Contender, contender_named
from tests.recipes.runs import never
from tests.recipes.test_compare import run, with_test
from tests.tiny_data import examples

CONTENDERS = (Contender("paper", "paper", "mean"), "cut-2", "plain")
ROWS = 35  # of test


class Turns:
    """A clock that goes by a rule, and keeps what the entries answered in bulk."""

    def __init__(self) -> None:
        self.answered: list[ExitResult] = []
        self.alone: list[ExitResult] = []

    def in_bulk(self, runs: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, Any]:
        self.answered += [each() for each in runs.values()]
        return {name: np.full(rounds, 7.0 * (int(name) + 1)) for name in runs}

    def one_by_one(
        self, runs: Mapping[str, Callable[[Any], Any]], items: Sequence[Any], rounds: int
    ) -> dict[str, Any]:
        self.alone += [each(items[0]) for each in runs.values()]
        return {name: np.full((rounds, len(items)), 3.0 * (int(name) + 1)) for name in runs}


def with_turns(patch: pytest.MonkeyPatch) -> Turns:
    turns = Turns()
    patch.setattr(clock, "time_rounds", turns.in_bulk)
    patch.setattr(clock, "time_items", turns.one_by_one)
    return turns


@pytest.fixture(scope="module")
def timed(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Comparison, Turns]:
    files = with_test(tmp_path_factory.mktemp("timed"))
    with pytest.MonkeyPatch.context() as patch:
        turns = with_turns(patch)
        found = run(files, contenders=CONTENDERS, measures=["margin"], time="torch")
    return files, found, turns


Timed = tuple[dict[str, Path], Comparison, Turns]


def entries(files: dict[str, Path]) -> list[dict[str, Any]]:
    written = json.loads((files["output"] / "seed42" / "times.torch.json").read_text("utf-8"))
    told: list[dict[str, Any]] = written["entries"]
    return told


def test_every_entry_is_timed_at_the_thresholds_of_its_setting(timed: Timed) -> None:
    files, found, turns = timed
    truth = [row.label for row in examples(ROWS, seed=3)]
    labels = sorted({str(label) for label in truth})
    by_entry = {
        (entry["contender"], tuple(entry["thresholds"])): result
        for entry, result in zip(entries(files), turns.answered, strict=True)
    }
    assert found.times is not None
    for row in found.times["seeds"]["42"]["contenders"]:
        for point in filter(None, row["settings"].values()):
            asked = tuple(point["thresholds"]) if any(point["thresholds"]) else ()
            answers = by_entry[row["contender"], asked].logits.argmax(-1)
            right = [labels[answer] == label for answer, label in zip(answers, truth, strict=True)]
            assert np.mean(right) == pytest.approx(point["metric"])
    early = [result.exit_layer.min() for (name, _), result in by_entry.items() if name == "paper"]
    assert early[0] == 4  # every layer
    assert min(early[1:]) < 4
    assert [len(result.logits) for result in turns.alone] == [1] * len(by_entry)


def test_times_are_medians_of_texts_and_ratios_to_the_full_model(timed: Timed) -> None:
    files, found, _ = timed
    assert found.times is not None
    assert (found.times["full"], found.times["rounds"]) == ("plain", ROUNDS)
    assert found.times["rows"] == {"alone": ROWS, "bulk": ROWS}
    assert [row["contender"] for row in found.times["summary"]] == ["paper", "cut-2", "plain"]
    for number, entry in enumerate(entries(files), start=1):
        assert entry["taken"] == pytest.approx(
            {
                "alone_ms": 3_000 * number,
                "bulk_ms": 7_000 * number / ROWS,
                "alone_faster": 1 / number,
                "bulk_faster": 1 / number,
            }
        )
    plain = found.times["summary"][2]["settings"]
    assert plain["full"]["alone_faster"] == plain["default"]["alone_faster"] == 1
    assert plain["2"] is None
    cut = found.times["summary"][1]["settings"]
    assert cut["full"] == cut["default"]


def test_what_was_timed_is_not_timed_again_and_written_with_the_rest(
    timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, found, _ = timed
    monkeypatch.setattr(clock, "time_rounds", never)
    monkeypatch.setattr(arena, "teacher_to_train", never)
    usual = {"measures": ["margin"], "time": "torch", "resume": True}
    again = run(files, contenders=CONTENDERS, **usual)
    assert again.as_dict()["times"] == found.as_dict()["times"]
    fewer = run(files, contenders=CONTENDERS[1:], **usual)
    assert fewer.times is not None
    assert [row["contender"] for row in fewer.times["summary"]] == ["cut-2", "plain"]
    told = json.loads((files["output"] / "comparison.json").read_text("utf-8"))
    assert told["times"]["summary"] == fewer.times["summary"]
    assert "| ms |" in (files["output"] / "comparison.md").read_text("utf-8")


def test_one_more_contender_has_all_of_them_take_turns_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, turns = with_test(tmp_path), with_turns(monkeypatch)
    run(files, contenders=["plain"], time="torch")
    assert len(turns.answered) == 1
    run(files, contenders=["plain", "cut-2"], time="torch", resume=True)
    assert len(turns.answered) == 1 + 2


def test_times_of_seeds_are_averaged_where_all_have_the_setting() -> None:
    def row(faster: float, third: dict[str, Any] | None) -> dict[str, Any]:
        full = {"alone_faster": faster, "thresholds": [0.5]}
        return {"contender": "a", "measure": None, "settings": {"full": full, "3": third}}

    found = clock._means([row(1.0, {"alone_faster": 3.0}), row(2.0, None)])
    assert found["settings"] == {"full": {"alone_faster": 1.5}, "3": None}


def test_times_are_set_against_plain_or_the_first_that_has_all_layers() -> None:
    cut, other = contender_named("cut-3"), replace(contender_named("plain"), name="b", model="b")
    paper, plain = contender_named("paper"), contender_named("plain")
    assert full_model([cut, paper, plain]) == "plain"
    assert full_model([cut, other, paper]) == "paper"
    with pytest.raises(ValueError, match=r"name a contender that has all layers .* such as plain"):
        full_model([cut, other])


def test_a_contender_whose_model_was_not_kept_cannot_be_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = with_test(tmp_path)
    run(files, contenders=["plain"])
    monkeypatch.setattr(arena, "teacher_to_train", never)
    with pytest.raises(TrainingError, match=r"plain is finished .* not kept, .* plain.json to tr"):
        run(files, contenders=["cut-2", "plain"], time="torch", resume=True)


def test_contenders_are_timed_in_a_runtime_and_one_that_it_refuses_has_no_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    export_model = export.export_model

    def refuse_cut(folder: Path, **asked: Any) -> ExportManifest:
        if open_folder(folder).config.num_layers == 2:
            raise ExportError("it answers otherwise than torch")
        return export_model(folder, **asked)

    monkeypatch.setattr(export, "export_model", refuse_cut)
    files = with_test(tmp_path)
    found = run(files, contenders=["plain", "cut-2"], time="onnx:fp32")
    assert found.times is not None
    assert found.times["runtime"] == "onnx:fp32"
    plain, cut = (row["settings"] for row in found.times["summary"])
    assert plain["full"]["alone_ms"] > 0
    assert set(cut.values()) == {None}
    assert "FastBERT onnx fp32 is left out: it answers otherwise than torch" in caplog.text
    assert "cut-2 is not timed" in caplog.text
    monkeypatch.setattr(export, "export_model", never)
    again = run(files, contenders=["plain", "cut-2"], time="onnx:fp32", resume=True)
    assert again.times == found.times


def test_a_full_model_that_cannot_be_timed_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ExportError("it answers otherwise than torch")

    monkeypatch.setattr(export, "export_model", refuse)
    with pytest.raises(TrainingError, match="plain cannot be timed: it answers otherwise than"):
        run(with_test(tmp_path), contenders=["cut-2", "plain"], time="onnx:fp32")


def test_the_clock_itself_runs(tmp_path: Path) -> None:
    files = with_test(tmp_path)
    found = run(files, contenders=["plain"], time="torch")
    assert found.times is not None
    taken = found.times["seeds"]["42"]["contenders"][0]["settings"]["full"]
    assert min(taken["alone_ms"], taken["bulk_ms"]) > 0
    assert (taken["alone_faster"], taken["bulk_faster"]) == (1, 1)  # it is the full model

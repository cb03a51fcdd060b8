"""Comparing schemes: one teacher for all, what a kill costs, what is refused, what test decides."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from fastbert.classifier import FastBertClassifier
from fastbert.errors import DataError, FolderError, TrainingError
from fastbert.recipes import arena
from fastbert.recipes.compare import compare
from fastbert.recipes.comparison import Comparison
from fastbert.recipes.contenders import Contender, contender_named
from fastbert.recipes.run import StudentSettings
from fastbert.recipes.run_folder import KeptStage
from fastbert.training.scheme import SchemeSettings, joint, paper
from tests.recipes.runs import FINE_TUNING, Kill, kill_at, never, weights, write_files
from tests.recipes.runs import run as train_one
from tests.tiny_data import examples, save_encoder, write_csv

QUICK = replace(FINE_TUNING, epochs=1, batch_size=16, checkpoint_steps=99)
SETTINGS = SchemeSettings(
    fine_tuning=QUICK,
    distillation=replace(QUICK, learning_rate=1e-2),
    warm_up=replace(QUICK, learning_rate=1e-2),
    exits=replace(QUICK, learning_rate=1e-3),
    tolerance=1.0,
)
CONTENDERS = (
    Contender("paper", "paper", "paper/first/8"),
    Contender("joint", joint(SETTINGS), "queries"),
    "plain",
    "cut-2",
)


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return with_test(tmp_path)


def with_test(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    return write_files(folder) | {"test": write_csv(folder / "test.csv", examples(35, seed=3))}


def run(files: dict[str, Path], **options: Any) -> Comparison:
    usual = {"contenders": CONTENDERS, "settings": SETTINGS, "max_length": 16}
    return compare(**{**files, **usual, **options})


def facts(files: dict[str, Path], name: str, seed: int = 42) -> dict[str, Any]:
    path = files["output"] / f"seed{seed}" / f"{name}.json"
    told: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return told


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the files of a comparison that nothing stopped."""
    files = with_test(tmp_path_factory.mktemp("compared"))
    run(files, keep_models=True)
    return files


def test_all_contenders_of_a_seed_go_on_from_the_same_bits(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: dict[str, bytes] = {}
    give = KeptStage.give

    def note(self: KeptStage, folder: Path) -> None:
        give(self, folder)
        begun[folder.name] = KeptStage(folder, self.name)._weights.read_bytes()

    monkeypatch.setattr(KeptStage, "give", note)
    run(files)
    kept = files["output"] / "seed42" / "teacher.training" / "stages" / "teacher.safetensors"
    assert begun == dict.fromkeys(["paper.training", "joint.training"], kept.read_bytes())
    teachers = {facts(files, name)["teacher"] for name in ("teacher", "paper", "joint", "cut-2")}
    assert len(teachers) == 1


def test_a_contender_becomes_what_training_it_alone_makes(
    compared: dict[str, Path], files: dict[str, Path]
) -> None:
    for name, heads, scheme in (
        ("paper", "paper/first/8", paper(SETTINGS)),
        ("joint", "queries", joint(SETTINGS)),
    ):
        alone = {**files, "output": files["output"].with_name(name)}
        train_one(alone, scheme=scheme, students=StudentSettings(heads))
        assert weights(compared["output"] / "seed42" / name) == weights(alone["output"])


def test_figures_table_and_all_numbers_are_written(compared: dict[str, Path]) -> None:
    written = {path.name for path in compared["output"].iterdir() if path.is_file()}
    assert written == {"plan.json", "comparison.json", "comparison.md", "comparison.png"}
    table = (compared["output"] / "comparison.md").read_text("utf-8")
    rows = [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")]
    assert rows == ["| contender", "| ---", "| paper", "| joint", "| plain", "| cut-2"]


def test_seeds_have_teachers_of_their_own(files: dict[str, Path]) -> None:
    run(files, contenders=["plain"], seeds=(42, 7))
    assert facts(files, "plain", 42)["teacher"] != facts(files, "plain", 7)["teacher"]
    assert facts(files, "plain", 7)["trained"]["stages"]["plain"]["settings"]["seed"] == 7


def test_records_are_what_the_model_answers(compared: dict[str, Path]) -> None:
    folder = compared["output"] / "seed42"
    classifier = FastBertClassifier.from_pretrained(folder / "joint")
    with np.load(folder / "joint.npz") as answers:
        assert answers["test_logits"].shape == (4, 35, 3)
        texts = [row.content for row in examples(35, seed=3)]
        recorded = classifier.record(texts, 32).recorded
        assert answers["test_logits"] == pytest.approx(recorded, abs=5e-3)
    with np.load(folder / "cut-2.npz") as answers:
        assert answers["dev_logits"].shape == (1, 30, 3)
    cut = load_file(folder / "cut-2" / "model.safetensors")
    layers = {name.split("layer.")[1].split(".")[0] for name in cut if "layer." in name}
    assert layers == {"0", "1"}


def test_a_comparison_that_is_killed_tells_the_same_in_the_end(
    compared: dict[str, Path], files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each stage of an epoch of 4 steps ends with a checkpoint; plain and cut-2 have two epochs.
    for resume, number in enumerate((2, 6, 10)):
        with monkeypatch.context() as patch:
            kill_at(patch, "on_step_end", number)
            with pytest.raises(Kill):
                run(files, resume=bool(resume))
    assert not (files["output"] / "comparison.json").exists()
    run(files, resume=True)
    whole, broken = (
        json.loads((each["output"] / "comparison.json").read_text("utf-8"))
        for each in (compared, files)
    )
    whole["settings"]["model"] = broken["settings"]["model"]  # where it lies
    assert broken == whole


def test_what_is_finished_is_not_trained_again_and_contenders_are_added(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(files, contenders=["plain"])
    trained: list[str] = []
    original = arena.Arena._train

    def note(self: arena.Arena, contender: Contender, *others: Any) -> None:
        trained.append(contender.name)
        original(self, contender, *others)

    monkeypatch.setattr(arena.Arena, "_train", note)
    added = run(files, contenders=["plain", "cut-2"], resume=True)
    assert trained == ["cut-2"]
    monkeypatch.setattr(arena, "teacher_to_train", never)  # no model is made at all
    again = run(files, contenders=["plain", "cut-2"], resume=True)
    assert again.as_dict() == added.as_dict()


def test_another_encoder_with_its_own_tokenizer_takes_part(files: dict[str, Path]) -> None:
    other = save_encoder(files["model"].with_name("other"), "roberta")
    smaller = Contender("roberta", "plain", model=str(other))
    shallow = replace(contender_named("cut-2", SETTINGS), name="taught", layers=3)
    found = run(files, contenders=["plain", smaller, shallow])
    speedups = {one.contender: one.full_speedup for one in found.summary}
    assert speedups["plain"] == 1
    assert speedups["roberta"] > 1  # half as wide, one layer more
    assert 1.2 < speedups["taught"] < 1.4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"contenders": ["papers"]}, ValueError, "scheme must be one of paper, .*, plain or cut-K"),
        ({"measures": ["doubt"]}, ValueError, "measure must be one of entropy, .*got 'doubt'"),
        ({"contenders": ["paper", "paper"]}, ValueError, "contenders must have different names"),
        ({"seeds": ()}, ValueError, "seeds must be at least one"),
        ({"reference": "joint", "contenders": ["paper"]}, ValueError, "reference must be one of"),
        ({"contenders": [Contender("a", "cut")]}, ValueError, "scheme must be one of"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_a_file_is_read(
    options: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    missing = dict.fromkeys(("train", "dev", "test", "model"), tmp_path / "missing")
    with pytest.raises(error, match=message):
        run({**missing, "output": tmp_path / "output"}, **options)


@pytest.mark.parametrize("name", ["teacher", "a/b", "", ".a"])
def test_a_name_that_is_no_file_of_its_own_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a contender's name must be"):
        Contender(name, "paper")


def test_test_without_labels_and_too_few_of_dev_are_refused(files: dict[str, Path]) -> None:
    write_csv(files["test"], examples(9), labelled=False)
    with pytest.raises(DataError, match="label"):
        run(files)
    write_csv(files["test"], examples(9))
    write_csv(files["dev"], examples(19))
    with pytest.raises(DataError, match="at least 20 texts choose thresholds"):
        run(files)
    assert not files["output"].exists()


def test_a_folder_of_another_comparison_is_refused_in_a_line(files: dict[str, Path]) -> None:
    files["output"].mkdir()
    (files["output"] / "mine.txt").touch()
    with pytest.raises(FolderError, match="holds something else than a comparison"):
        run(files)
    (files["output"] / "mine.txt").unlink()
    run(files, contenders=["plain"])
    with pytest.raises(TrainingError, match="holds a comparison; go on with --resume"):
        run(files, contenders=["plain"])
    with pytest.raises(TrainingError, match="it began with max_length 16, not 12"):
        run(files, contenders=["plain"], max_length=12, resume=True)
    longer = replace(SETTINGS, fine_tuning=replace(QUICK, epochs=2))
    with pytest.raises(TrainingError, match="it began with teacher"):
        run(files, contenders=["plain"], settings=longer, resume=True)
    more = replace(SETTINGS, exits=replace(SETTINGS.exits, epochs=2))
    with pytest.raises(TrainingError, match="plain is finished with other stages"):
        run(files, contenders=["plain"], settings=more, resume=True)
    write_csv(files["test"], examples(36, seed=3))
    with pytest.raises(TrainingError, match="the texts of test are not those it began with"):
        run(files, contenders=["plain"], resume=True)

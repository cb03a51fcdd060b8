"""Walking a scheme: what is resumed, what a kill costs, and when a scheme is given up."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from fastbert.classifier import FastBertClassifier
from fastbert.errors import TrainingError
from fastbert.recipes import stages
from fastbert.recipes.stages import Walk
from fastbert.text import TextTokenizer
from fastbert.training.answers import TeacherAnswers
from fastbert.training.passes import teacher_answers
from fastbert.training.scheme import (
    SCHEMES,
    SchemeSettings,
    joint,
    paper,
    scheme_named,
    taught,
)
from tests.recipes.runs import (
    FINE_TUNING,
    Kill,
    folder_of_run,
    history_of,
    kill_at,
    never,
    run,
    weights,
    write_files,
)
from tests.tiny_data import examples, tiny_tokenizer, write_csv
from tests.training.learning import fresh_model, texts_of

QUICK = replace(FINE_TUNING, epochs=1, batch_size=16)
SETTINGS = SchemeSettings(
    fine_tuning=QUICK,
    distillation=replace(QUICK, learning_rate=1e-2),
    warm_up=replace(QUICK, learning_rate=1e-2),
    exits=replace(QUICK, epochs=2, learning_rate=1e-3),
    polish=replace(QUICK, learning_rate=1e-2),
    tolerance=1.0,
)
NOTHING_MAY_BE_LOST = replace(
    SETTINGS, exits=replace(SETTINGS.exits, learning_rate=0.5, warmup=0.0), tolerance=0.0
)
NEW = [name for name in SCHEMES if name != "paper"]  # test_run.py kills that one everywhere


def unlabelled(files: dict[str, Path]) -> dict[str, Path]:
    """Return files with texts without labels beside them."""
    more = write_csv(files["train"].with_name("more.csv"), examples(12, seed=4), labelled=False)
    return files | {"unlabeled": more}


@pytest.mark.parametrize("name", NEW)
def test_a_run_of_any_scheme_killed_in_any_stage_ends_bit_equal(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, broken = (
        unlabelled(write_files(make(tmp_path / place))) for place in ("whole", "broken")
    )
    scheme = scheme_named(name, SETTINGS)
    run(whole, scheme=scheme)
    # The stages have 4, 5, 10 and 5 steps; a checkpoint is due every 3 and after each epoch.
    kills = [
        ("on_step_end", 4 + 2),  # in the warm-up, before its first checkpoint
        ("on_save", 1),  # half written, at its end
        ("on_step_end", 2 + 4),  # in the stage of all parts, after a checkpoint
        ("on_step_end", 4),  # in its second epoch
    ]
    for resume, (call, number) in enumerate(kills):
        with monkeypatch.context() as patch:
            kill_at(patch, call, number)
            with pytest.raises(Kill):
                run(broken, scheme=scheme, resume=bool(resume))
    run(broken, scheme=scheme, resume=True)
    assert weights(broken["output"]) == weights(whole["output"])
    assert history_of(broken["output"]) == history_of(whole["output"])
    assert list(history_of(whole["output"])) == ["teacher", "students", "exits", "polish"]


def make(folder: Path) -> Path:
    folder.mkdir()
    return folder


def test_the_teacher_is_kept_as_it_was_until_all_parts_learn_and_teaches_what_it_was(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[torch.Tensor] = []

    def note(model: Any, *args: Any) -> TeacherAnswers:
        asked.append(next(model.teacher.parameters()).detach().clone())
        return teacher_answers(model, *args)

    monkeypatch.setattr(stages, "teacher_answers", note)
    kept = replace(SETTINGS, polish=None)
    with monkeypatch.context() as patch:
        kill_at(patch, "on_step_end", 4 + 4 + 4)  # in the stage of all parts
        with pytest.raises(Kill):
            run(files, scheme=joint(kept))
    monkeypatch.setattr(TeacherAnswers, "write", never)  # they are there already
    classifier = run(files, scheme=joint(kept), resume=True)
    assert len(asked) == 2
    assert torch.equal(*asked)
    trained = AutoModelForSequenceClassification.from_pretrained(files["output"])
    assert not torch.equal(next(trained.parameters()).detach(), asked[0])
    texts = [row.text for row in examples(5, seed=3)]
    batch = tiny_tokenizer()(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = trained(**batch).logits.softmax(-1).numpy()
    assert classifier.predict_proba(texts, speed=0.0) == pytest.approx(theirs, abs=1e-5)


@pytest.fixture(scope="module")
def given_up(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the files of a run whose scheme lost too much."""
    files = write_files(tmp_path_factory.mktemp("given_up"))
    run(files, scheme=joint(NOTHING_MAY_BE_LOST))
    return files


def test_a_scheme_that_costs_the_last_exit_too_much_ends_as_if_paper_had_been_asked_for(
    given_up: dict[str, Path],
) -> None:
    plain = given_up | {"output": given_up["output"].with_name("plain")}
    run(plain, scheme=paper(NOTHING_MAY_BE_LOST))
    assert weights(given_up["output"]) == weights(plain["output"])
    history = history_of(given_up["output"])
    assert list(history) == ["joint.students", "joint.exits", "teacher", "students"]
    del history["joint.students"], history["joint.exits"]
    assert history == history_of(plain["output"])


def test_giving_up_is_told_with_both_figures_in_the_log_the_folder_and_the_card(
    files: dict[str, Path], given_up: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    run(files, scheme=joint(NOTHING_MAY_BE_LOST))
    why = FastBertClassifier.from_pretrained(given_up["output"]).config.training["given_up"]
    assert (why["scheme"], why["fallback"], why["metric"]) == ("joint", "paper", "accuracy")
    assert why["full"] < why["teacher"]
    assert why["teacher"] == max(
        epoch["accuracy"] for epoch in history_of(given_up["output"])["teacher"]
    )
    for figure in (f"{why['full']:.4f}", f"{why['teacher']:.4f}"):
        assert figure in caplog.text
        assert figure in (given_up["output"] / "README.md").read_text("utf-8")


def test_a_run_killed_after_it_has_given_up_ends_bit_equal(
    files: dict[str, Path], given_up: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = joint(NOTHING_MAY_BE_LOST)
    with monkeypatch.context() as patch:
        kill_at(patch, "on_step_end", 4 + 4 + 8 + 2)  # in the students of the fallback
        with pytest.raises(Kill):
            run(files, scheme=scheme)
    assert (folder_of_run(files) / "stages" / "exits.safetensors").exists()
    run(files, scheme=scheme, resume=True)
    assert weights(files["output"]) == weights(given_up["output"])
    assert history_of(files["output"]) == history_of(given_up["output"])


def test_stages_that_need_labels_are_refused_before_the_first_where_there_are_none(
    tmp_path: Path, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = fresh_model()
    texts = replace(texts_of(model, tokenizer, examples(8), [], tmp_path / "texts"), labels=None)
    monkeypatch.setattr(stages, "run_stage", never)
    walk = Walk(model, tokenizer, texts, tmp_path / "run", resume=False)
    for name, stage in (("joint", "teacher"), ("separate", "teacher")):
        with pytest.raises(TrainingError, match=f"{stage}: this stage learns from labels, and no"):
            walk.through(scheme_named(name, SETTINGS))


def test_answers_of_another_model_teach_every_exit_without_labels(
    tmp_path: Path, tokenizer: TextTokenizer
) -> None:
    model = fresh_model()
    made = texts_of(model, tokenizer, examples(24), examples(10, seed=1), tmp_path / "texts")
    texts = replace(made, labels=None, dev_labels=None)
    wanted = torch.zeros(34, 3)
    wanted[:, 1] = 4.0  # it answers the same to everything
    answers = TeacherAnswers(wanted.numpy())
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings = replace(SETTINGS, polish=None, exits=replace(QUICK, epochs=4, learning_rate=1e-2))
    walk = Walk(model, tokenizer, texts, tmp_path / "run", resume=False)
    learned = walk.through(taught(settings).without_labels(), answers)
    last = learned.history["exits"][-1]
    assert (last["full"], last["area"]) == (1.0, 1.0)
    changed = [
        name for name, weight in model.state_dict().items() if not weight.equal(before[name])
    ]
    parts = {name.split(".")[0] for name in changed}
    assert parts == {"teacher", "students"}

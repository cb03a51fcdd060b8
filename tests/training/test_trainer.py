"""Running a stage: what it changes, what it follows on dev, and accumulated batches."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import rel_entr, softmax

from fastbert.data.example import Example
from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.engine import record
from fastbert.exits.recorded import RecordedExits
from fastbert.nn import heads
from fastbert.nn.backend import TorchBackend, batch_tensors
from fastbert.nn.model import FastBertModel
from fastbert.nn.objectives import divergence
from fastbert.text import TextTokenizer
from fastbert.training.callbacks import StopOnBrokenLoss
from fastbert.training.losses import AllExits, Target
from fastbert.training.scheme import SchemeSettings, joint
from fastbert.training.stage import Lesson, Part, Stage, StageSettings
from fastbert.training.trainer import StageTrainer, run_stage
from fastbert.training.weights import Uniform
from tests.tiny import tiny_classifier
from tests.tiny_data import LABELS, examples
from tests.training.learning import (
    HEADS,
    SETTINGS,
    distill,
    distill_some,
    fine_tune,
    fresh_model,
    texts_of,
)

WITHOUT_DROPOUT = dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob"), 0.0)


def test_backbone_and_teacher_stay_bit_equal_and_every_student_learns(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    model = fresh_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    distill_some(model, tokenizer, tmp_path)

    for name, tensor in model.state_dict().items():
        changed = not torch.equal(tensor, before[name])
        assert changed == name.startswith("students."), name


def test_distillation_brings_the_students_closer_to_the_teacher(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    model = fresh_model()
    batch = batch_tensors(tokenizer.collate(tokenizer.encode([row.text for row in examples(30)])))

    def distance() -> float:
        with torch.no_grad():
            readings, teacher = model.eval().teach(**batch)
            bias = torch.where(batch["attention_mask"] == 0, -torch.inf, 0.0).unsqueeze(1)
            answers = [head(h, bias) for head, h in zip(model.students, readings, strict=True)]
            return divergence(torch.stack(answers), teacher).mean().item()

    before = distance()
    distill_some(model, tokenizer, tmp_path)
    assert distance() < before / 2


def test_the_teacher_teaches_without_dropout(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    # The authors left the teacher in training mode, so its soft labels were noise.
    model = fresh_model()
    modes: set[bool] = set()
    teach = model.teach

    def spy(*args: Any, **tokens: Any) -> tuple[list[torch.Tensor], torch.Tensor]:
        modes.add(any(module.training for module in model.teacher.modules()))
        return teach(*args, **tokens)

    model.teach = spy  # type: ignore[method-assign]  # watched, not replaced
    distill_some(model, tokenizer, tmp_path)
    assert modes == {False}


def test_fewer_texts_than_a_batch_still_train(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    # The authors' package dropped the last partial batch, so little data trained nothing.
    model, texts = fresh_model(), [Example("made:1", "lovely word1")]
    before = model.students.state_dict()["0.reduce.weight"].clone()
    distill(model, tokenizer, texts, [], tmp_path, SETTINGS)
    assert not torch.equal(model.students.state_dict()["0.reduce.weight"], before)


def test_the_history_follows_the_students_at_the_papers_speed(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    model, texts, dev = fresh_model(), examples(40), examples(10, seed=1)
    before = record_of(model, tokenizer, dev)
    settings = replace(SETTINGS, epochs=1)
    [epoch] = distill(model, tokenizer, texts, dev, tmp_path, settings)

    recorded = record_of(model, tokenizer, dev)
    assert not np.array_equal(recorded.recorded, before.recorded)
    answered = recorded.replay(EntropyCriterion(0.5))
    agrees = answered.logits.argmax(-1) == recorded.recorded[-1].argmax(-1)
    p, q = softmax(recorded.recorded[:-1], axis=-1), softmax(recorded.recorded[-1:], axis=-1)
    judged = {"accuracy", "full", "agreement", "mean_exit_layer", "area"}
    assert epoch.keys() == {"epoch", "dev_loss"} | judged
    right = [LABELS[k] == row.label for k, row in zip(answered.logits.argmax(-1), dev, strict=True)]
    assert epoch["accuracy"] == pytest.approx(np.mean(right))
    assert epoch["epoch"] == 1.0
    assert epoch["agreement"] == pytest.approx(agrees.mean())
    assert epoch["mean_exit_layer"] == pytest.approx(answered.exit_layer.mean())
    assert epoch["dev_loss"] == pytest.approx(rel_entr(p, q).sum(-1).mean(-1).sum(), rel=1e-4)


def record_of(
    model: FastBertModel, tokenizer: TextTokenizer, rows: Sequence[Example]
) -> RecordedExits:
    batch = tokenizer.collate(tokenizer.encode([row.text for row in rows]))
    return RecordedExits(record(TorchBackend(model.eval()), batch))


@pytest.mark.parametrize("label", [None, "a label that the checkpoint does not have"])
def test_students_learn_without_labels_of_the_model(
    tokenizer: TextTokenizer, tmp_path: Path, label: str | None
) -> None:
    # Labels only add the accuracy to the history.
    dev = [replace(row, label=label) for row in examples(10, seed=1)]
    texts, settings = examples(16), replace(SETTINGS, epochs=1)
    [epoch] = distill(fresh_model(), tokenizer, texts, dev, tmp_path, settings)
    assert "accuracy" not in epoch
    assert "agreement" in epoch


def test_there_is_one_entry_an_epoch_and_none_without_dev(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    texts, dev = examples(24), examples(10, seed=1)
    settings = replace(SETTINGS, epochs=3)
    history = distill(fresh_model(), tokenizer, texts, dev, tmp_path / "a", settings)
    assert [epoch["epoch"] for epoch in history] == [1.0, 2.0, 3.0]
    assert history[-1]["dev_loss"] < history[0]["dev_loss"]
    assert distill(fresh_model(), tokenizer, texts, [], tmp_path / "b", settings) == []


# Accumulated batches.


def one_step(
    stage: str,
    tokenizer: TextTokenizer,
    folder: Path,
    rows: int,
    settings: StageSettings,
    label_smoothing: float,
) -> dict[str, float]:
    """Train one epoch of one step, without dropout; return what was logged of it."""
    logged: dict[str, float] = {}
    texts = examples(rows)
    torch.manual_seed(0)
    names = dict(enumerate(LABELS))
    numbers = {label: number for number, label in names.items()}
    teacher = tiny_classifier("bert", id2label=names, label2id=numbers, **WITHOUT_DROPOUT)
    model = FastBertModel(teacher, HEADS)

    def note(_self: object, _args: Any, _state: Any, _control: Any, **kwargs: Any) -> None:
        logged.update(kwargs["logs"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StopOnBrokenLoss, "on_log", note)
        patch.setattr(heads, "ATTENTION_DROPOUT", 0.0)
        if stage == "teacher":
            fine_tune(model, tokenizer, texts, texts[:1], folder, settings, label_smoothing)
        else:
            distill(model, tokenizer, texts, [], folder, settings)
    return logged


@pytest.mark.parametrize(
    ("stage", "label_smoothing", "rows"),
    # Of 6 rows the last accumulation is incomplete.
    [("teacher", 0.0, 8), ("teacher", 0.0, 6), ("teacher", 0.1, 6), ("students", 0.0, 6)],
)
def test_accumulated_batches_make_the_step_of_one_large_batch(
    stage: str, label_smoothing: float, rows: int, tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    whole = StageSettings(epochs=1, learning_rate=1e-3, batch_size=8, warmup=0.0, bf16=False)
    parts = replace(whole, batch_size=2, gradient_accumulation=4)
    accumulated = one_step(stage, tokenizer, tmp_path / "parts", rows, parts, label_smoothing)
    at_once = one_step(stage, tokenizer, tmp_path / "whole", rows, whole, label_smoothing)
    # The weights after it would tell less: Adam takes a step of the same size for any scale.
    assert accumulated["loss"] == pytest.approx(at_once["loss"], rel=1e-4)
    assert accumulated["grad_norm"] == pytest.approx(at_once["grad_norm"], rel=1e-4)


# Schemes in which all parts learn.


def exits_stage(**changes: Any) -> Stage:
    """Return the stage in which all parts learn, without the stages before it."""
    stage = joint(SchemeSettings(exits=replace(SETTINGS, epochs=1))).stages[-1]
    return replace(stage, taught=False, **changes)


LABELS_ALONE = AllExits(Uniform(), Target(share=0.0, last_share=0.0))


def test_all_parts_learn_and_students_have_their_own_rate(
    tokenizer: TextTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates: dict[float, set[str]] = {}

    def note(self: StageTrainer, *args: Any) -> torch.optim.Optimizer:
        optimizer = original(self, *args)
        names = {id(weight): name for name, weight in model.named_parameters()}
        for group in optimizer.param_groups:
            parts = {names[id(weight)].split(".")[0] for weight in group["params"]}
            rates.setdefault(group["lr"], set()).update(parts)
        return optimizer

    original = StageTrainer.create_optimizer
    monkeypatch.setattr(StageTrainer, "create_optimizer", note)
    model = fresh_model()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    settings = replace(SETTINGS, epochs=1, learning_rate=1e-3, students_learning_rate=4e-3)
    texts = texts_of(model, tokenizer, examples(40), [], tmp_path / "texts")
    run_stage(
        exits_stage(loss=LABELS_ALONE, settings=settings), model, tokenizer, texts, tmp_path / "run"
    )
    assert rates == {1e-3: {"teacher"}, 4e-3: {"students"}}
    changed = {n.split(".")[0] for n, w in model.state_dict().items() if not w.equal(before[n])}
    assert changed == {"teacher", "students"}


def test_losses_are_told_progress_and_step_and_on_dev_the_end(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    told: list[tuple[float, int | None]] = []

    def note(lesson: Lesson) -> torch.Tensor:
        told.append((lesson.progress, lesson.step))
        return LABELS_ALONE(lesson)

    model = fresh_model()
    texts = texts_of(model, tokenizer, examples(16), examples(8, seed=1), tmp_path / "texts")
    settings = replace(SETTINGS, batch_size=4, gradient_accumulation=2)  # 2 steps in each epoch
    run_stage(exits_stage(loss=note, settings=settings), model, tokenizer, texts, tmp_path / "run")
    dev = [(1.0, None)] * 2
    steps = [(step / 4, step) for step in range(4) for _ in range(2)]
    assert told == [*steps[:4], *dev, *steps[4:], *dev]


def test_a_fixed_weight_of_a_frozen_students_loss_changes_nothing_under_adam(
    tokenizer: TextTokenizer, tmp_path: Path
) -> None:
    # But for ε, and for clipping, which is why the losses are small.
    def trained(name: str, scale: torch.Tensor) -> torch.Tensor:
        def loss(lesson: Lesson) -> torch.Tensor:
            teacher = lesson.exits[-1].detach()
            divergence = lesson.objective.divergence(
                lesson.exits[:-1], teacher, "teacher-student", 1.0
            )
            return (scale[:, None] * divergence).sum(0).mean()

        model = fresh_model()
        texts = texts_of(model, tokenizer, examples(24), [], tmp_path / name)
        settings = replace(SETTINGS, epochs=1, learning_rate=1e-3)
        stage = Stage("students", frozenset({Part.STUDENTS}), loss, settings)
        run_stage(stage, model, tokenizer, texts, tmp_path / f"{name}-run")
        return torch.cat([weight.flatten() for weight in model.students.parameters()]).detach()

    equal, scaled = (
        trained("a", torch.ones(3) * 1e-2),
        trained("b", torch.tensor([3e-2, 1e-2, 2e-3])),
    )
    fresh = torch.cat([weight.flatten() for weight in fresh_model().students.parameters()]).detach()
    assert (equal - scaled).abs().mean() < (equal - fresh).abs().mean() / 20

"""A stage refuses what would train nothing, and knows whether students are asked."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from fastbert.training import stage as stage_module
from fastbert.training.stage import Lesson, Part, Stage, StageSettings

SETTINGS = StageSettings(epochs=1, learning_rate=1e-3)


def none(_: Lesson) -> torch.Tensor:
    raise AssertionError("nothing is trained here")


def stage(*parts: Part, **options: Any) -> Stage:
    return Stage("some", frozenset(parts), none, SETTINGS, **options)


@pytest.mark.parametrize(
    "name", ["epochs", "batch_size", "gradient_accumulation", "checkpoint_steps"]
)
def test_counts_start_at_one(name: str) -> None:
    least: dict[str, Any] = {name: 1}
    too_few: dict[str, Any] = {name: 0}
    replace(SETTINGS, **least)
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        replace(SETTINGS, **too_few)


@pytest.mark.parametrize("rate", [0.0, -1e-3, float("nan")])
def test_a_learning_rate_that_learns_nothing_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match=r"^learning_rate must be above 0, got"):
        replace(SETTINGS, learning_rate=rate)
    with pytest.raises(ValueError, match=r"^students_learning_rate must be above 0, got"):
        replace(SETTINGS, students_learning_rate=rate)


def test_students_learn_ten_times_faster_than_what_is_pretrained_unless_told() -> None:
    assert stage(*Part).students_learning_rate == pytest.approx(1e-2)
    assert stage(Part.STUDENTS).students_learning_rate == 1e-3
    told = replace(SETTINGS, students_learning_rate=0.5)
    assert replace(stage(*Part), settings=told).students_learning_rate == 0.5


@pytest.mark.parametrize(("labels", "needed"), [("every", True), ("some", True), ("none", False)])
def test_a_stage_knows_whether_it_can_do_without_labels(labels: Any, needed: bool) -> None:
    assert stage(Part.STUDENTS, labels=labels).needs_labels == needed


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_what_was_asked_for_or_what_the_machine_is_fast_at(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage_module, "has_native_bf16", lambda: native)
    computed = [replace(SETTINGS, bf16=asked).computes_bf16 for asked in (None, True, False)]
    assert computed == [native, True, False]


def test_a_stage_that_trains_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="some: trains must name a part of the model, got none"):
        stage()


@pytest.mark.parametrize("parts", [(Part.TEACHER,), (Part.STUDENTS, Part.BACKBONE)])
def test_hidden_states_that_change_are_not_cached(parts: tuple[Part, ...]) -> None:
    got = ", ".join(sorted(part.value for part in parts))
    with pytest.raises(ValueError, match=f"some: hidden states .* nothing but .*, got {got}$"):
        stage(*parts, cache_hidden_states=True)
    with pytest.raises(ValueError, match="hidden states can be cached only where nothing but"):
        stage(*parts, cache_hidden_states=None)
    assert stage(Part.STUDENTS, cache_hidden_states=True).cache_hidden_states


def test_students_are_asked_where_they_learn() -> None:
    assert stage(Part.STUDENTS, Part.TEACHER).asks_students
    assert not stage(Part.BACKBONE, Part.TEACHER).asks_students

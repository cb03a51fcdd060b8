"""Contenders by name, and which of them go on from the shared teacher."""

from dataclasses import replace

import pytest

from fastbert.recipes.contenders import (
    Contender,
    contender_named,
    contenders_named,
    shared_stage,
)
from fastbert.training.scheme import SCHEMES, SchemeSettings, joint
from fastbert.training.stage import Part, StageSettings

SETTINGS = SchemeSettings(
    fine_tuning=StageSettings(epochs=2, learning_rate=3e-5),
    exits=StageSettings(epochs=5, learning_rate=1e-5),
)


@pytest.mark.parametrize("name", SCHEMES)
def test_every_scheme_goes_on_from_the_shared_teacher(name: str) -> None:
    shared = shared_stage(SETTINGS, seed=7)
    contender = contender_named(name, SETTINGS, "queries").settled(SETTINGS, 7)
    assert contender.begins_with(shared)
    assert contender.has_students
    assert contender.heads == "queries"
    assert not contender.settled(SETTINGS, 8).begins_with(shared)
    assert not replace(contender, layers=2).begins_with(shared)
    assert not replace(contender, model="other").begins_with(shared)


def test_a_seed_is_that_of_every_stage_and_of_the_fallback() -> None:
    contender = Contender("mine", joint(SETTINGS)).settled(SETTINGS, 9)
    scheme = contender.stages
    assert scheme.fallback is not None
    stages = [*scheme.stages, *scheme.fallback.stages]
    assert {stage.settings.seed for stage in stages} == {9}


def test_plain_and_a_shorter_body_have_the_epochs_in_which_the_encoder_learns() -> None:
    for name in ("plain", "cut-3"):
        contender = contender_named(name, SETTINGS).settled(SETTINGS, 1)
        [stage] = contender.stages.stages
        assert stage.settings.epochs == 2 + 5
        assert stage.trains == {Part.BACKBONE, Part.TEACHER}
        assert not contender.has_students
        assert not contender.begins_with(shared_stage(SETTINGS, 1))
    assert contender.layers == 3
    assert stage.taught


def test_each_scheme_is_named_with_each_of_the_heads_and_what_has_none_once() -> None:
    found = contenders_named(["paper", "plain", "cut-2"], SETTINGS, ["queries/8", "paper:3, mean"])
    names = ["paper+queries-8", "paper+paper.3_mean", "plain", "cut-2"]
    assert [one.name for one in found] == names
    assert [one.heads for one in found[:2]] == ["queries/8", "paper:3, mean"]
    assert [one.name for one in contenders_named(["joint"], SETTINGS, ["mean"])] == ["joint"]


def test_a_name_of_none_is_refused() -> None:
    for name in ("cut-0", "cut-", "cut-3x", "full"):
        with pytest.raises(ValueError, match=r"scheme must be one of paper, .*plain or cut-K"):
            contender_named(name)
    with pytest.raises(ValueError, match="layers must be at least 1, got 0"):
        Contender("a", "plain", layers=0)
    with pytest.raises(ValueError, match="heads must be of paper"):
        Contender("a", "plain", "round")

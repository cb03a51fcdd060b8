"""The schemes: what each of their stages trains, reads and is judged by."""

import json
from dataclasses import replace
from typing import Any

import pytest

from fastbert.head_shapes import DEFAULT_HEADS
from fastbert.training.losses import AllExits
from fastbert.training.scheme import (
    DEFAULT_SCHEME,
    DISTILLATION,
    EXITS,
    FINE_TUNING,
    SCHEMES,
    WARM_UP,
    Scheme,
    SchemeSettings,
    into,
    joint,
    paper,
    scheme_named,
    taught,
)
from fastbert.training.stage import Part, StageSettings

JOINT = [name for name in SCHEMES if name != "paper"]


def test_the_defaults_are_those_that_were_measured_best() -> None:
    # docs/decisions/0024-defaults-by-measurement.md
    assert (DEFAULT_SCHEME, DEFAULT_HEADS) == ("separate", "queries")
    assert (FINE_TUNING.epochs, FINE_TUNING.learning_rate) == (3, 2e-5)
    assert DISTILLATION == WARM_UP == StageSettings(epochs=8, learning_rate=3e-3)
    assert StageSettings(epochs=3, learning_rate=5e-5, students_learning_rate=1e-3) == EXITS
    assert SchemeSettings().polish is None


def test_first_the_backbone_and_the_teacher_learn_then_the_students() -> None:
    teacher, students = SCHEMES["paper"](SchemeSettings()).stages
    assert teacher.trains == {Part.BACKBONE, Part.TEACHER}
    assert students.trains == {Part.STUDENTS}
    assert (teacher.name, students.name) == ("teacher", "students")
    assert (teacher.settings, students.settings) == (FINE_TUNING, DISTILLATION)
    assert (teacher.labels, students.labels) == ("every", "none")
    assert (teacher.best_by, students.best_by) == ("metric", "loss")


def test_only_where_the_encoder_is_frozen_hidden_states_are_kept() -> None:
    for asked in (None, True, False):
        cached = paper(SchemeSettings(cache_hidden_states=asked)).stages
        assert [stage.cache_hidden_states for stage in cached] == [False, asked]
        polished = SchemeSettings(cache_hidden_states=asked, polish=DISTILLATION)
        for all_parts in (joint(polished), into(polished)):
            each = [stage.cache_hidden_states for stage in all_parts.stages]
            assert each == [False, asked, False, asked]
    assert SchemeSettings().cache_hidden_states is None


@pytest.mark.parametrize("name", JOINT)
def test_where_all_parts_learn_students_warm_up_first_and_the_area_chooses(name: str) -> None:
    scheme = scheme_named(name)
    teacher, warm_up, exits = scheme.stages
    assert [stage.name for stage in scheme.stages] == ["teacher", "students", "exits"]
    assert teacher == replace(paper().stages[0], loss=teacher.loss)
    assert warm_up.trains == {Part.STUDENTS}
    assert exits.trains == set(Part)
    assert (exits.best_by, exits.taught, warm_up.taught) == ("area", True, True)
    assert (scheme.name, scheme.tolerance) == (name, 0.01)
    assert scheme.fallback is not None
    assert scheme.fallback.name == "paper"


@pytest.mark.parametrize("name", JOINT)
def test_warming_up_may_be_left_out_and_polishing_be_added(name: str) -> None:
    polish = StageSettings(epochs=1, learning_rate=5e-4)
    scheme = scheme_named(name, SchemeSettings(warm_up=None, polish=polish))
    assert [stage.name for stage in scheme.stages] == ["teacher", "exits", "polish"]
    assert scheme.stages[-1].trains == {Part.STUDENTS}
    assert scheme.stages[-1].settings == polish


def test_what_is_taught_alone_reads_no_labels_after_its_first_stage() -> None:
    rest = taught().without_labels()
    assert [stage.name for stage in rest.stages] == ["students", "exits"]
    assert not rest.needs_labels
    for stage in rest.stages:
        assert isinstance(stage.loss, AllExits)
        assert (stage.loss.target.share, stage.loss.target.last_share) == (1, 1)
    assert [stage.name for stage in joint().without_labels().stages] == []
    assert [stage.name for stage in paper().without_labels().stages] == ["students"]


def test_what_another_model_teaches_reads_no_label_and_goes_back_to_nothing() -> None:
    first = StageSettings(epochs=4, learning_rate=3e-4)
    scheme = into(SchemeSettings(imitation=first))
    last_exit, warm_up, exits = scheme.stages
    assert [stage.name for stage in scheme.stages] == ["teacher", "students", "exits"]
    assert last_exit.trains == {Part.BACKBONE, Part.TEACHER}
    assert last_exit.settings == first
    assert (warm_up, exits) == taught().stages[1:]
    assert all(stage.taught and stage.labels == "none" for stage in scheme.stages)
    assert isinstance(last_exit.loss, AllExits)
    assert (last_exit.loss.target.share, last_exit.loss.target.last_share) == (1, 1)
    assert (scheme.fallback, scheme.tolerance, scheme.needs_labels) == (None, None, False)


def test_only_separate_cuts_the_gradients_between_exits() -> None:
    cut = {
        name: [stage.detached for stage in SCHEMES[name](SchemeSettings()).stages]
        for name in SCHEMES
    }
    assert {name for name, each in cut.items() if any(each)} == {"separate"}
    assert cut["separate"] == [False, False, True]


@pytest.mark.parametrize("tolerance", [-0.01, float("nan")])
def test_a_tolerance_below_0_is_refused(tolerance: float) -> None:
    SchemeSettings(tolerance=0.0)
    with pytest.raises(ValueError, match=f"tolerance must be at least 0, .* got {tolerance}"):
        SchemeSettings(tolerance=tolerance)
    with pytest.raises(ValueError, match=f"tolerance must be at least 0, .* got {tolerance}"):
        replace(joint(), tolerance=tolerance)


def test_two_stages_of_one_name_are_refused() -> None:
    stage = paper().stages[0]
    with pytest.raises(ValueError, match="twice: stages must have different names"):
        Scheme("twice", "nobody", (stage, stage))


def test_an_unknown_scheme_is_refused_with_the_names_of_all() -> None:
    with pytest.raises(ValueError, match=r"one of paper, joint, exit-aware, .*, got 'papers'"):
        scheme_named("papers")


@pytest.mark.parametrize("name", SCHEMES)
def test_json_tells_every_number_of_a_scheme(name: str) -> None:
    told = json.loads(json.dumps(scheme_named(name).told()))
    assert told["scheme"] == name
    changes: list[dict[str, Any]] = [
        {"fine_tuning": replace(FINE_TUNING, seed=7)},
        {"label_smoothing": 0.1},
        {"distillation": replace(DISTILLATION, epochs=7)},
        {"direction": "teacher-student"},
    ]
    for change in changes:
        other = json.loads(json.dumps(scheme_named(name, SchemeSettings(**change)).told()))
        assert other != told, change

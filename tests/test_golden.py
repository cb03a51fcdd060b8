"""A folder that version 0.1 wrote still loads, and answers what it answered then.

`golden/v0.1` was trained, calibrated and exported by that version; the answers beside it are what
it gave to the calibration's own texts, in torch.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from fastbert import CalibrationError, FastBertClassifier, PaperHead
from fastbert.calibration.goal import Goal
from fastbert.folder.read import open_folder

GOLDEN = Path(__file__).parent / "golden"
ANSWERS = json.loads((GOLDEN / "v0.1.answers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def classifier() -> FastBertClassifier:
    return FastBertClassifier.from_pretrained(GOLDEN / "v0.1", runtime="torch")


def assert_as_then(classifier: FastBertClassifier, then: dict[str, Any], **asked: Any) -> None:
    answers = classifier.predict(ANSWERS["texts"], **asked)
    assert [answer.exit_layer for answer in answers] == then["exit_layers"]
    assert [answer.label for answer in answers] == then["labels"]
    assert [answer.score for answer in answers] == pytest.approx(then["scores"], abs=1e-6)


@pytest.mark.parametrize("speed", ANSWERS["speeds"])
def test_the_paper_s_speeds_are_answered_as_then(
    classifier: FastBertClassifier, speed: str
) -> None:
    assert_as_then(classifier, ANSWERS["speeds"][speed], speed=float(speed))


@pytest.mark.parametrize("number", range(len(ANSWERS["goals"])))
def test_goals_are_answered_as_then(classifier: FastBertClassifier, number: int) -> None:
    then = ANSWERS["goals"][number]
    assert_as_then(classifier, then, **then["goal"])


def test_its_recommended_speed_is_the_default(classifier: FastBertClassifier) -> None:
    assert_as_then(classifier, ANSWERS["default"])
    assert classifier.default_goal is None


def test_nothing_is_promised_for_it_since_nobody_noted_what_answered(
    classifier: FastBertClassifier,
) -> None:
    with pytest.raises(
        CalibrationError, match=r"does not say what was calibrated.*calibrate again"
    ):
        classifier.speed_for(max_drop=0.5, confidence=0.9)


def test_calibrating_it_again_writes_the_schema_of_today(
    classifier: FastBertClassifier, tmp_path: Path
) -> None:
    classifier.save_pretrained(tmp_path / "new")
    new = FastBertClassifier.from_pretrained(tmp_path / "new", runtime="torch")
    new.save_calibration(new.calibrate(ANSWERS["texts"]), "again", Goal(saving=0.5))

    raw = json.loads((tmp_path / "new" / "early_exit.json").read_text(encoding="utf-8"))
    assert raw["schema_version"] == 3
    assert open_folder(tmp_path / "new").config.default is not None
    assert new.default_goal == Goal(saving=0.5)


def test_what_it_called_layout_has_other_names_now(classifier: FastBertClassifier) -> None:
    config = classifier.config
    assert config.teacher_head == config.training["teacher_head"] == "pretrained"
    assert config.students == (PaperHead(width=8),) * (config.num_layers - 1)
    assert config.training["students"]["heads"] == "paper/first/8"
    assert not {"layout", "shape"} & {*config.training, *config.training["students"]}

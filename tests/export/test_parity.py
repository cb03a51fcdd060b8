"""What counts as a difference between an export and torch, and how much of it is refused."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastbert.errors import ExportError
from fastbert.exits.criteria import EntropyCriterion, ThresholdCriterion, uncertainty
from fastbert.exits.measures import MaxProbability
from fastbert.exits.recorded import RecordedExits
from fastbert.export.parity import NEAR, near_threshold, refuse_beyond_bar
from fastbert.folder.export import Parity
from fastbert.running import Precision

EXITS, ROWS, CLASSES = 4, 30, 3
ALIKE = Parity(
    rows=100,
    source="made",
    speed=0.5,
    labels_differ=0,
    labels_differ_at_speed=0,
    exit_layers_differ=0,
    near_threshold=0,
    max_probability_difference=1e-6,
)


def recorded() -> RecordedExits:
    logits = np.random.default_rng(0).normal(size=(EXITS, ROWS, CLASSES)).astype(np.float32)
    return RecordedExits(logits)


def test_a_row_is_near_where_rounding_may_decide_at_a_student() -> None:
    doubt = uncertainty(recorded().recorded)
    for exit_, row in ((0, 3), (2, 17)):
        speed = float(doubt[exit_, row]) + NEAR / 2
        near = near_threshold(recorded(), EntropyCriterion(speed))
        assert near[row]
        assert near.sum() < 5
    of_the_teacher = float(doubt[-1, 5])
    assert near_threshold(recorded(), EntropyCriterion(of_the_teacher)).sum() < 5


def test_an_exit_that_nobody_asks_has_no_rows_near_it() -> None:
    certain = RecordedExits(recorded().recorded * 1_000)  # every doubt is next to 0
    none = ThresholdCriterion(MaxProbability(), (0.0, 0.0, 0.0))
    second = ThresholdCriterion(MaxProbability(), (0.0, 1e-9, 0.0))
    assert near_threshold(certain, none).sum() == 0
    assert near_threshold(certain, second).sum() > ROWS / 2


@pytest.mark.parametrize(
    ("precision", "changes", "refused"),
    [
        ("fp32", {}, False),
        ("fp32", {"exit_layers_differ": 3, "near_threshold": 3}, False),
        ("fp32", {"exit_layers_differ": 3, "near_threshold": 2}, True),
        ("fp32", {"labels_differ": 1}, True),
        ("int8", {"labels_differ": 5, "exit_layers_differ": 25}, False),
        ("int8", {"labels_differ": 6}, True),
        ("bf16", {"exit_layers_differ": 26}, True),
    ],
)
def test_more_than_a_precision_explains_is_refused(
    precision: Precision, changes: dict[str, Any], refused: bool
) -> None:
    parity = replace(ALIKE, **changes)
    if not refused:
        refuse_beyond_bar(parity, precision)
        return
    with pytest.raises(ExportError, match=r"^not exported: of 100 rows") as caught:
        refuse_beyond_bar(parity, precision)
    advice = "please report this" if precision == "fp32" else "try --precision fp32"
    assert str(caught.value).endswith(advice)

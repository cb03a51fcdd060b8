"""A made-up report of one label out of three, whose students are right more often the deeper."""

from dataclasses import replace
from typing import Any

import numpy as np

from fastbert.exits.recorded import RecordedExits
from fastbert.head_shapes import PaperHead
from fastbert.report.data import ReportData
from fastbert.shape import ModelShape
from fastbert.tasks.single_label import SingleLabel

EXITS, ROWS, CLASSES = 5, 120, 3
SHAPE = ModelShape(32, 64, EXITS, CLASSES, (PaperHead(),) * (EXITS - 1))


def made_up(**changes: Any) -> ReportData:
    """Return a report whose students are right more often the deeper they are."""
    random = np.random.default_rng(7)
    truth = random.integers(0, CLASSES, ROWS)
    logits = random.normal(size=(EXITS, ROWS, CLASSES))
    logits[:, np.arange(ROWS), truth] += np.linspace(0, 3, EXITS)[:, None]
    report = ReportData(
        name="model",
        task=SingleLabel(("no", "perhaps", "yes")),
        num_layers=EXITS,
        recorded=RecordedExits(logits),
        truth=truth,
        lengths=random.integers(4, 60, ROWS),
        shape=SHAPE,
    )
    return replace(report, **changes)

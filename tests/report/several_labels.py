"""A report of a model of several labels, from made-up logits."""

from dataclasses import replace
from typing import Any

import numpy as np

from fastbert.exits.recorded import RecordedExits
from fastbert.head_shapes import PaperHead
from fastbert.report.data import ReportData
from fastbert.shape import ModelShape
from fastbert.tasks.multi_label import MultiLabel

EXITS, ROWS, LABELS = 4, 150, 3


def made_up(**changes: Any) -> ReportData:
    """Return a report whose students are right more often the deeper they are.

    A row has none of the labels, all of them, or some.
    """
    random = np.random.default_rng(5)
    truth = random.random((ROWS, LABELS)) < [0.6, 0.4, 0.3]
    logits = random.normal(0, 2, (EXITS, ROWS, LABELS))
    logits += np.where(truth, 1, -1) * np.linspace(0.5, 3, EXITS)[:, None, None]
    report = ReportData(
        name="a model",
        task=MultiLabel(("calm", "glad", "sad")),
        num_layers=EXITS,
        recorded=RecordedExits(logits),
        truth=truth,
        lengths=random.integers(4, 60, ROWS),
        shape=ModelShape(32, 64, EXITS, LABELS, (PaperHead(),) * (EXITS - 1)),
    )
    return replace(report, **changes)

"""A report's parts fit each other, and its quality has the name of what was compared."""

from typing import Any

import numpy as np
import pytest

from fastbert.tasks.single_label import SingleLabel
from tests.report.one_label import EXITS, ROWS, made_up


def test_where_another_model_knows_the_truth_quality_names_it() -> None:
    assert made_up(truth_from="big-model").quality == "agreement with big-model"
    assert made_up().quality == "accuracy"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"num_layers": 4}, "num_layers"),
        ({"task": SingleLabel(("no", "yes"))}, "labels"),
        ({"texts": ["one"]}, "texts"),
        ({"doubts": np.zeros((EXITS, ROWS))}, "doubts"),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        made_up(**change)

"""Replaying recorded exits."""

import numpy as np

from fastbert.exits.criteria import EntropyCriterion, uncertainty
from fastbert.exits.recorded import RecordedExits

EXITS, ROWS, CLASSES = 3, 200, 4


def test_a_replay_answers_as_the_first_certain_exit_does() -> None:
    random = np.random.default_rng(5)
    recorded = random.normal(scale=3, size=(EXITS, ROWS, CLASSES))
    result = RecordedExits(recorded).replay(EntropyCriterion(0.4))

    certain = uncertainty(recorded) < 0.4
    certain[-1] = True
    first = certain.argmax(axis=0)
    assert np.unique(first).tolist() == [0, 1, 2]
    assert result.exit_layer.tolist() == (first + 1).tolist()
    assert result.logits.tolist() == recorded[first, np.arange(ROWS)].tolist()

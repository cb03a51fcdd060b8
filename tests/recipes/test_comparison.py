"""What records say: means over seeds, the reference, and teachers that do not fit."""

from pathlib import Path

import numpy as np
import pytest

from fastbert.calibration.frontier import Split
from fastbert.errors import TrainingError
from fastbert.exits.recorded import RecordedExits
from fastbert.folder.config import EarlyExitConfig
from fastbert.head_shapes import heads_by_depth
from fastbert.recipes.comparison import Comparison, folder_of, judge_records
from fastbert.recipes.records import write_record
from fastbert.tasks.single_label import SingleLabel
from tests.calibration.simulated import CLASSES, EXITS, simulated

CONFIG = {"model_type": "bert", "hidden_size": 16, "intermediate_size": 32}


def record(
    output: Path, seed: int, name: str, exits: list[int], noise: float, teacher: str = "t"
) -> None:
    """Record a contender with these of the simulated exits."""
    splits = {}
    for split, number, rows in (("dev", 0, 120), ("test", 1, 90)):
        logits, truth = simulated(number, rows)
        random = np.random.default_rng([seed, number])
        noisy = logits[exits] + noise * random.normal(size=(len(exits), rows, CLASSES))
        splits[split] = Split(RecordedExits(noisy), truth, np.full(rows, 9))
    layers = EXITS if name != "cut-2" else 2
    config = EarlyExitConfig(
        "pretrained", SingleLabel(("a", "b", "c")), layers, 16, heads_by_depth("mean", layers - 1)
    )
    model = {**CONFIG, "num_hidden_layers": layers}
    write_record(
        folder_of(output, seed), name, {"teacher": teacher}, config.as_dict(), model, splits
    )


@pytest.fixture
def output(tmp_path: Path) -> Path:
    for seed in (42, 7):
        record(tmp_path, seed, "teacher", [3], 0.0)
        record(tmp_path, seed, "joint", [0, 1, 2, 3], 0.1)
        record(tmp_path, seed, "worse", [0, 1, 2, 3], 4.0)
        record(tmp_path, seed, "cut-2", [1], 0.0)
        record(tmp_path, seed, "plain", [3], 0.0)
    return tmp_path


NAMES = ("joint", "worse", "cut-2", "plain")


def judge(output: Path, names: tuple[str, ...] = NAMES) -> Comparison:
    return judge_records(output, names, ("entropy", "margin"), (42, 7), {"model": "made"})


def test_there_is_a_row_for_each_contender_and_measure_in_their_order(output: Path) -> None:
    found = judge(output)
    rows = [(one.contender, one.measure) for one in found.summary]
    by_measure = [(name, measure) for name in NAMES[:2] for measure in ("entropy", "margin")]
    assert rows == [*by_measure, ("cut-2", None), ("plain", None)]
    assert len(found.judged) == 2 * len(rows)


def test_figures_are_means_over_seeds_and_none_where_one_has_none(output: Path) -> None:
    found = judge(output)
    for row in found.summary:
        seeds = [
            one.frontier
            for one in found.judged
            if (one.contender, one.measure) == (row.contender, row.measure)
        ]
        assert row.full == pytest.approx(sum(one.full.metric for one in seeds) / 2)
        assert row.default_drop == pytest.approx(sum(one.drop for one in seeds) / 2)
        for place, value in enumerate(row.exact):
            there = [one.exact[place] for one in seeds]
            known = [each for each in there if each is not None]
            assert value == (pytest.approx(sum(known) / 2) if len(known) == 2 else None)
        if row.exact[0] is not None:
            worth = found.yardsticks[42].metric
            assert row.retention[0] == pytest.approx(row.exact[0] / worth)


def test_others_are_set_against_the_reference_at_equal_cost(output: Path) -> None:
    joint, margin, worse, _, cut, plain = judge(output).summary
    assert joint.versus == (None,) * 4
    assert margin.versus[0] is not None
    difference = worse.versus[0]
    assert difference is not None
    assert worse.exact[0] is not None
    assert joint.exact[0] is not None
    assert difference.mean == pytest.approx(worse.exact[0] - joint.exact[0])
    assert not difference.is_tie
    assert cut.versus[0] is not None  # half the layers cost half as much
    assert cut.versus[1:] == (None,) * 3
    assert plain.versus == (None,) * 4


def test_a_contender_of_another_teacher_is_refused(output: Path) -> None:
    record(output, 7, "joint", [0, 1, 2, 3], 0.1, teacher="another")
    with pytest.raises(TrainingError, match="joint went on from another teacher than lies there"):
        judge(output)


def test_json_has_every_figure_by_its_place(output: Path) -> None:
    told = judge(output).as_dict()
    assert told["metric"] == "accuracy"
    assert list(told["yardsticks"]) == ["42", "7"]
    row = told["summary"][0]
    assert list(row["exact"]) == list(row["versus"]) == ["2", "3", "4", "6"]
    assert list(row["retained"]) == ["0.99", "0.98"]
    assert told["seeds"][0]["curve"][0] == [1.0, told["seeds"][0]["full"]["metric"]]

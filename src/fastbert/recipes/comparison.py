"""What a comparison found, from the records in its folder alone: no model is run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from fastbert.calibration.frontier import RETAINED, TARGETS, Frontier, Point, Yardstick, frontier
from fastbert.calibration.paired import Difference, paired_difference
from fastbert.errors import TrainingError
from fastbert.recipes.contenders import PLAIN, TEACHER
from fastbert.recipes.records import Record, read_record


@dataclass(frozen=True)
class Judged:
    """A contender with a measure of doubt and a seed.

    Args:
        contender: Its name.
        measure: The name of the measure; None where no student was trained.
        seed: The seed.
        frontier: What it keeps at which speed-up.
    """

    contender: str
    measure: str | None
    seed: int
    frontier: Frontier

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them, without those of each row."""
        found = self.frontier
        targets = [None if point is None else asdict(point) for point in found.targets]
        return {
            "contender": self.contender,
            "measure": self.measure,
            "seed": self.seed,
            "full": asdict(found.full),
            "full_change": found.full_change,
            "default": asdict(found.default) | {"drop": found.drop},
            "targets": _by(TARGETS, targets),
            "exact": _by(TARGETS, found.exact),
            "retained": _by(RETAINED, found.retained),
            "area": found.area,
            "curve": [[point.speedup, point.metric] for point in found.curve],
        }


@dataclass(frozen=True)
class Summary:
    """A contender with a measure of doubt: means over the seeds; None where a seed has no figure.

    Args:
        contender: Its name.
        measure: The name of the measure; None where no student was trained.
        full: The metric of all layers.
        full_change: The same less that of the first stage's teacher.
        full_speedup: Times fewer FLOPs of all layers than the teacher's.
        default_speedup: Times fewer FLOPs at the default goal.
        default_drop: How much worse than `full` that is.
        exact: The metric at exactly each of `TARGETS`.
        retention: The same as a share of the yardstick's.
        reached: For each of `TARGETS` the speed-up on test of what dev chose, and its metric.
        retained: For each of `RETAINED` the largest speed-up that keeps so much.
        area: The mean retention over speed-ups.
        versus: At each of `TARGETS` the difference to the reference; None where there is none.
    """

    contender: str
    measure: str | None
    full: float
    full_change: float
    full_speedup: float
    default_speedup: float
    default_drop: float
    exact: tuple[float | None, ...]
    retention: tuple[float | None, ...]
    reached: tuple[tuple[float, float] | None, ...]
    retained: tuple[float | None, ...]
    area: float | None
    versus: tuple[Difference | None, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the figures as JSON takes them."""
        versus = [
            None if each is None else asdict(each) | {"is_tie": each.is_tie} for each in self.versus
        ]
        named = {"exact": TARGETS, "retention": TARGETS, "reached": TARGETS, "retained": RETAINED}
        return {
            **asdict(self),
            **{name: _by(places, getattr(self, name)) for name, places in named.items()},
            "versus": _by(TARGETS, versus),
        }


@dataclass(frozen=True)
class Comparison:
    """What a comparison found.

    Args:
        settings: What was compared, and on what machine.
        metric: By which all is judged.
        reference: Whose answers the others' are set against.
        yardsticks: By seed.
        judged: Each contender with each measure and seed.
        summary: The same as means over the seeds, in the order of the contenders.
        times: What was measured by the clock, in the order of the summary; None for nothing.
    """

    settings: dict[str, Any]
    metric: str
    reference: str
    yardsticks: Mapping[int, Yardstick]
    judged: tuple[Judged, ...]
    summary: tuple[Summary, ...]
    times: dict[str, Any] | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON takes it."""
        return {
            "settings": self.settings,
            "metric": self.metric,
            "reference": self.reference,
            "yardsticks": {str(seed): asdict(one) for seed, one in self.yardsticks.items()},
            "summary": [one.as_dict() for one in self.summary],
            "seeds": [one.as_dict() for one in self.judged],
            **({"times": self.times} if self.times else {}),
        }


def judge_records(
    output: Path,
    names: Sequence[str],
    measures: Sequence[str],
    seeds: Sequence[int],
    settings: dict[str, Any],
    reference: str | None = None,
) -> Comparison:
    """Return what the records of a comparison say.

    Args:
        output: The comparison's folder.
        names: The contenders, all of them finished.
        measures: Names of measures of doubt.
        seeds: The seeds.
        settings: What was compared, to be told with it.
        reference: The contender to set the others against, with the first measure; by default the
            first one.

    Raises:
        TrainingError: A record is missing or damaged, or two of a seed had other teachers.
        CalibrationError: Dev has too few rows, or an answer is not finite.
        ValueError: A measure is unknown.
    """
    judged: list[Judged] = []
    yardsticks: dict[int, Yardstick] = {}
    metric = ""
    for seed in seeds:
        folder = folder_of(output, seed)
        teacher = read_record(folder, TEACHER)
        metric = teacher.recording.metric.column
        records = {name: read_record(folder, name) for name in names}
        _refuse_other_teachers(folder, teacher, records)
        plain = records[PLAIN].recording if PLAIN in records else None
        yardsticks[seed] = Yardstick.of(teacher.recording, plain)
        judged += _judged(records, measures, seed, yardsticks[seed])
    against = _group(judged, reference or names[0], measures[0])
    summary = [
        _summary(
            _group(judged, name, measure), against, [yardsticks[seed].metric for seed in seeds]
        )
        for name, measure in dict.fromkeys((one.contender, one.measure) for one in judged)
    ]
    return Comparison(
        settings, metric, reference or names[0], yardsticks, tuple(judged), tuple(summary)
    )


def folder_of(output: Path, seed: int) -> Path:
    """Return where the records of a seed lie."""
    return output / f"seed{seed}"


def _refuse_other_teachers(folder: Path, teacher: Record, records: Mapping[str, Record]) -> None:
    for name, record in records.items():
        if record.facts["teacher"] != teacher.facts["teacher"]:
            raise TrainingError(
                f"{folder}: {name} went on from another teacher than lies there; delete "
                f"{folder / name}.json to train it again"
            )


def _judged(
    records: Mapping[str, Record], measures: Sequence[str], seed: int, yardstick: Yardstick
) -> Iterator[Judged]:
    for name, record in records.items():
        exits = record.recording.dev.recorded.num_exits
        for measure in measures if exits > 1 else measures[:1]:
            found = frontier(record.recording, measure, yardstick)
            yield Judged(name, measure if exits > 1 else None, seed, found)


def _group(judged: Sequence[Judged], name: str, measure: str | None) -> list[Judged]:
    """Return a contender with a measure, or without where it has none, for each seed."""
    return [one for one in judged if one.contender == name and one.measure in (measure, None)]


def _summary(group: list[Judged], against: list[Judged], worth: list[float]) -> Summary:
    """Return the means over the seeds.

    Args:
        group: A contender with a measure, for each seed.
        against: The reference, for each seed.
        worth: The metric of the yardstick, for each seed.
    """
    found = [one.frontier for one in group]
    exact = list(zip(*(one.exact for one in found), strict=True))  # by target, then by seed
    kept = [
        [
            None if value is None else value / whole
            for value, whole in zip(at_target, worth, strict=True)
        ]
        for at_target in exact
    ]
    return Summary(
        contender=group[0].contender,
        measure=group[0].measure,
        full=fmean(one.full.metric for one in found),
        full_change=fmean(one.full_change for one in found),
        full_speedup=fmean(one.full.speedup for one in found),
        default_speedup=fmean(one.default.speedup for one in found),
        default_drop=fmean(one.drop for one in found),
        exact=tuple(map(_mean, exact)),
        retention=tuple(map(_mean, kept)),
        reached=tuple(map(_reached, zip(*(one.targets for one in found), strict=True))),
        retained=tuple(map(_mean, zip(*(one.retained for one in found), strict=True))),
        area=_mean([one.area for one in found]),
        versus=tuple(_versus(found, [one.frontier for one in against])),
    )


def _reached(points: Sequence[Point | None]) -> tuple[float, float] | None:
    there = [point for point in points if point is not None]
    if len(there) < len(points):
        return None
    return fmean(point.speedup for point in there), fmean(point.metric for point in there)


def _versus(found: list[Frontier], against: list[Frontier]) -> Iterator[Difference | None]:
    """Yield the difference at each target, where every seed of both has rows there."""
    for target in range(len(TARGETS)):
        ours = [one.losses[target] for one in found]
        others = [one.losses[target] for one in against]
        pair = [[row for row in rows if row is not None] for rows in (ours, others)]
        if found[0] is against[0] or min(map(len, pair)) < len(found):
            yield None
        else:
            yield paired_difference(np.stack(pair[0]), np.stack(pair[1]))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(values) else None


def _by(places: Sequence[float], values: Sequence[Any]) -> dict[str, Any]:
    """Return values by their place, as the keys of JSON are written."""
    return {f"{place:g}": value for place, value in zip(places, values, strict=True)}

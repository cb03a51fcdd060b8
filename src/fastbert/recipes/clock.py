"""The clock of a comparison: what its models take at the settings that dev chose, in turns.

All contenders of a seed are in memory and take turns, so that a machine that is slower for a while
is so for all. A file beside the records, one for each runtime, holds what was measured; as only
times of the same rounds are compared, one more contender has all of them measured again.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from jaxtyping import Float

from fastbert.bench.contenders import EXTRAS, NEEDED, Target, loaded_models
from fastbert.bench.machine import limited, machine, warn_if_busy
from fastbert.bench.results import Failure
from fastbert.calibration.choose import measure_to_calibrate
from fastbert.calibration.frontier import TARGETS, Point
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.errors import TrainingError
from fastbert.evaluation import sample_of
from fastbert.exits.criteria import EntropyCriterion, ExitCriterion, ThresholdCriterion
from fastbert.extras import needs_extra
from fastbert.files.whole_file import write_json
from fastbert.folder.names import EARLY_EXIT_FILE
from fastbert.folder.read import open_folder
from fastbert.recipes.comparison import Comparison, Judged, folder_of
from fastbert.recipes.contenders import PLAIN, Contender
from fastbert.recipes.records import is_recorded, read_facts, read_record
from fastbert.text import Text
from fastbert.timing import median_ratio, time_items, time_rounds

THREADS, BATCH, ROUNDS = 1, 32, 5
ALONE_TEXTS, BULK_TEXTS = 100, 320

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Entry:
    """A contender at a setting.

    Args:
        contender: Its name.
        measure: The name of its measure of doubt; None where every layer is run.
        thresholds: One for each student; none where every layer is run.
    """

    contender: str
    measure: str | None = None
    thresholds: tuple[float, ...] = ()

    @classmethod
    def at(cls, judged: Judged, point: Point) -> "Entry":
        """Return a contender at a setting of its curve."""
        if not any(point.thresholds):
            return cls(judged.contender)
        return cls(judged.contender, judged.measure, point.thresholds)


@dataclass(frozen=True)
class Taken:
    """What a text takes, by the median round.

    Args:
        alone_ms: Milliseconds of a text that comes alone, as the mean over the texts.
        bulk_ms: The same in batches.
        alone_faster: Times faster than the full model, one text at a time.
        bulk_faster: The same in batches.
    """

    alone_ms: float
    bulk_ms: float
    alone_faster: float
    bulk_faster: float


def target_named(spelled: str) -> Target:
    """Return the runtime that contenders are timed in: `torch`, or such as `openvino:int8`.

    Raises:
        MissingExtraError: It is not installed.
        ValueError: There is none of the name, or no precision is named.
    """
    target = Target.read(spelled)
    if target.runtime != "torch" and target.precision is None:
        raise ValueError(
            f"time must name a precision of {target.runtime} too, such as {target.runtime}:fp32"
        )
    for package in NEEDED[target.runtime]:
        with needs_extra(EXTRAS[package], f"time in {target.runtime}"):
            import_module(package)
    return target


def full_model(contenders: Sequence[Contender]) -> str:
    """Return whose full depth all times are set against: `plain`, or the first whole contender.

    The teacher that all share has the same layers and so the same time.

    Raises:
        ValueError: No contender has all layers of the comparison's encoder.
    """
    whole = [one.name for one in contenders if one.layers is None and one.model is None]
    if not whole:
        raise ValueError(
            "time sets all against the full model: name a contender that has all layers of the "
            f"encoder too, such as {PLAIN}"
        )
    return PLAIN if PLAIN in whole else whole[0]


def refuse_unkept(output: Path, names: Sequence[str], seeds: Sequence[int]) -> None:
    """Refuse to time contenders that were finished without a model folder.

    Raises:
        TrainingError: There is one.
    """
    for folder in (folder_of(output, seed) for seed in seeds):
        for name in names:
            is_left = not is_recorded(folder, name) or (folder / f"{name}.training").exists()
            if not is_left and not (folder / name / EARLY_EXIT_FILE).exists():
                raise TrainingError(
                    f"{folder}: {name} is finished and its model was not kept, so it cannot be "
                    f"timed; delete {name}.json to train it again"
                )


def times_of(
    output: Path, found: Comparison, examples: Sequence[Example], full: str, target: Target
) -> dict[str, Any]:
    """Measure what is not measured yet, and return all times as JSON takes them.

    Args:
        output: The comparison's folder, with the model of each contender.
        found: What was judged: the settings that dev chose.
        examples: Test, of which some texts are timed.
        full: The contender whose full depth all are set against.
        target: The runtime; a contender that it refuses has no times.

    Raises:
        FolderError: A model folder is damaged.
        TrainingError: The runtime refuses `full`.
    """
    alone, bulk = (sample_of(examples, most) for most in (ALONE_TEXTS, BULK_TEXTS))
    seeds = {}
    for seed in found.yardsticks:
        judged = [one for one in found.judged if one.seed == seed]
        seeds[seed] = _seed(folder_of(output, seed), judged, alone, bulk, full, target)
    first = next(iter(seeds.values()))
    rows = zip(*(one["contenders"] for one in seeds.values()), strict=True)
    return {
        "full": full,
        **{key: value for key, value in first["asked"].items() if key not in ("full", "answers")},
        "summary": [_means(row) for row in rows],
        "seeds": {
            str(seed): {key: one[key] for key in ("machine", "contenders")}
            for seed, one in seeds.items()
        },
    }


def _means(row: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means over the seeds; None where a seed has no such setting."""
    settings: dict[str, Any] = {}
    for name in row[0]["settings"]:
        there = [one["settings"][name] for one in row if one["settings"][name] is not None]
        settings[name] = (
            {key: fmean(each[key] for each in there) for key in there[0] if key != "thresholds"}
            if len(there) == len(row)
            else None
        )
    return {"contender": row[0]["contender"], "measure": row[0]["measure"], "settings": settings}


def _seed(
    folder: Path,
    judged: Sequence[Judged],
    alone: Sequence[Text],
    bulk: Sequence[Text],
    full: str,
    target: Target,
) -> dict[str, Any]:
    """Return the times of a seed: what lies there if it has all of them, or else new ones."""
    points = [(one, _settings(one)) for one in judged]
    entries = dict.fromkeys(
        Entry.at(one, point) for one, of_it in points for point in of_it.values() if point
    )
    asked = {
        "full": full,
        "runtime": str(target),
        "threads": THREADS,
        "batch_size": BATCH,
        "rounds": ROUNDS,
        "rows": {"alone": len(alone), "bulk": len(bulk)},
        "answers": {one.contender: read_facts(folder, one.contender)["answers"] for one in judged},
    }
    path = folder / f"times.{str(target).replace(':', '-')}.json"
    told, taken = _read(path, asked, entries) or _measured(
        path, asked, [*dict.fromkeys([Entry(full), *entries])], alone, bulk, target
    )
    rows = [
        {
            "contender": one.contender,
            "measure": one.measure,
            "settings": {
                name: _timed(point, taken[Entry.at(one, point)]) if point else None
                for name, point in of_it.items()
            },
        }
        for one, of_it in points
    ]
    return {"asked": asked, "machine": told, "contenders": rows}


def _timed(point: Point, taken: Taken | None) -> dict[str, Any] | None:
    return asdict(point) | asdict(taken) if taken else None


def _settings(judged: Judged) -> dict[str, Point | None]:
    """Return what a contender is timed at, by the names that tables know."""
    found = judged.frontier
    targets = {f"{target:g}": point for target, point in zip(TARGETS, found.targets, strict=True)}
    return {"full": found.full, "default": found.default, **targets}


Known = tuple[dict[str, Any], dict[Entry, Taken | None]]
"""The machine, and what was measured on it; None for what the runtime refuses."""


def _read(path: Path, asked: Mapping[str, Any], entries: Mapping[Entry, None]) -> Known | None:
    """Return the times that lie there, if they are of the same models and have all entries."""
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    taken = {
        Entry(one["contender"], one["measure"], tuple(one["thresholds"])): one["taken"]
        and Taken(**one["taken"])
        for one in written["entries"]
    }
    before = written["asked"]
    answers = before["answers"].items() >= asked["answers"].items()
    is_same = {**before, "answers": None} == {**asked, "answers": None} and answers
    return (written["machine"], taken) if is_same and taken.keys() >= entries.keys() else None


def _measured(
    path: Path,
    asked: Mapping[str, Any],
    entries: Sequence[Entry],
    alone: Sequence[Text],
    bulk: Sequence[Text],
    target: Target,
) -> Known:
    """Measure all, and write it beside the records."""
    warn_if_busy()
    told = machine()  # the load is that of others, before we add ours
    folder = path.parent
    names = dict.fromkeys(entry.contender for entry in entries)
    with limited(THREADS), ExitStack() as stack:
        exported, refused = _exported(folder, names, target, bulk, stack)
        if entries[0].contender in refused:
            told_why = refused[entries[0].contender]
            raise TrainingError(f"{entries[0].contender} cannot be timed: {told_why}")
        ready = [entry for entry in entries if entry.contender in exported]
        logger.info("%s: %d settings take turns by the clock", folder, len(ready))
        answers = [  # each of its own: a runtime keeps few ways to ask exits at hand
            partial(
                _answer, target.open(exported[entry.contender], THREADS), _criterion(folder, entry)
            )
            for entry in ready
        ]
        taken = dict(zip(ready, _in_turns(answers, alone, bulk), strict=True))
    told_of = {entry: asdict(taken[entry]) if entry in taken else None for entry in entries}
    written = {
        "asked": asked,
        "machine": told,
        "entries": [asdict(entry) | {"taken": of_it} for entry, of_it in told_of.items()],
        "refused": refused,
    }
    write_json(path, written)
    return told, {entry: taken.get(entry) for entry in entries}


def _exported(
    folder: Path, names: Iterable[str], target: Target, texts: Sequence[Text], stack: ExitStack
) -> tuple[dict[str, Path], dict[str, str]]:
    """Return where the models lie as the runtime takes them, and why it refuses the others."""
    exported, refused = {}, {}
    for name in names:
        failures: list[Failure] = []
        models = loaded_models(open_folder(folder / name), [target], THREADS, failures, texts)
        for model in stack.enter_context(models):
            exported[name] = model.classifier.folder.path
        for failure in failures:
            logger.warning("%s is not timed", name)
            refused[name] = failure.reason
    return exported, refused


def _in_turns(
    answers: Sequence["partial[object]"], alone: Sequence[Text], bulk: Sequence[Text]
) -> Iterator[Taken]:
    """Yield what each entry takes; the first one is the full model."""
    answer = {str(number): each for number, each in enumerate(answers)}
    in_bulk = {name: partial(each, bulk, BATCH) for name, each in answer.items()}
    one_by_one = {name: partial(_answer_one, each) for name, each in answer.items()}
    for name in answer:  # to get warm
        in_bulk[name]()
        one_by_one[name](alone[0])
    bulk_rounds = time_rounds(in_bulk, ROUNDS)
    singles = time_items(one_by_one, alone, ROUNDS)
    alone_rounds = {name: seconds.sum(axis=1) for name, seconds in singles.items()}
    for name in answer:
        yield Taken(
            _text_ms(alone_rounds[name], len(alone)),
            _text_ms(bulk_rounds[name], len(bulk)),
            median_ratio(alone_rounds["0"], alone_rounds[name]),
            median_ratio(bulk_rounds["0"], bulk_rounds[name]),
        )


def _criterion(folder: Path, entry: Entry) -> ExitCriterion:
    """Return how rows leave; a measure that is fitted is so by the recorded answers of dev."""
    if entry.measure is None:
        return EntropyCriterion(0.0)
    recording = read_record(folder, entry.contender).recording
    measure, _ = measure_to_calibrate(entry.measure, recording.task)(recording.dev.recorded)
    return ThresholdCriterion(measure, entry.thresholds)


def _answer(
    classifier: FastBertClassifier, criterion: ExitCriterion, texts: Sequence[Text], batch_size: int
) -> object:
    return classifier.classify(texts, criterion, batch_size)


def _answer_one(answer: "partial[object]", text: Text) -> object:
    return answer([text], 1)


def _text_ms(rounds: Float[np.ndarray, " rounds"], rows: int) -> float:
    return 1_000 * float(np.median(rounds)) / rows

"""Schemes and measures of doubt on one data set, from one first stage: trained, recorded, judged.

A comparison's folder holds a record of each contender and seed; what is recorded is not trained
again, so a comparison that was stopped goes on, and one that is finished takes further contenders,
seeds and measures. Test is read when all is trained, and chooses nothing.
"""

import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastbert.bench.machine import machine
from fastbert.calibration.choose import measure_to_calibrate
from fastbert.calibration.solve import LEAST_ROWS
from fastbert.data.example import Columns
from fastbert.errors import DataError, FolderError, TrainingError
from fastbert.exits.measures import MEASURES, measure_to_json
from fastbert.files.whole_file import whole_file, write_json
from fastbert.nn.checkpoint import hashes_of
from fastbert.nn.teachers import read_config
from fastbert.recipes.arena import Arena, as_json
from fastbert.recipes.clock import full_model, refuse_unkept, target_named, times_of
from fastbert.recipes.comparison import Comparison, judge_records
from fastbert.recipes.contenders import Contender, contender_named, shared_stage
from fastbert.recipes.contents import refuse_files_inside
from fastbert.recipes.train import LabelledFiles
from fastbert.report.comparison_table import markdown
from fastbert.tasks.task import Task
from fastbert.training.scheme import SchemeSettings, told
from fastbert.training.stage import refuse_several_devices

PLAN = "plan.json"
COMPARISON, TABLE, FIGURE = "comparison.json", "comparison.md", "comparison.png"
MARK = "a comparison of fastbert"
CONTENDERS = ("paper", "joint", "exit-aware")

logger = logging.getLogger(__name__)


def compare(
    train: str | Path,
    *,
    dev: str | Path,
    test: str | Path,
    model: str | Path,
    output: str | Path,
    contenders: Sequence[Contender | str] = CONTENDERS,
    measures: Sequence[str] = (),
    seeds: Sequence[int] = (42,),
    settings: SchemeSettings | None = None,
    reference: str | None = None,
    unlabeled: str | Path | None = None,
    columns: Columns | None = None,
    max_length: int = 128,
    keep_models: bool = False,
    time: str | None = None,
    resume: bool = False,
) -> Comparison:
    """Train contenders from one first stage, and tell what each keeps at which speed-up.

    Args:
        train: File of labelled texts.
        dev: File of labelled texts that choose the best epochs and all thresholds.
        test: File of labelled texts that all are measured on; they choose nothing.
        model: The pretrained encoder: a local folder or a Hub name.
        output: The folder to write records, table and figure to.
        contenders: What is compared, or names: of schemes, `plain` or `cut-K`; see `Contender`.
        measures: Names of measures of doubt, each tried with every contender; by default the
            task's own.
        seeds: With each, all contenders are trained once.
        settings: The numbers of the schemes that go by name. Stage 1 is of these; a contender that
            begins with the same goes on from the teacher that all share.
        reference: The contender that the others are set against; by default the first.
        unlabeled: File of further texts for the students to learn from.
        columns: What the columns of the files are called.
        max_length: Longest sequence in tokens; longer texts are cut.
        keep_models: Write the model folder of each contender too.
        time: Measure how long the contenders take, after all training, in this runtime: `torch`,
            or another with a precision, such as `openvino:int8`; their models are kept.
        resume: Go on with a comparison that was stopped, or add to it.

    Raises:
        DataError: A file cannot be used.
        BackboneError: An encoder cannot be used.
        FolderError: Something else lies at `output`.
        MissingExtraError: The runtime is not installed.
        TrainingError: There is a comparison already, one of other settings, or a loss is not a
            number; or a contender shall be timed whose model was not kept.
        ValueError: A scheme, measure or runtime is unknown, two contenders have one name, or there
            is no full model to set times against.
    """
    settings, output = settings or SchemeSettings(), Path(output).expanduser()
    asked = [contender_named(one, settings) if isinstance(one, str) else one for one in contenders]
    by_seed = {seed: [one.settled(settings, seed) for one in asked] for seed in seeds}
    names = [one.name for one in asked]
    _refuse_bad(names, measures, by_seed, reference)
    target, full = (target_named(time), full_model(asked)) if time else (None, None)
    refuse_several_devices()
    refuse_files_inside(output, train, dev, test, unlabeled)
    places: dict[str, str | None] = {
        "train": str(train),
        "dev": str(dev),
        "test": str(test),
        "unlabeled": str(unlabeled) if unlabeled else None,
    }
    before = _read_plan(output, resume=resume)
    files = LabelledFiles.load(train, dev, test, unlabeled, columns or Columns())
    measures = _fitting(measures, files.task)
    if len(files.dev) < LEAST_ROWS:
        raise DataError(f"{dev}: at least {LEAST_ROWS} texts choose thresholds")
    arena = Arena(
        output, str(model), files, places, max_length, settings, keep_models or target is not None
    )
    plan = _plan(arena)
    _begin(output, before, plan)
    for seed, ready in by_seed.items():
        arena.refuse_changed(ready, seed)
    if target:
        refuse_unkept(output, names, seeds)
    for seed, ready in by_seed.items():
        arena.train(ready, seed)
    told_with_it = plan["settings"] | {
        "seeds": list(seeds),
        "contenders": [as_json(one.told()) for one in by_seed[seeds[0]]],
        "machine": {key: value for key, value in machine().items() if key != "load"},
    }
    found = judge_records(output, names, measures, seeds, told_with_it, reference)
    if target and full:
        found = replace(found, times=times_of(output, found, files.test or [], full, target))
    write_comparison(output, found)
    return found


def write_comparison(output: Path, found: Comparison) -> None:
    """Write what a comparison found: all figures, the table, and the figure if it can be drawn."""
    told = found.as_dict()
    with whole_file(output / TABLE) as file:
        file.write(markdown(told).encode())
    try:
        from fastbert.report.compared import comparison_png
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "matplotlib":
            raise
        logger.warning("%s is left out: it takes pip install 'fastbert-kit[report]'", FIGURE)
    else:
        with whole_file(output / FIGURE) as file:
            file.write(comparison_png(told))
    write_json(output / COMPARISON, told)


def _refuse_bad(
    names: Sequence[str],
    measures: Sequence[str],
    seeds: Sequence[int] | dict[int, Any],
    reference: str | None,
) -> None:
    """Refuse what could not be compared.

    Raises:
        ValueError: It could not.
    """
    for what, values in (("contenders", names), ("seeds", seeds)):
        if not values:
            raise ValueError(f"{what} must be at least one, got none")
    for what, values in (("contenders", names), ("measures", measures), ("seeds", seeds)):
        if len(set(values)) < len(values):
            raise ValueError(f"{what} must have different names, got {', '.join(map(str, values))}")
    if unknown := set(measures) - MEASURES.keys():
        raise ValueError(f"measure must be one of {', '.join(MEASURES)}, got {min(unknown)!r}")
    if reference is not None and reference not in names:
        raise ValueError(f"reference must be one of {', '.join(names)}, got {reference!r}")


def _fitting(measures: Sequence[str], task: Task) -> Sequence[str]:
    """Return the measures that were asked for, or the task's own.

    Raises:
        ValueError: One makes no sense of what the task answers.
    """
    names = measures or [measure_to_json(task.default_measure)["name"]]
    for name in names:
        measure_to_calibrate(name, task)
    return names


def _plan(arena: Arena) -> dict[str, Any]:
    """Return what all contenders have in common, as it is written down."""
    read_config(arena.model)  # so that the files of one from the Hub are there
    contents = {name: content.sha256 for name, content in arena.files.contents.items()}
    rows = {name: content.rows for name, content in arena.files.contents.items()}
    teacher = as_json(told(shared_stage(arena.settings, 0)))
    del teacher["settings"]["seed"]
    return {
        "what": MARK,
        "settings": {
            **{name: place and Path(place).name for name, place in arena.places.items()},
            "rows": rows,
            "model": arena.model,
            "max_length": arena.max_length,
            "teacher": teacher,
        },
        "contents": contents,
        "checkpoint": hashes_of(arena.model),
    }


def _read_plan(output: Path, *, resume: bool) -> dict[str, Any] | None:
    """Return what a comparison that lies there wrote down; None if there is none.

    Raises:
        FolderError: Something else lies there.
        TrainingError: There is one, and it shall not be gone on with.
    """
    try:
        plan: dict[str, Any] = json.loads((output / PLAN).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        if output.exists() and (not output.is_dir() or os.listdir(output)):
            raise FolderError(
                f"{output}: holds something else than a comparison; name another output"
            ) from None
        return None
    except ValueError:
        plan = {}
    if plan.get("what") != MARK:
        raise FolderError(f"{output}: its {PLAN} is not that of a comparison; name another output")
    if not resume:
        raise TrainingError(
            f"{output}: holds a comparison; go on with --resume, or name another output"
        )
    return plan


def _begin(output: Path, before: dict[str, Any] | None, plan: dict[str, Any]) -> None:
    """Write the plan, or refuse to go on by another one.

    Raises:
        TrainingError: Texts, encoder or stage 1 are others than they were.
    """
    if before is None:
        output.mkdir(parents=True, exist_ok=True)
        write_json(output / PLAN, plan)
        return
    advice = "go on with the same, or name another output"
    for name in sorted(before["contents"].keys() | plan["contents"].keys()):
        if before["contents"].get(name) != plan["contents"].get(name):
            raise TrainingError(
                f"{output}: the texts of {name} are not those it began with; {advice}"
            )
    if before["checkpoint"] != plan["checkpoint"]:
        raise TrainingError(f"{output}: the model is not the one it began with; {advice}")
    for key in ("max_length", "teacher"):
        if before["settings"][key] != plan["settings"][key]:
            raise TrainingError(
                f"{output}: it began with {key} {before['settings'][key]}, not "
                f"{plan['settings'][key]}; {advice}"
            )

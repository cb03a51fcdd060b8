"""What is shown on a terminal: the measured table of a model, and what a model folder holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, get_args

from rich import box
from rich.table import Table
from rich.text import Text

from fastbert.calibration.goal import Goal
from fastbert.calibration.points import OperatingPoint
from fastbert.calibration.solve import Calibration
from fastbert.errors import CalibrationError
from fastbert.folder.calibration import record_facts
from fastbert.folder.config import DefaultPoint
from fastbert.folder.export import ExportManifest, has_export, read_manifest
from fastbert.folder.export_times import ExportTimes, read_times
from fastbert.folder.followed import Followed
from fastbert.folder.read import ModelFolder
from fastbert.head_shapes import head_from_dict, in_words
from fastbert.report.comparison_table import caption, cells, headings
from fastbert.running import Runtime
from fastbert.shape import config_value
from fastbert.tasks.known import task_from_json
from fastbert.tasks.metrics import headings as metric_headings
from fastbert.tasks.metrics import judged_by, spelled
from fastbert.tasks.task import Metric, Task


def speed_table(
    task: Task,
    rows: Sequence[Mapping[str, Any]],
    default: DefaultPoint | None,
    followed: Followed | None = None,
) -> Table:
    """Return evaluations as a table, with a star at the default.

    Args:
        task: What was answered.
        rows: The fields of an `Evaluation` by name.
        default: How the model answers where nobody asks for a speed or a goal.
        followed: The model whose answers were taken to be right, where not labels were.
    """
    metrics = metric_headings(task, labelled=followed is None)
    notes = ["* the default"] if any(is_default(row, default) for row in rows) else []
    if followed is not None:
        notes += [f"{', '.join(metrics.values())}: {followed.quality}", followed.in_words()]
    caption = "\n".join(notes) or None
    table = Table(box=box.SIMPLE_HEAD, caption=caption, caption_justify="left")
    for heading in ("setting", *metrics.values(), "layers", "FLOPs", "paper", "rows/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{setting_of(row)}{'*' if is_default(row, default) else ' '}",
            *(f"{row[column]:.2%}" for column in metrics),
            f"{row['mean_exit_layer']:.2f}/{row['layers']}",
            f"{row['speedup_flops']:.2f}x",
            f"{row['speedup_paper']:.2f}x",
            f"{row['rows_per_second']:,.0f}",
        )
    return table


def comparison_table(found: Mapping[str, Any]) -> Table:
    """Return a comparison as a table.

    Args:
        found: What `Comparison.as_dict` gave.
    """
    table = Table(box=box.SIMPLE_HEAD, caption=caption(found), caption_justify="left")
    for number, heading in enumerate(headings(found)):
        table.add_column(heading, justify="left" if number < 2 else "right", no_wrap=True)
    for row in cells(found):
        table.add_row(*row)
    return table


def setting_of(row: Mapping[str, Any]) -> str:
    """Return a speed, or the goal that stands in its place."""
    if row["speed"] is not None:
        return f"speed {row['speed']:g}"
    return options_of(row["goal"]) if row.get("goal") else "own thresholds"


def is_default(row: Mapping[str, Any], default: DefaultPoint | None) -> bool:
    """Return whether a row shows how the model answers by default."""
    if default is None or default.goal is None:  # version 0.1 stored a speed
        return bool(row["speed"] == (0.0 if default is None else default.thresholds[0]))
    return row["speed"] is None and tuple(row["thresholds"]) == default.thresholds


SHOWN_GOALS = (
    Goal(max_drop=0.0),
    Goal(max_drop=0.005),
    Goal(max_drop=0.01),
    Goal(max_drop=0.01, confidence=0.95),
    Goal(max_drop=0.02, confidence=0.95),
    Goal(saving=0.5),
    Goal(min_speedup=3.0),
)


def goal_table(calibration: Calibration, default: Goal | None = None) -> Table:
    """Return what some goals lead to on the calibration rows; those that fail, in the caption.

    Args:
        calibration: What all exits answered.
        default: The folder's default goal, which gets a star; it is shown in any case.
    """
    notes = [
        f"on the {calibration.recorded.num_rows:,} rows of the calibration; with a confidence "
        "also beyond them"
    ]
    table = Table(box=box.SIMPLE_HEAD, caption_justify="left")
    is_agreement = calibration.truth is None or calibration.truth_from is not None
    metric = judged_by(calibration.task, labelled=not is_agreement)
    quality = "agreement" if is_agreement else spelled(metric.column)
    if calibration.truth_from is not None:
        notes.append(f"agreement with {calibration.truth_from}")
    table.add_column("goal", no_wrap=True)
    for heading in (quality, "layers", "FLOPs", *(["ms"] if calibration.times else [])):
        table.add_column(heading, justify="right", no_wrap=True)
    for goal in dict.fromkeys((*SHOWN_GOALS, *([default] if default else []))):
        star = "*" if goal == default else ""
        try:
            point = calibration.solve(goal)
        except CalibrationError as error:
            notes.append(str(error))
        else:
            table.add_row(options_of(goal.as_dict()) + star, *_figures(metric, point))
    if default is not None:
        notes.append("* the default")
    table.caption = "\n".join(notes)
    return table


def options_of(goal: Mapping[str, float | str]) -> str:
    """Return a goal as it is typed."""
    return " ".join(
        f"--{name.replace('_', '-')} {_typed(name, value)}" for name, value in goal.items()
    )


def _typed(name: str, value: float | str) -> str:
    if isinstance(value, str):
        return value
    return f"{100 * value:g}%" if name in ("max_drop", "confidence") else f"{value:g}"


def _figures(metric: Metric, point: OperatingPoint) -> list[str]:
    quality = point.metrics.get(metric.column, point.agreement)
    figures = [
        f"{quality:.2%}",
        f"{point.mean_exit_layer:.2f}/{len(point.exit_layers)}",
        f"{point.speedup_flops:.2f}x",
    ]
    return figures + ([] if point.latency_ms is None else [f"{point.latency_ms:.2f}"])


def parity_table(manifest: ExportManifest) -> Table:
    """Return what was exported, and how its answers differ from those of torch."""
    return _two_columns("Export", _export_facts(asdict(manifest)))


def export_times_table(times: Mapping[str, ExportTimes], kept: str) -> Table:
    """Return what a text takes in each export that was tried, the fastest first.

    Args:
        times: By runtime and precision.
        kept: The name of the one that is kept.
    """
    table = Table(box=box.SIMPLE_HEAD, caption="* kept", caption_justify="left")
    table.add_column("export, all layers")
    for heading in ("ms alone", "ms in batches"):
        table.add_column(heading, justify="right")
    for name, taken in sorted(times.items(), key=lambda pair: pair[1].mean_ms):
        star = "*" if name == kept else ""
        table.add_row(f"{name}{star}", f"{taken.alone_ms:.2f}", f"{taken.bulk_ms:.2f}")
    return table


def _export_facts(
    manifest: Mapping[str, Any], taken: Mapping[str, float] | None = None
) -> dict[str, str]:
    parity = manifest["parity"]
    speed = parity["speed"]
    named = options_of(speed) if isinstance(speed, dict) else f"speed {speed:g}"
    rows = parity["rows"]
    elsewhere = parity["exit_layers_differ"]
    return {
        "runtime": f"{manifest['runtime']}, {manifest['precision']}",
        "compared with torch": f"{rows:,} rows of {parity['source']}",
        "other label, every layer": f"{parity['labels_differ']} of {rows:,}",
        f"other label, {named}": f"{parity['labels_differ_at_speed']} of {rows:,}",
        f"other exit layer, {named}": f"{elsewhere} of {rows:,}, {parity['near_threshold']} of "
        "them within rounding of a threshold",
        "largest difference": f"{parity['max_probability_difference']:.1e} in probability",
        **(
            {
                "on this processor": f"{taken['alone_ms']:.2f} ms a text alone, "
                f"{taken['bulk_ms']:.2f} ms in batches, through all layers"
            }
            if taken
            else {}
        ),
    }


def folder_facts(folder: ModelFolder) -> dict[str, Any]:
    """Return what a verified model folder holds: early_exit.json, the encoder and the files."""
    config = folder.config.as_dict()
    del config["hashes"]  # they have been checked
    return {
        "family": folder.model_config["model_type"],
        "width": config_value(folder.model_config, "hidden_size"),
        **config,
        "bytes": {
            path.name: path.stat().st_size
            for path in sorted(folder.path.iterdir())
            if path.is_file()
        },
        "exports": [
            asdict(read_manifest(folder, runtime))
            for runtime in get_args(Runtime)
            if has_export(folder, runtime)
        ],
        "export_times": {
            runtime: asdict(taken)
            for runtime, taken in read_times(folder, get_args(Runtime)).items()
        },
    }


def folder_tables(facts: Mapping[str, Any]) -> list[Table]:
    """Return the facts as tables, the measured speeds last."""
    head, students = facts["teacher_head"], map(head_from_dict, facts["students"])
    model = {
        "family": facts["family"],
        "layers": f"{facts['num_layers']}, width {facts['width']}",
        "task": facts["task"]["name"].replace("_", " "),
        "labels": f"{len(facts['labels'])}: {', '.join(facts['labels'])}",
        "longest text": f"{facts['max_length']} tokens",
        "default": _default(facts["default"]),
        "teacher's head": head if head == "pretrained" else head_from_dict(head).spelling,
        "students": in_words(list(students)),
    }
    files = {name: f"{size:,} bytes" for name, size in facts["bytes"].items()}
    tables = [
        _two_columns("Model", model),
        _two_columns("Training", dict(_flat(facts["training"]))),
        *(
            [_two_columns("Calibration", record_facts(facts["calibration"]))]
            if facts["calibration"]
            else []
        ),
        *(
            _two_columns(
                "Export", _export_facts(manifest, facts["export_times"].get(manifest["runtime"]))
            )
            for manifest in facts["exports"]
        ),
        _two_columns("Files", files),
        _two_columns("Written by", facts["versions"]),
    ]
    if facts["evaluation"]:
        default = facts["default"]
        point = default and DefaultPoint(**default)
        task = task_from_json(facts["task"], facts["labels"])
        followed = Followed.of(facts["training"])
        tables.append(speed_table(task, facts["evaluation"], point, followed))
    return tables


def _default(default: Mapping[str, Any] | None) -> str:
    if default is None:
        return "every layer"
    if default["goal"] is None:
        return f"speed {default['thresholds'][0]:g}"
    return options_of(default["goal"])


def system_tables(facts: Mapping[str, Any]) -> list[Table]:
    """Return what the package runs on as tables."""
    machine = {
        "system": facts["system"],
        "python": facts["python"],
        "processor": facts["processor"],
        "vector extensions": ", ".join(facts["extensions"]) or "unknown",
        "cores": facts["cores"],
    }
    runtimes = {
        name: ", ".join(precisions) or "installed, but cannot be imported"
        for name, precisions in facts["runtimes"].items()
    }
    return [
        _two_columns("System", machine),
        _two_columns("Packages", facts["versions"]),
        _two_columns("Runtimes", runtimes),
    ]


def _two_columns(heading: str, values: Mapping[str, Any]) -> Table:
    table = Table(heading, "", box=box.SIMPLE_HEAD)
    for name, value in values.items():
        table.add_row(Text(name), Text(str(value)))  # a label may look like markup
    return table


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if name in ("history", "stages", "fallback"):
            continue  # long; --json has it
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

"""What is shown on a terminal: the measured table of a model, and what a model folder holds."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from fastbert.cost import config_value
from fastbert.folder import ModelFolder


def speed_table(rows: Sequence[Mapping[str, Any]], recommended: float) -> Table:
    """Return evaluations as a table, with a star at the recommended speed.

    Args:
        rows: The fields of an `Evaluation` by name.
        recommended: The speed that was chosen on held-out texts after training.
    """
    table = Table(box=box.SIMPLE_HEAD, caption="* recommended speed", caption_justify="left")
    for heading in ("speed", "accuracy", "macro F1", "layers", "FLOPs", "paper", "s", "rows/s"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(
            f"{row['speed']:g}{'*' if row['speed'] == recommended else ' '}",
            f"{row['accuracy']:.2%}",
            f"{row['macro_f1']:.2%}",
            f"{row['mean_exit_layer']:.2f}/{row['layers']}",
            f"{row['speedup_flops']:.2f}x",
            f"{row['speedup_paper']:.2f}x",
            f"{row['seconds']:.2f}",
            f"{row['rows_per_second']:,.0f}",
        )
    return table


def folder_facts(folder: ModelFolder) -> dict[str, Any]:
    """Return what a verified model folder holds: early_exit.json, the encoder and the files."""
    config = asdict(folder.config)
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
    }


def folder_tables(facts: Mapping[str, Any]) -> list[Table]:
    """Return the facts as tables, the measured speeds last."""
    students = facts["students"]
    model = {
        "family": facts["family"],
        "layers": f"{facts['num_layers']}, width {facts['width']}",
        "labels": f"{len(facts['labels'])}: {', '.join(facts['labels'])}",
        "longest text": f"{facts['max_length']} tokens",
        "recommended speed": f"{facts['speed']:g}",
        "layout": facts["layout"],
        "students": f"width {students['width']}, {students['num_heads']} heads, "
        f"pooling {students['pooling']}",
    }
    files = {name: f"{size:,} bytes" for name, size in facts["bytes"].items()}
    tables = [
        _two_columns("Model", model),
        _two_columns("Training", dict(_flat(facts["training"]))),
        _two_columns("Files", files),
        _two_columns("Written by", facts["versions"]),
    ]
    if facts["evaluation"]:
        tables.append(speed_table(facts["evaluation"], facts["speed"]))
    return tables


def _two_columns(heading: str, values: Mapping[str, Any]) -> Table:
    table = Table(heading, "", box=box.SIMPLE_HEAD)
    for name, value in values.items():
        table.add_row(Text(name), Text(str(value)))  # a label may look like markup
    return table


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value

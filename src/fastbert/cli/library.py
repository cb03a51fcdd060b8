"""What the commands call, loaded when it is first asked for: help waits for none of it."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from huggingface_hub.utils.tqdm import enable_progress_bars
    from rich.console import Console
    from tqdm.auto import tqdm

    from fastbert.bench.fastest import export_fastest
    from fastbert.bench.run import QUICK, bench
    from fastbert.bench.tables import bench_tables
    from fastbert.bulk.files import predict_file, refuse_bad_place
    from fastbert.classifier import FastBertClassifier
    from fastbert.cli.tables import (
        comparison_table,
        export_times_table,
        folder_facts,
        folder_tables,
        goal_table,
        parity_table,
        speed_table,
        system_tables,
    )
    from fastbert.demo import run_demo
    from fastbert.evaluation import drift_of, evaluate, part_times
    from fastbert.export.export import export_model
    from fastbert.folder.followed import Followed
    from fastbert.folder.read import open_folder
    from fastbert.folder.write import refuse_what_others_share
    from fastbert.recipes.compare import compare
    from fastbert.recipes.contenders import contenders_named
    from fastbert.recipes.distill import distill
    from fastbert.recipes.run import StudentSettings
    from fastbert.recipes.train import train
    from fastbert.report.collect import collect
    from fastbert.report.page import write_report
    from fastbert.runtime.fastest import time_exports
    from fastbert.system import system_facts
    from fastbert.tasks.metrics import meant, spelled
    from fastbert.training.scheme import SchemeSettings
    from fastbert.training.stage import StageSettings

HOMES = {
    "QUICK": "fastbert.bench.run",
    "Console": "rich.console",
    "FastBertClassifier": "fastbert.classifier",
    "Followed": "fastbert.folder.followed",
    "SchemeSettings": "fastbert.training.scheme",
    "StageSettings": "fastbert.training.stage",
    "StudentSettings": "fastbert.recipes.run",
    "bench": "fastbert.bench.run",
    "bench_tables": "fastbert.bench.tables",
    "collect": "fastbert.report.collect",
    "compare": "fastbert.recipes.compare",
    "comparison_table": "fastbert.cli.tables",
    "contenders_named": "fastbert.recipes.contenders",
    "distill": "fastbert.recipes.distill",
    "drift_of": "fastbert.evaluation",
    "enable_progress_bars": "huggingface_hub.utils.tqdm",
    "evaluate": "fastbert.evaluation",
    "export_fastest": "fastbert.bench.fastest",
    "export_model": "fastbert.export.export",
    "export_times_table": "fastbert.cli.tables",
    "folder_facts": "fastbert.cli.tables",
    "folder_tables": "fastbert.cli.tables",
    "goal_table": "fastbert.cli.tables",
    "meant": "fastbert.tasks.metrics",
    "open_folder": "fastbert.folder.read",
    "parity_table": "fastbert.cli.tables",
    "part_times": "fastbert.evaluation",
    "predict_file": "fastbert.bulk.files",
    "refuse_bad_place": "fastbert.bulk.files",
    "refuse_what_others_share": "fastbert.folder.write",
    "run_demo": "fastbert.demo",
    "speed_table": "fastbert.cli.tables",
    "spelled": "fastbert.tasks.metrics",
    "system_facts": "fastbert.system",
    "system_tables": "fastbert.cli.tables",
    "time_exports": "fastbert.runtime.fastest",
    "tqdm": "tqdm.auto",
    "train": "fastbert.recipes.train",
    "write_report": "fastbert.report.page",
}

__all__ = [
    "HOMES",
    "QUICK",
    "Console",
    "FastBertClassifier",
    "Followed",
    "SchemeSettings",
    "StageSettings",
    "StudentSettings",
    "bench",
    "bench_tables",
    "collect",
    "compare",
    "comparison_table",
    "contenders_named",
    "distill",
    "drift_of",
    "enable_progress_bars",
    "evaluate",
    "export_fastest",
    "export_model",
    "export_times_table",
    "folder_facts",
    "folder_tables",
    "goal_table",
    "meant",
    "open_folder",
    "parity_table",
    "part_times",
    "predict_file",
    "refuse_bad_place",
    "refuse_what_others_share",
    "run_demo",
    "speed_table",
    "spelled",
    "system_facts",
    "system_tables",
    "time_exports",
    "tqdm",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Load what a command calls."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(HOMES[name]), name)

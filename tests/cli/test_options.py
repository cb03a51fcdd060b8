"""The options that commands share, and groups of them."""

import inspect
from typing import Any, get_args

import pytest
import typer

from fastbert.cli import answering, learning
from fastbert.cli.columns import TextColumns
from fastbert.cli.options import (
    BulkRun,
    Run,
    SchemeName,
    share,
    with_groups,
)
from fastbert.data.example import Columns
from fastbert.recipes import train as train_recipe
from fastbert.recipes.run import StudentSettings
from fastbert.running import Running
from fastbert.training.scheme import DISTILLATION, EXITS, FINE_TUNING, SCHEMES


def test_the_defaults_in_help_are_those_of_the_library() -> None:
    def defaults(function: Any) -> dict[str, Any]:
        parameters = inspect.signature(function).parameters
        return {name: parameter.default for name, parameter in parameters.items()}

    # Read off the settings that the library uses when it is given none.
    library, students = defaults(train_recipe.train), StudentSettings()
    expected = {
        "text_column": Columns().text,
        "pair_column": Columns().pair,
        "max_length": library["max_length"],
        "heads": students.heads,
        "kl": students.direction,
        "cache_hidden_states": students.cache_hidden_states,
        "batch_size": FINE_TUNING.batch_size,
        "gradient_accumulation": FINE_TUNING.gradient_accumulation,
        "seed": FINE_TUNING.seed,
        "bf16": None,  # where the machine has it
        "report_to": FINE_TUNING.report_to,
        "max_drop": library["max_drop"],
        "resume": library["resume"],
    }
    # What depends on --into is None; test_growing.py compares what help says of it.
    steps = ("epochs", "learning_rate", "exit_epochs", "exit_learning_rate")
    distill: dict[str, Any] = dict.fromkeys((*steps, "into", "teacher_max_length"))
    train = {
        "epochs": FINE_TUNING.epochs,
        "learning_rate": FINE_TUNING.learning_rate,
        "distill_epochs": DISTILLATION.epochs,
        "distill_learning_rate": DISTILLATION.learning_rate,
        "exit_epochs": EXITS.epochs,
        "exit_learning_rate": EXITS.learning_rate,
        "teacher_head": library["teacher_head"],
        "label_smoothing": library["label_smoothing"],
        "label_column": Columns().label,
        "label_columns": None,  # which names none
        "label_separator": Columns().separator,
        "test": library["test"],
        "unlabeled": library["unlabeled"],
        "scheme": library["scheme"],
        "tolerance": library["tolerance"],
    }
    required = dict.fromkeys(("checkpoint", "texts", "dev", "model", "output"), inspect._empty)
    for command, own in ((learning.train, train), (learning.distill, distill)):
        shown = defaults(command)
        assert shown == {name: (expected | own | required)[name] for name in shown}
    assert defaults(answering.predict)["id_column"] == Columns().id


def test_every_scheme_of_the_library_has_its_name_on_the_command_line() -> None:
    assert list(get_args(get_args(SchemeName)[0])) == list(SCHEMES)


@pytest.mark.parametrize(
    ("text", "number"), [("0.5%", 0.005), ("0.005", 0.005), ("100%", 1.0), (0.25, 0.25)]
)
def test_a_share_is_a_number_or_a_percentage(text: str | float, number: float) -> None:
    assert share(text) == pytest.approx(number)


@pytest.mark.parametrize("text", ["little", "%", "1%%", ""])
def test_what_is_no_share_is_wrong_usage(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="is neither a share such as"):
        share(text)


def test_how_a_model_is_run_is_what_the_library_takes() -> None:
    run = BulkRun(batch_size=5, runtime="onnx", threads=2, workers=3)
    assert run.options() == {"runtime": "onnx", "threads": 2, "workers": 3}
    assert Running(**Run().options()) == Running()
    assert Running(**BulkRun().options()) == Running(workers=None)


def test_each_field_of_a_group_is_an_option_where_the_group_stands() -> None:
    called: dict[str, Any] = {}

    @with_groups
    def command(text: str, *, run: Run, columns: TextColumns, seed: int = 3) -> None:
        called.update(text=text, run=run, columns=columns, seed=seed)

    shown = inspect.signature(command).parameters
    assert list(shown) == [
        "text", "batch_size", "runtime", "threads", "text_column", "pair_column", "seed"
    ]  # fmt: skip
    assert shown["text"].default is inspect.Parameter.empty
    assert (shown["batch_size"].default, shown["seed"].default) == (32, 3)

    options = {name: shown[name].default for name in shown} | {"text": "t", "threads": 2}
    command(**options)
    assert called == {"text": "t", "run": Run(threads=2), "columns": TextColumns(), "seed": 3}

"""The program: its commands in the order of its help."""

from typing import Annotated

import typer

import fastbert as package
from fastbert.cli.answering import calibrate, evaluate, predict
from fastbert.cli.comparing import compare
from fastbert.cli.learning import demo, distill, train
from fastbert.cli.shipping import bench, export, inspect, report

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


def _print_version(wanted: bool) -> bool:
    if wanted:
        print(package.__version__)
        raise typer.Exit
    return wanted


@app.callback()
def fastbert(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", is_eager=True, callback=_print_version, help="Show the version and stop."
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
) -> None:
    """Text classifiers that stop reading layers as soon as they are sure.

    Files of texts are .csv, .tsv, .jsonl (each also packed, as .csv.gz) or .parquet.

    The exit code is 0 if all went well, 1 if something failed, 2 for wrong usage or bad input, and
    130 after Ctrl-C. Errors and warnings are single lines on standard error.
    """


for command in (
    train, distill, compare, evaluate, predict, calibrate, export, bench, report, inspect, demo
):  # fmt: skip
    app.command()(command)

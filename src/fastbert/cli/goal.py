"""The options of a goal, which stand in place of a speed: `Goal`, field by field."""

from dataclasses import dataclass, fields
from typing import Annotated, cast

import typer

from fastbert.calibration.goal import Goal, GoalOptions, Metric
from fastbert.cli.options import share

GOAL = "Goal, in place of a speed"


@dataclass(frozen=True)
class AskedGoal:
    """What was asked for on the command line; see `fastbert.calibration.goal.Goal`."""

    max_drop: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="SHARE",
            help="At most so much worse than the full model: 0.5% or 0.005.",
            rich_help_panel=GOAL,
        ),
    ] = None
    metric: Annotated[
        Metric | None,
        typer.Option(
            help="Of what --max-drop speaks: accuracy or, of several labels, micro-f1 or row-f1; "
            "f1, the mean over the labels; or agreement with the full model, which needs no "
            "labels.",
            show_default="accuracy or micro-f1, without labels agreement",
            rich_help_panel=GOAL,
        ),
    ] = None
    confidence: Annotated[
        float | None,
        typer.Option(
            parser=share,
            metavar="SHARE",
            help="With --max-drop: how sure it shall be for texts to come, such as 95%.",
            rich_help_panel=GOAL,
        ),
    ] = None
    min_speedup: Annotated[
        float | None,
        typer.Option(
            metavar="X",
            help="At least X times fewer FLOPs than the full model.",
            rich_help_panel=GOAL,
        ),
    ] = None
    max_mean_layers: Annotated[
        float | None,
        typer.Option(metavar="N", help="At most N layers a text on average.", rich_help_panel=GOAL),
    ] = None
    max_flops: Annotated[
        float | None,
        typer.Option(
            metavar="N",
            help="At most N FLOPs a text on average, such as 2e9.",
            rich_help_panel=GOAL,
        ),
    ] = None
    latency_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="At most so many milliseconds a text on average, one at a time, by the times of "
            "`fastbert calibrate --time`.",
            rich_help_panel=GOAL,
        ),
    ] = None
    saving: Annotated[
        float | None,
        typer.Option(
            metavar="S",
            help="From 0 (every layer) to 1 (the fastest there is): such a share of the layers "
            "that can be saved.",
            rich_help_panel=GOAL,
        ),
    ] = None

    def options(self, speed: object = None) -> GoalOptions:
        """Return the goal that was asked for, if any.

        Raises:
            ValueError: It is no goal, or there is a speed as well.
        """
        given = {item.name: getattr(self, item.name) for item in fields(self)}
        goal = cast(
            GoalOptions, {name: value for name, value in given.items() if value is not None}
        )
        if goal and speed is not None:
            raise ValueError("--speed and a goal exclude each other; give one of them")
        if goal:
            Goal(**goal)  # before the model is loaded
        return goal

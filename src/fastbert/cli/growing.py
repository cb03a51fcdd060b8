"""What `distill` takes for a model that grows on another encoder, and what goes only without."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fastbert.cli import library
from fastbert.cli.options import STUDENTS, Distilling, Steps

if TYPE_CHECKING:
    from fastbert.training.scheme import SchemeSettings
    from fastbert.training.stage import StageSettings

PANEL = "Another encoder"

Into = Annotated[
    str | None,
    typer.Option(
        metavar="ENCODER",
        help="Pretrained encoder that a new model grows on, a folder or a Hub name; CHECKPOINT "
        "teaches it. Families, widths and tokenizers may differ.",
        rich_help_panel=PANEL,
    ),
]
TeacherMaxLength = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        show_default="as --max-length",
        help="Longest text of the teacher, in its own tokens; with --into.",
        rich_help_panel=PANEL,
    ),
]
ExitEpochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        show_default="3",
        help="Passes in which all exits learn, after those of --epochs; with --into.",
        rich_help_panel=PANEL,
    ),
]
ExitLearningRate = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        show_default="0.00005",
        help="Peak learning rate of the encoder in these passes; with --into.",
        rich_help_panel=PANEL,
    ),
]
FirstEpochs = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        show_default="8, with --into 5",
        help="Passes over the texts: the students', with --into those of the last exit.",
        rich_help_panel=STUDENTS,
    ),
]
FirstLearningRate = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        show_default="0.003, with --into 0.00005",
        help="Peak learning rate of these passes.",
        rich_help_panel=STUDENTS,
    ),
]


@dataclass(frozen=True)
class Growing:
    """Another encoder, and how a model on it learns."""

    into: Into = None
    teacher_max_length: TeacherMaxLength = None
    exit_epochs: ExitEpochs = None
    exit_learning_rate: ExitLearningRate = None

    def refuse_the_other_way(self, distilling: Distilling) -> None:
        """Refuse options that are not read with `--into`, or not without.

        Raises:
            BadParameter: One was given.
        """
        if self.into is None:
            for name in ("teacher_max_length", "exit_epochs", "exit_learning_rate"):
                if getattr(self, name) is not None:
                    option = f"--{name.replace('_', '-')}"
                    raise typer.BadParameter(f"{option} goes with --into ENCODER")
            return
        if distilling.kl != Distilling.kl:
            raise typer.BadParameter("--kl goes without --into; there D(teacher || student) counts")

    def options(
        self,
        epochs: int | None,
        learning_rate: float | None,
        distilling: Distilling,
        steps: Steps,
    ) -> dict[str, Any]:
        """Return what `fastbert.distill` takes for it: nothing without an encoder."""
        if self.into is None:
            return {}
        return {
            "into": self.into,
            "teacher_max_length": self.teacher_max_length,
            "numbers": replace(
                self._numbers(epochs, learning_rate, steps),
                cache_hidden_states=distilling.cache_hidden_states,
            ),
        }

    def _numbers(
        self, epochs: int | None, learning_rate: float | None, steps: Steps
    ) -> "SchemeSettings":
        usual: SchemeSettings = library.SchemeSettings()

        def stage(
            default: "StageSettings", epochs: int | None = None, rate: float | None = None
        ) -> "StageSettings":
            return replace(
                default,
                epochs=default.epochs if epochs is None else epochs,
                learning_rate=default.learning_rate if rate is None else rate,
                batch_size=steps.batch_size,
                gradient_accumulation=steps.gradient_accumulation,
                seed=steps.seed,
                bf16=steps.bf16,
                report_to=steps.report_to,
            )

        assert usual.warm_up is not None
        return replace(
            usual,
            imitation=stage(usual.imitation, epochs, learning_rate),
            warm_up=stage(usual.warm_up),
            exits=stage(usual.exits, self.exit_epochs, self.exit_learning_rate),
        )

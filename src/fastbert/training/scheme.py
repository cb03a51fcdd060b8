"""The schemes: how the exits of a model are trained, each a few stages in their order.

The run's folder, resuming, progress and history walk the stages and know none by name. All numbers
stand in `SchemeSettings`, so that whoever has measured better ones changes them in one place.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from functools import partial
from types import MappingProxyType
from typing import Any

from fastbert.nn.objectives import Direction
from fastbert.training.losses import AllExits, Target, self_distillation, supervised
from fastbert.training.stage import Part, Stage, StageSettings
from fastbert.training.weights import Alternating, ByDepth, ExitAware, RowWeights, Uniform

FINE_TUNING = StageSettings(epochs=3, learning_rate=2e-5)
IMITATION = StageSettings(epochs=5, learning_rate=5e-5)
DISTILLATION = StageSettings(epochs=8, learning_rate=3e-3)  # the paper: 5 at 2e-4
WARM_UP = StageSettings(epochs=8, learning_rate=3e-3)
EXITS = StageSettings(epochs=3, learning_rate=5e-5, students_learning_rate=1e-3)
TARGET = Target(share=0.3, last_share=0.5, temperature=2.0, direction="teacher-student")
TOLERANCE = 0.01  # of the first metric, as a share
DEFAULT_SCHEME = "separate"
HINTON = "Hinton et al., Distilling the Knowledge in a Neural Network (2015)"


@dataclass(frozen=True)
class SchemeSettings:
    """The numbers of all schemes; each takes what it has a use for.

    Args:
        fine_tuning: Of the first stage, where encoder and teacher learn from labels.
        distillation: Of the paper's second stage, where the students learn from the teacher.
        warm_up: Of the students alone, before all parts learn, so that no random head moves the
            encoder; None leaves it out.
        exits: Of the stage in which all parts learn.
        polish: Of the students alone after that; None leaves it out.
        target: What the exits are compared with where all of them learn.
        label_smoothing: Share of the probability that `fine_tuning` spreads over all classes.
        direction: Which divergence `distillation` minimises.
        cache_hidden_states: Where the students alone learn run the backbone once, and keep what it
            says on disk; None in stages of several epochs, where it fits.
        tolerance: How much of the first metric the last exit may lose on dev, against the teacher
            that it was, where all parts learn.
        imitation: Of the first stage where another model teaches: encoder and last exit learn from
            its answers.

    Raises:
        ValueError: The tolerance is below 0.
    """

    fine_tuning: StageSettings = FINE_TUNING
    distillation: StageSettings = DISTILLATION
    warm_up: StageSettings | None = WARM_UP
    exits: StageSettings = EXITS
    polish: StageSettings | None = None
    target: Target = TARGET
    label_smoothing: float = 0.0
    direction: Direction = "student-teacher"
    cache_hidden_states: bool | None = None
    tolerance: float = TOLERANCE
    imitation: StageSettings = IMITATION

    def __post_init__(self) -> None:
        """Refuse a tolerance that asks for the impossible."""
        refuse_bad_tolerance(self.tolerance)


@dataclass(frozen=True)
class Scheme:
    """A way to train the exits of a model.

    Args:
        name: As `--scheme` and the history know it.
        source: Where it comes from.
        stages: In their order; names differ.
        tolerance: How much of the first metric the last exit may lose on dev to a stage that
            trains all parts; None where no stage does.
        fallback: What is done instead, from the same teacher, where it loses more.

    Raises:
        ValueError: Two stages have one name, or the tolerance is below 0.
    """

    name: str
    source: str
    stages: tuple[Stage, ...]
    tolerance: float | None = None
    fallback: "Scheme | None" = None

    def __post_init__(self) -> None:
        """Refuse what could not be told apart or kept."""
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ValueError(f"{self.name}: stages must have different names, got {names}")
        if self.tolerance is not None:
            refuse_bad_tolerance(self.tolerance)

    @property
    def needs_labels(self) -> bool:
        """Whether a stage cannot do without labels."""
        return any(stage.needs_labels for stage in self.stages)

    def without_labels(self) -> "Scheme":
        """Return what is left of it where no text has a label."""
        kept = tuple(stage for stage in self.stages if not stage.needs_labels)
        return replace(self, stages=kept, fallback=None)

    def told(self) -> dict[str, Any]:
        """Return it as JSON tells it: what a resumed run must have too."""
        return {
            "scheme": self.name,
            "tolerance": self.tolerance,
            "stages": {stage.name: told(stage) for stage in self.stages},
            "fallback": None if self.fallback is None else self.fallback.told(),
        }

    def map_settings(self, change: Callable[[Stage], StageSettings]) -> "Scheme":
        """Return the scheme with other settings of each stage, the fallback's too."""
        stages = tuple(replace(stage, settings=change(stage)) for stage in self.stages)
        fallback = None if self.fallback is None else self.fallback.map_settings(change)
        return replace(self, stages=stages, fallback=fallback)


def refuse_bad_tolerance(tolerance: float) -> None:
    """Refuse a tolerance below 0, and what is no number.

    Raises:
        ValueError: It is.
    """
    if not tolerance >= 0:
        raise ValueError(
            "tolerance must be at least 0, the share of the metric that the last exit may lose, "
            f"got {tolerance}"
        )


def paper(settings: SchemeSettings = SchemeSettings()) -> Scheme:
    """Return the paper's scheme: fine-tune backbone and teacher, then distil the students.

    In the second stage one pass of the frozen backbone feeds all students, and the teacher runs
    without dropout, so its soft labels are those it will give in use.

    Source: Sections 3.2.2, "Fine-tuning for backbone", and 3.2.3, "Self-distillation for branch",
    of Liu et al., FastBERT (ACL 2020).
    """
    students = Stage(
        "students",
        frozenset({Part.STUDENTS}),
        partial(self_distillation, direction=settings.direction),
        settings.distillation,
        cache_hidden_states=settings.cache_hidden_states,
    )
    source = "Liu et al., FastBERT (ACL 2020)"
    return Scheme("paper", source, (_teacher_stage(settings), students))


def joint(settings: SchemeSettings = SchemeSettings()) -> Scheme:
    """Return the scheme in which all parts learn, the deeper exits more than the others.

    Source: the weights are those of Zhou et al., PABEE (NeurIPS 2020); that the trunk comes first
    is Kubaty et al., How to Train Your Multi-Exit Model? (ICML 2025).
    """
    return _all_parts("joint", "Zhou et al., PABEE (NeurIPS 2020)", settings, ByDepth())


def exit_aware(settings: SchemeSettings = SchemeSettings()) -> Scheme:
    """Return the scheme in which an exit learns most from the rows that would leave near it.

    Source: the exit-aware loss of COSEE (AAAI 2025).
    """
    return _all_parts("exit-aware", "COSEE (AAAI 2025)", settings, ExitAware())


def alternating(settings: SchemeSettings = SchemeSettings()) -> Scheme:
    """Return the scheme in which every second step is the last exit's alone.

    Source: Xin et al., BERxiT (EACL 2021).
    """
    weights = Alternating(Uniform())
    return _all_parts("alternating", "Xin et al., BERxiT (EACL 2021)", settings, weights)


def separate(settings: SchemeSettings = SchemeSettings()) -> Scheme:
    """Return the scheme in which each layer learns from the exit after it alone.

    Source: Rotem et al., Finding the SWEET Spot (ACL 2023).
    """
    source = "Rotem et al., SWEET (ACL 2023)"
    return _all_parts("separate", source, settings, Uniform(), detached=True)


def taught(settings: SchemeSettings = SchemeSettings()) -> Scheme:
    """Return the scheme in which all parts learn from a fixed teacher's answers alone.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network (2015), for every exit.
    """
    alone = _teacher_alone(settings)
    return _all_parts("taught", HINTON, alone, ByDepth(), labels="none")


def into(settings: SchemeSettings = SchemeSettings()) -> Scheme:
    """Return the scheme by which another model teaches this one, from its answers alone.

    First encoder and last exit learn them, then the students, then all parts. No stage reads a
    label, and nothing is done instead: there is no earlier teacher to go back to.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network (2015), for every exit.
    """
    alone = _teacher_alone(settings)
    last_exit = Stage(
        "teacher",
        frozenset({Part.BACKBONE, Part.TEACHER}),
        AllExits(Uniform(), alone.target),
        settings.imitation,
        taught=True,
    )
    rest = _all_parts("into", HINTON, alone, ByDepth(), labels="none").stages[1:]
    return Scheme("into", HINTON, (last_exit, *rest))


SCHEMES: Mapping[str, Callable[[SchemeSettings], Scheme]] = MappingProxyType(
    {
        "paper": paper,
        "joint": joint,
        "exit-aware": exit_aware,
        "alternating": alternating,
        "separate": separate,
        "taught": taught,
    }
)


def scheme_named(name: str, settings: SchemeSettings = SchemeSettings()) -> Scheme:
    """Return the scheme of a name.

    Raises:
        ValueError: There is none.
    """
    if name not in SCHEMES:
        raise ValueError(f"scheme must be one of {', '.join(SCHEMES)}, got {name!r}")
    return SCHEMES[name](settings)


def _teacher_alone(settings: SchemeSettings) -> SchemeSettings:
    """Return the settings with a target in which labels have no share."""
    return replace(settings, target=replace(settings.target, share=1.0, last_share=1.0))


def _teacher_stage(settings: SchemeSettings) -> Stage:
    return Stage(
        "teacher",
        frozenset({Part.BACKBONE, Part.TEACHER}),
        partial(supervised, label_smoothing=settings.label_smoothing),
        settings.fine_tuning,
        labels="every",
        best_by="metric",
    )


def _all_parts(
    name: str, source: str, settings: SchemeSettings, weights: RowWeights, **of_exits: Any
) -> Scheme:
    """Return a scheme whose students warm up and then learn with all else, from both teachers."""
    kind = {"labels": "some", **of_exits}
    uniform = AllExits(Uniform(), settings.target)

    def students_alone(name: str, numbers: StageSettings) -> Stage:
        return Stage(
            name,
            frozenset({Part.STUDENTS}),
            uniform,
            numbers,
            labels=kind["labels"],
            cache_hidden_states=settings.cache_hidden_states,
            taught=True,
        )

    stages = [_teacher_stage(settings)]
    if settings.warm_up is not None:
        stages.append(students_alone("students", settings.warm_up))
    loss = AllExits(weights, settings.target)
    stages.append(
        Stage("exits", frozenset(Part), loss, settings.exits, best_by="area", taught=True, **kind)
    )
    if settings.polish is not None:
        stages.append(students_alone("polish", settings.polish))
    return Scheme(name, source, tuple(stages), settings.tolerance, paper(settings))


def told(value: Any) -> Any:
    """Return a part of a scheme as JSON tells it."""
    if is_dataclass(value) and not isinstance(value, type):
        is_plain = isinstance(value, (Stage, StageSettings))
        kind = {} if is_plain else {"is": type(value).__name__}
        return kind | {field.name: told(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, partial):
        return {"is": value.func.__name__, **told(value.keywords)}
    if isinstance(value, (frozenset, set)):
        return sorted(map(told, value))
    if isinstance(value, Mapping):
        return {name: told(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [told(item) for item in value]
    if isinstance(value, Enum):
        return value.value
    return value.__name__ if callable(value) else value

"""A stage as a value: what trains, the loss, the settings, and what the best epoch is chosen by.

A scheme is a few stages in their order (`scheme.py`); `trainer.py` runs any of them. A new way to
train is a new loss in a new `Stage`, and nothing else.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from fastbert.errors import TrainingError
from fastbert.nn.objectives import TorchTask

STUDENTS_FASTER = 10  # times the rate of what is pretrained, where both learn


class Part(Enum):
    """A part of a model that a stage may train."""

    BACKBONE = "backbone"
    TEACHER = "teacher"
    STUDENTS = "students"


def has_native_bf16() -> bool:
    """Return whether this machine multiplies bfloat16 in hardware; emulation would be slower."""
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()  # torch has no public name for it before 2.13


def refuse_several_devices() -> None:
    """Refuse to start where the Trainer would spread a batch over devices or processes.

    The students' answers have no rows on their first axis, along which it would gather them, and
    every process would write the same files.

    Raises:
        TrainingError: Several GPUs are visible, or a launcher has started several processes.
    """
    processes = os.environ.get("WORLD_SIZE", "1")
    if processes not in ("", "1"):
        raise TrainingError(
            f"WORLD_SIZE is {processes}: training runs in one process on one device; start it "
            "without torchrun or accelerate launch"
        )
    if (gpus := torch.cuda.device_count()) > 1:
        raise TrainingError(
            f"{gpus} GPUs are visible and training runs on one; choose it, such as by "
            "CUDA_VISIBLE_DEVICES=0"
        )


@dataclass(frozen=True)
class StageSettings:
    """How one stage is trained. Defaults of the optimiser are the paper's where it names them.

    Args:
        epochs: Passes over the examples.
        learning_rate: Peak of the linear warm-up and decay.
        students_learning_rate: That of the students where the backbone learns beside them; None
            for ten times the other, because they are new and it is not.
        batch_size: Examples of one forward pass on one device.
        gradient_accumulation: Batches whose gradients are added before a step.
        warmup: Share of the steps in which the learning rate rises.
        weight_decay: AdamW's, for all but biases and norms.
        seed: Of the order of the examples, the dropout and new weights.
        bf16: Compute in bfloat16; the weights stay float32. None where the machine is fast at it.
        checkpoint_steps: A checkpoint is written after so many steps, and after each epoch.
        report_to: A tracker that the Trainer knows, such as `tensorboard`.
    """

    epochs: int
    learning_rate: float
    batch_size: int = 32
    gradient_accumulation: int = 1
    warmup: float = 0.1
    weight_decay: float = 0.01
    seed: int = 42
    bf16: bool | None = None
    checkpoint_steps: int = 500
    report_to: str = "none"
    students_learning_rate: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings that would train nothing."""
        for name in ("epochs", "batch_size", "gradient_accumulation", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("learning_rate", "students_learning_rate"):
            rate = getattr(self, name)
            if rate is not None and not rate > 0:
                raise ValueError(f"{name} must be above 0, got {rate}")

    @property
    def computes_bf16(self) -> bool:
        """Whether this machine computes in bfloat16."""
        return has_native_bf16() if self.bf16 is None else self.bf16


@dataclass(frozen=True)
class Lesson:
    """What a loss is made of: one batch.

    Args:
        exits: The logits of all exits, the teacher's last; the teacher's alone where the stage
            does not train students.
        labels: The right answers; None where no text has one. Those of rows that are not
            `labelled` mean nothing.
        objective: The losses of the task.
        labelled: Which rows have a label; None where all have, or none has.
        taught: What the scheme's fixed teacher answered, where the stage asks for it.
        progress: How much of the stage is done, from 0 to 1; 1 on dev.
        step: The number of the step, counted from 0; None on dev.
    """

    exits: Float[Tensor, "exits rows outputs"]
    labels: Tensor | None
    objective: TorchTask
    labelled: Bool[Tensor, " rows"] | None = None
    taught: Float[Tensor, "rows outputs"] | None = None
    progress: float = 1.0
    step: int | None = None


Loss = Callable[[Lesson], Tensor]


@dataclass(frozen=True)
class Stage:
    """One stage of a scheme.

    Args:
        name: For progress bars, messages, the run's folder and the history.
        trains: The parts that learn; the others are frozen and answer without dropout.
        loss: What is minimised, for a batch.
        settings: Epochs, learning rate and the like.
        labels: `every` reads the labelled texts alone; `some` reads all texts, and cannot do
            without labels; `none` can.
        best_by: `loss`, where low is best, or the first `metric` of the task or the `area` under
            the curve of that metric against speed, where high is best.
        cache_hidden_states: Run the backbone once and keep what the students read on disk; None
            where that saves passes and fits.
        taught: Whether the loss is told what the fixed teacher answered: the teacher as the
            stages before have left it, or another model.
        detached: Whether an exit teaches only the layers since the exit before it: the hidden
            states are cut off after each exit.

    Raises:
        ValueError: It would train nothing, or cache what changes.
    """

    name: str
    trains: frozenset[Part]
    loss: Loss
    settings: StageSettings
    labels: Literal["every", "some", "none"] = "none"
    best_by: Literal["loss", "metric", "area"] = "loss"
    cache_hidden_states: bool | None = False
    taught: bool = False
    detached: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if not self.trains:
            raise ValueError(f"{self.name}: trains must name a part of the model, got none")
        if self.cache_hidden_states is not False and self.trains != {Part.STUDENTS}:
            raise ValueError(
                f"{self.name}: hidden states can be cached only where nothing but the students is "
                f"trained, got {', '.join(sorted(part.value for part in self.trains))}"
            )

    @property
    def asks_students(self) -> bool:
        """Whether the loss is told what the students answer."""
        return Part.STUDENTS in self.trains

    @property
    def trains_all(self) -> bool:
        """Whether backbone, teacher and students learn together."""
        return self.trains == set(Part)

    @property
    def needs_labels(self) -> bool:
        """Whether it cannot do without labels."""
        return self.labels != "none"

    @property
    def students_learning_rate(self) -> float:
        """The students' peak rate: that of the settings, or faster than what is pretrained."""
        if self.settings.students_learning_rate is not None:
            return self.settings.students_learning_rate
        faster = STUDENTS_FASTER if Part.BACKBONE in self.trains else 1
        return faster * self.settings.learning_rate

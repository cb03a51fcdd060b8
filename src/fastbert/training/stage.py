"""A stage as a value: what trains, the loss, the settings, and what the best epoch is chosen by.

A scheme is a tuple of stages (`scheme.py`); `trainer.py` runs any of them. A new way to train is a
new loss in a new `Stage`, and nothing else.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from fastbert.errors import TrainingError
from fastbert.nn.objectives import TorchTask


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
    """How one stage is trained. Defaults are the paper's where it names them.

    Args:
        epochs: Passes over the examples.
        learning_rate: Peak of the linear warm-up and decay.
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

    def __post_init__(self) -> None:
        """Refuse settings that would train nothing."""
        for name in ("epochs", "batch_size", "gradient_accumulation", "checkpoint_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")

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
        labels: The right answers, where the stage needs labels.
        objective: The losses of the task.
    """

    exits: Float[Tensor, "exits rows outputs"]
    labels: Tensor | None
    objective: TorchTask


Loss = Callable[[Lesson], Tensor]


@dataclass(frozen=True)
class Stage:
    """One stage of a scheme.

    Args:
        name: For progress bars, messages, the run's folder and the history.
        trains: The parts that learn; the others are frozen and answer without dropout.
        loss: What is minimised, for a batch.
        settings: Epochs, learning rate and the like.
        needs_labels: Whether it reads the labelled texts alone, and their labels.
        best_by: `loss`, where low is best, or the first `metric` of the task, where high is best.
        cache_hidden_states: Run the backbone once and keep what the students read on disk.

    Raises:
        ValueError: It would train nothing, or cache what changes.
    """

    name: str
    trains: frozenset[Part]
    loss: Loss
    settings: StageSettings
    needs_labels: bool
    best_by: Literal["loss", "metric"] = "loss"
    cache_hidden_states: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be trained."""
        if not self.trains:
            raise ValueError(f"{self.name}: trains must name a part of the model, got none")
        if self.cache_hidden_states and self.trains != {Part.STUDENTS}:
            raise ValueError(
                f"{self.name}: hidden states can be cached only where nothing but the students is "
                f"trained, got {', '.join(sorted(part.value for part in self.trains))}"
            )

    @property
    def asks_students(self) -> bool:
        """Whether the loss is told what the students answer."""
        return Part.STUDENTS in self.trains

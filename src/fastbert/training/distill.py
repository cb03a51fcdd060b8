"""Stage 2: teach every student what the frozen teacher answers; labels are not needed.

One pass of the frozen backbone feeds all students. The teacher runs without dropout, so its
soft labels are those it will give in use.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import EvalPrediction, Trainer

from fastbert.data.example import Example
from fastbert.exits.criteria import EntropyCriterion
from fastbert.exits.recorded import RecordedExits
from fastbert.nn.heads import padding_bias
from fastbert.nn.model import FastBertModel
from fastbert.text import TextTokenizer
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.stage import StageSettings, run_stage
from fastbert.training.stream import ExampleStream, collator

DISTILLATION = StageSettings(epochs=5, learning_rate=2e-4)
WATCHED_SPEED = 0.5  # at which the paper follows the training

Direction = Literal["student-teacher", "teacher-student"]
Lesson = tuple[Sequence[Tensor], Tensor]  # what each student reads, and the teacher's logits


def divergence(
    students: Float[Tensor, "students rows classes"],
    teacher: Float[Tensor, "rows classes"],
    direction: Direction = "student-teacher",
) -> Float[Tensor, ""]:
    """Return Σ over the students of the mean over rows of the Kullback–Leibler divergence.

    Args:
        students: Logits of each student.
        teacher: Logits of the teacher.
        direction: `student-teacher` is D_KL(student ‖ teacher), the paper's; `teacher-student` is
            D_KL(teacher ‖ student), what the authors' code computes.

    Source: Equations 5 and 6 of Liu et al., FastBERT (ACL 2020).
    """
    log_students = students.float().log_softmax(-1)
    log_teacher = teacher.float().log_softmax(-1).expand_as(log_students)
    log_p, log_q = (
        (log_students, log_teacher)
        if direction == "student-teacher"
        else (log_teacher, log_students)
    )
    # kl_div takes what is approximated second: kl_div(log q, log p) is Σ p · log(p / q).
    pointwise = functional.kl_div(log_q, log_p, reduction="none", log_target=True)
    return pointwise.sum(-1).mean(-1).sum()


class Students(nn.Module):
    """All students as one module, which is what stage 2 trains and checkpoints."""

    def __init__(self, heads: nn.ModuleList) -> None:
        """Share the heads of a model."""
        super().__init__()
        self.heads = heads

    def forward(
        self, readings: Sequence[Tensor], attention_mask: Tensor
    ) -> Float[Tensor, "students rows classes"]:
        """Return the logits of each student for what it reads."""
        bias = padding_bias(attention_mask)
        return torch.stack(
            [head(hidden, bias) for head, hidden in zip(self.heads, readings, strict=True)]
        )


class DistillTrainer(Trainer):
    """The Trainer with the loss of self-distillation."""

    def __init__(self, *, teach: Callable[..., Lesson], direction: Direction, **kwargs: Any):
        """Set where lessons come from, and which divergence is minimised."""
        super().__init__(**kwargs)
        self.teach = teach
        self.direction = direction

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Return the divergence of the students from the teacher."""
        readings, teacher = self.teach(**inputs)
        return divergence(model(readings, inputs["attention_mask"]), teacher, self.direction)

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Tensor], *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss on a batch of dev, the answers of all exits, and the teacher's labels."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            readings, teacher = self.teach(**inputs)
            students = model(readings, inputs["attention_mask"])
            loss = divergence(students, teacher, self.direction)
        exits = torch.cat([students.float(), teacher.float()[None]])
        return loss, exits.transpose(0, 1), teacher.argmax(dim=-1)


def distill_students(
    model: FastBertModel,
    tokenizer: TextTokenizer,
    read: Callable[[], Iterable[Example]],
    rows: int,
    dev: Sequence[Example],
    folder: Path,
    settings: StageSettings = DISTILLATION,
    *,
    direction: Direction = "student-teacher",
    cache_hidden_states: bool = False,
    resume: bool = False,
) -> list[dict[str, float]]:
    """Train the students of a model in place; backbone and teacher stay as they are.

    Args:
        model: A trained teacher with fresh students.
        tokenizer: Turns texts into tokens.
        read: Starts reading the texts from the beginning, once for each epoch.
        rows: How many texts `read` yields.
        dev: Texts on which the epoch with the lowest divergence is chosen; may be empty, then
            the last epoch is kept.
        folder: Where checkpoints, and the cache if any, go.
        settings: Epochs, learning rate and the like; the paper's by default.
        direction: Which divergence is minimised.
        cache_hidden_states: Run the backbone once and keep what the students read on disk. A cache
            that lies in `folder` already is used if it was made of these weights and texts.
        resume: Go on from the last whole checkpoint.

    Returns:
        The history: for each epoch its number, the loss on dev and, at the paper's speed 0.5, the
        accuracy where there are labels, agreement with the teacher and the mean exit layer.

    Source: Section 3.2.3, "Self-distillation for branch", of Liu et al., FastBERT (ACL 2020).
    """
    train_stream = ExampleStream(
        read, rows, tokenizer, batch_size=settings.batch_size, seed=settings.seed
    )
    dev_stream = ExampleStream(
        lambda: dev, len(dev), tokenizer, batch_size=settings.batch_size, seed=None, first_row=rows
    )
    model.requires_grad_(False).eval()
    students = Students(model.students).requires_grad_(True)
    teach: Callable[..., Lesson] = partial(_teach, model, settings.computes_bf16)
    if cache_hidden_states:
        teach = _cache(model, [train_stream, dev_stream], folder, settings).teach
    history = run_stage(
        partial(DistillTrainer, teach=teach, direction=direction),
        students,
        settings,
        title="students",
        train=train_stream,
        dev=dev_stream if dev else None,
        collate=collator(tokenizer),
        folder=folder,
        resume=resume,
        best_by="loss",
        compute_metrics=partial(_at_watched_speed, _truth(model, dev)),
    )
    model.eval()
    return history


def _truth(model: FastBertModel, dev: Sequence[Example]) -> np.ndarray | None:
    """Return the classes of dev's rows, if all have a label and the model knows it."""
    numbers = {label: number for number, label in enumerate(model.labels)}
    truth = [numbers.get(example.label or "") for example in dev]
    return None if None in truth else np.array(truth)


def _at_watched_speed(truth: np.ndarray | None, prediction: EvalPrediction) -> dict[str, float]:
    """Return what the paper's Figure 7 follows through the epochs; dev comes in its own order."""
    logits = np.moveaxis(np.asarray(prediction.predictions), 1, 0)
    answered = RecordedExits(logits).replay(EntropyCriterion(WATCHED_SPEED))
    answers = answered.logits.argmax(axis=-1)
    figures = {} if truth is None else {"accuracy": float((answers == truth).mean())}
    return figures | {
        "agreement": float((answers == prediction.label_ids).mean()),
        "mean_exit_layer": float(answered.exit_layer.mean()),
    }


@torch.no_grad()
def _teach(model: FastBertModel, bf16: bool, row: Tensor, **tokens: Tensor) -> Lesson:
    """Run the frozen backbone for a batch."""
    with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
        return model.to(row.device).teach(**tokens)


def _cache(
    model: FastBertModel,
    streams: Sequence[ExampleStream],
    folder: Path,
    settings: StageSettings,
) -> HiddenCache:
    """Return the hidden states of the rows of all streams: those in `folder` if they are these."""
    bf16 = settings.computes_bf16
    digest = hashlib.sha256(f"bf16 {bf16}".encode())
    lengths = np.empty(sum(map(len, streams)), np.int64)
    for item in chain.from_iterable(streams):
        tokens, row = item["tokens"], item["row"]
        lengths[row] = len(tokens.ids)
        digest.update(np.array([row, len(tokens.ids)]).tobytes())
        digest.update(tokens.ids.tobytes() + tokens.type_ids.tobytes())
    for name, weight in model.teacher.state_dict().items():
        digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
    identity = digest.hexdigest()
    if cache := HiddenCache.load(folder, identity):
        return cache
    loaders = [  # batches of similar length
        DataLoader(stream, settings.batch_size, collate_fn=collator(stream.tokenizer))
        for stream in streams
    ]
    batches = chain.from_iterable(loaders)
    return HiddenCache.build(model, batches, lengths, folder, identity=identity, bf16=bf16)

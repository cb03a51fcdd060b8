"""A FastBERT in torch: a teacher of the Hugging Face kind and the students after its layers.

The teacher is either anybody's `*ForSequenceClassification` model (head `pretrained`) or a plain
encoder under the paper's own head (`paper`).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from fastbert.files.open_file import OpenFile
from fastbert.folder.names import (
    STUDENTS_FILE,
    TEACHER_FILE,
)
from fastbert.folder.read import ModelFolder, check_tensors
from fastbert.head_shapes import Heads, PaperHead, heads_by_depth
from fastbert.nn.backbone import LayerState
from fastbert.nn.backbones import backbone_for
from fastbert.nn.heads import ExitHead, PaperExitHead, padding_bias
from fastbert.nn.loading import model_from_folder, refuse_non_finite, tensors_of
from fastbert.nn.objectives import objective_of
from fastbert.tasks.known import DEFAULT_TASK, task_from_json
from fastbert.tasks.task import Task


class PaperClassifier(nn.Module):
    """A plain encoder under the paper's head: the teacher with the head `paper`."""

    def __init__(self, encoder: PreTrainedModel, num_labels: int, shape: PaperHead) -> None:
        """Put a fresh head on an encoder."""
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        self.head = PaperExitHead(encoder.config.hidden_size, num_labels, shape)

    def forward(
        self,
        input_ids: Int[Tensor, "rows length"],
        attention_mask: Int[Tensor, "rows length"],
        token_type_ids: Int[Tensor, "rows length"] | None = None,
    ) -> SequenceClassifierOutput:
        """Return logits, in the form in which transformers does."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.encoder(input_ids, attention_mask=attention_mask, **segments)[0]
        return SequenceClassifierOutput(logits=self.head(hidden, padding_bias(attention_mask)))


Teacher = PreTrainedModel | PaperClassifier


def all_exits(
    students: Float[Tensor, "students rows classes"], teacher: Float[Tensor, "rows classes"]
) -> Float[Tensor, "exits rows classes"]:
    """Return the logits of students and teacher as those of the exits, in their order."""
    return torch.cat([students, teacher[None]])


class FastBertModel(nn.Module):
    """A teacher with L encoder layers, and a student after each of the layers 1 … L-1."""

    def __init__(self, teacher: Teacher, heads: Heads) -> None:
        """Put fresh students on a teacher.

        Args:
            teacher: A classifier whose `config.id2label` names the classes.
            heads: The heads of the students: a spelling, or the shape of each.

        Raises:
            ValueError: The heads are none, or for another number of students.
        """
        super().__init__()
        self.teacher = teacher
        encoder = teacher.encoder if isinstance(teacher, PaperClassifier) else teacher
        self.backbone = backbone_for(encoder)
        self.student_shapes = heads_by_depth(heads, self.num_exits - 1)
        head = objective_of(self.task).head
        self.students = nn.ModuleList(
            head(self.backbone.hidden_size, self.task.outputs, shape)
            for shape in self.student_shapes
        )

    @property
    def num_exits(self) -> int:
        """The number of encoder layers."""
        return self.backbone.num_layers

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes, in the order of the logits."""
        config: Any = self.teacher.config  # its own types leave the keys open
        return tuple(config.id2label[index] for index in range(config.num_labels))

    @property
    def task(self) -> Task:
        """What the model answers, as the teacher's configuration says."""
        problem = getattr(self.teacher.config, "problem_type", None)
        return task_from_json({"name": problem or DEFAULT_TASK}, self.labels)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    @property
    def heads(self) -> list[ExitHead]:
        """The heads of our own, in the order of their layers: the paper's teacher is one too."""
        teachers = [self.teacher.head] if isinstance(self.teacher, PaperClassifier) else []
        return [cast(ExitHead, head) for head in (*self.students, *teachers)]

    def teacher_logits(self, state: LayerState) -> Float[Tensor, "rows classes"]:
        """Ask the teacher, after the last layer."""
        if isinstance(self.teacher, PaperClassifier):
            hidden = self.backbone.exit_view(state.hidden)
            return self.teacher.head(hidden, padding_bias(state.attention_mask))
        return self.backbone.teacher_logits(self.teacher, state)

    def teach(
        self,
        input_ids: Int[Tensor, "rows length"],
        attention_mask: Int[Tensor, "rows length"],
        token_type_ids: Int[Tensor, "rows length"] | None = None,
    ) -> tuple[list[Float[Tensor, "rows length hidden"]], Float[Tensor, "rows classes"]]:
        """Run the backbone once; return what each student reads, and the teacher's logits."""
        return self.teach_from(self.backbone.start(input_ids, attention_mask, token_type_ids))

    def teach_from(
        self, state: LayerState, *, detached: bool = False
    ) -> tuple[list[Float[Tensor, "rows length hidden"]], Float[Tensor, "rows classes"]]:
        """Run all layers; return what `teach` does.

        Args:
            state: What the first layer needs to know.
            detached: Cut gradients after each exit, so that one reaches only the layers since the
                exit before, and what a family's layers share.
        """
        readings = []
        for index in range(self.num_exits):
            state = self.backbone.layer(index, state)
            if index < self.num_exits - 1:
                readings.append(self.backbone.exit_view(state.hidden))
                state = state.after(state.hidden.detach()) if detached else state
        return readings, self.teacher_logits(state)

    def ask_students(
        self,
        readings: Sequence[Float[Tensor, "rows length hidden"]],
        attention_mask: Int[Tensor, "rows length"],
    ) -> Float[Tensor, "students rows classes"]:
        """Return the logits of each student for what it reads."""
        bias = padding_bias(attention_mask)
        return torch.stack(
            [head(hidden, bias) for head, hidden in zip(self.students, readings, strict=True)]
        )

    def forward(
        self,
        input_ids: Int[Tensor, "rows length"],
        attention_mask: Int[Tensor, "rows length"],
        token_type_ids: Int[Tensor, "rows length"] | None = None,
    ) -> Float[Tensor, "exits rows classes"]:
        """Return the logits of all exits, the students' and the teacher's last.

        For training: whatever parts are frozen, gradients reach the others. Nobody leaves.
        """
        readings, teacher = self.teach(input_ids, attention_mask, token_type_ids)
        return all_exits(self.ask_students(readings, attention_mask), teacher)

    def save(self, folder: Path) -> None:
        """Write the teacher as transformers does, and beside it the heads that are ours."""
        heads = {f"students.{name}": tensor for name, tensor in self.students.state_dict().items()}
        if isinstance(self.teacher, PaperClassifier):
            self.teacher.encoder.save_pretrained(folder)
            head = self.teacher.head.state_dict()
            heads |= {f"teacher.{name}": tensor for name, tensor in head.items()}
        else:
            self.teacher.save_pretrained(folder)
        save_file(
            {name: tensor.contiguous().cpu() for name, tensor in heads.items()},
            folder / STUDENTS_FILE,
            metadata={"format": "pt"},
        )

    @classmethod
    def load(cls, folder: ModelFolder) -> "FastBertModel":
        """Read a model folder, from the bytes whose hashes have been checked.

        Raises:
            FolderError: A tensor is missing, left over, of another shape, NaN or infinite.
        """
        config = folder.config
        weights = folder.files[TEACHER_FILE]
        if config.teacher_head != "pretrained":
            encoder = model_from_folder(MODEL_MAPPING, folder)
            teacher: Teacher = PaperClassifier(encoder, len(config.labels), config.teacher_head)
        else:
            teacher = model_from_folder(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, folder)
        model = cls(teacher, config.students)
        model._load_heads(folder.files[STUDENTS_FILE])
        refuse_non_finite(weights, teacher.state_dict())
        return model.eval()

    def _load_heads(self, file: OpenFile) -> None:
        heads: dict[str, nn.Module] = {"students": self.students}
        if isinstance(self.teacher, PaperClassifier):
            heads["teacher"] = self.teacher.head
        expected = {
            f"{prefix}.{name}": tuple(tensor.shape)
            for prefix, module in heads.items()
            for name, tensor in module.state_dict().items()
        }
        tensors = tensors_of(file)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        check_tensors(file.path.name, expected, found)
        refuse_non_finite(file, tensors)
        for prefix, module in heads.items():
            start = f"{prefix}."
            module.load_state_dict(
                {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
            )

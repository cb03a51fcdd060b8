"""A FastBERT in torch: a teacher of the Hugging Face kind and the students after its layers.

The teacher is either anybody's `*ForSequenceClassification` model (head `pretrained`) or a plain
encoder under the paper's own head (`paper`). Loading is strict in both: a weight that is
missing, left over or of another shape is an error that names it, never a random number.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    MODEL_MAPPING,
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from fastbert.errors import BackboneError, FolderError
from fastbert.folder import (
    MODEL_CONFIG_FILE,
    STUDENTS_FILE,
    TEACHER_FILE,
    TOKENIZER_FILE,
    ModelFolder,
    StudentShape,
    check_tensors,
)
from fastbert.nn.backbones import LayerState, backbone_for
from fastbert.nn.checkpoint import refuse_unreadable, refuse_unreadable_tokenizer
from fastbert.nn.heads import ExitHead, padding_bias
from fastbert.open_file import OpenFile

TeacherHead = Literal["pretrained", "paper"]


class PaperClassifier(nn.Module):
    """A plain encoder under the paper's head: the teacher with the head `paper`."""

    def __init__(self, encoder: PreTrainedModel, num_labels: int, shape: StudentShape) -> None:
        """Put a fresh head on an encoder."""
        super().__init__()
        self.encoder = encoder
        self.config = encoder.config
        self.head = ExitHead(encoder.config.hidden_size, num_labels, shape)

    def forward(
        self,
        input_ids: Int[Tensor, "rows length"],
        attention_mask: Int[Tensor, "rows length"],
        token_type_ids: Int[Tensor, "rows length"] | None = None,
        labels: Int[Tensor, " rows"] | None = None,
    ) -> SequenceClassifierOutput:
        """Return logits, and the cross-entropy where there are labels, as transformers does."""
        segments = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        hidden = self.encoder(input_ids, attention_mask=attention_mask, **segments)[0]
        logits = self.head(hidden, padding_bias(attention_mask))
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)


Teacher = PreTrainedModel | PaperClassifier


class FastBertModel(nn.Module):
    """A teacher with L encoder layers, and a student after each of the layers 1 … L-1."""

    def __init__(self, teacher: Teacher, student_shape: StudentShape) -> None:
        """Put fresh students on a teacher.

        Args:
            teacher: A classifier whose `config.id2label` names the classes.
            student_shape: The shape of the students.
        """
        super().__init__()
        self.teacher = teacher
        self.student_shape = student_shape
        encoder = teacher.encoder if isinstance(teacher, PaperClassifier) else teacher
        self.backbone = backbone_for(encoder)
        self.students = nn.ModuleList(
            ExitHead(self.backbone.hidden_size, len(self.labels), student_shape)
            for _ in range(self.num_exits - 1)
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
        state = self.backbone.start(input_ids, attention_mask, token_type_ids)
        readings = []
        for index in range(self.num_exits):
            state = self.backbone.layer(index, state)
            if index < self.num_exits - 1:
                readings.append(self.backbone.exit_view(state.hidden))
        return readings, self.teacher_logits(state)

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
        if config.teacher_head == "paper":
            encoder = _from_folder(MODEL_MAPPING, folder)
            teacher: Teacher = PaperClassifier(encoder, len(config.labels), config.students)
        else:
            teacher = _from_folder(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, folder)
        model = cls(teacher, config.students)
        model._load_heads(folder.files[STUDENTS_FILE])
        _refuse_non_finite(weights, teacher.state_dict())
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
        tensors = _tensors(file)
        found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        check_tensors(file.path.name, expected, found)
        _refuse_non_finite(file, tensors)
        for prefix, module in heads.items():
            start = f"{prefix}."
            module.load_state_dict(
                {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
            )


# Never a pickle, never code from the checkpoint, always a report of what did not match: tensors of
# another shape stand in it too, where transformers by itself would raise without naming them.
LOADING: dict[str, Any] = {
    "dtype": torch.float32,
    "use_safetensors": True,
    "trust_remote_code": False,
    "output_loading_info": True,
    "ignore_mismatched_sizes": True,
}


def read_config(checkpoint: str | Path) -> PreTrainedConfig:
    """Read a checkpoint's configuration from a folder or the Hub.

    Raises:
        BackboneError: There is no such checkpoint, or a file of it cannot be read.
    """
    refuse_unreadable(checkpoint)
    try:
        return AutoConfig.from_pretrained(checkpoint, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise BackboneError(
            f"{checkpoint}: not a Hugging Face checkpoint that can be read: "
            f"{str(error).splitlines()[0]}"
        ) from error


def teacher_to_train(
    checkpoint: str | Path,
    labels: Sequence[str],
    teacher_head: TeacherHead = "pretrained",
    students: StudentShape | None = None,
) -> Teacher:
    """Load a checkpoint as a classifier of `labels`; only its head may be new.

    Raises:
        BackboneError: A weight of the encoder itself is not in the checkpoint.
    """
    if teacher_head == "paper":
        encoder, report = _from_pretrained(AutoModel, checkpoint, **_names(labels))
        _refuse_random_encoder(checkpoint, encoder, report)
        return PaperClassifier(encoder, len(labels), students or StudentShape())
    model, report = _from_pretrained(
        AutoModelForSequenceClassification, checkpoint, **_names(labels)
    )
    _refuse_random_encoder(checkpoint, model, report)
    return model


def trained_teacher(checkpoint: str | Path) -> PreTrainedModel:
    """Load somebody's fine-tuned classifier as it is.

    Raises:
        BackboneError: It has no trained classification head, or other weights do not match.
    """
    model, report = _from_pretrained(AutoModelForSequenceClassification, checkpoint)
    lacking = _unmatched(report)
    if lacking:
        raise BackboneError(
            f"{checkpoint}: not a fine-tuned classifier, it lacks {_some(lacking)}; "
            "fine-tune it first with `fastbert train`"
        )
    _refuse_unnamed_classes(checkpoint, model.config.id2label)
    problem = model.config.problem_type
    if model.config.num_labels < 2 or problem not in (None, "single_label_classification"):
        raise BackboneError(
            f"{checkpoint}: a classifier of one label out of two or more is needed, this one has "
            f"{model.config.num_labels} and solves {problem or 'regression'}"
        )
    return model


def save_tokenizer(checkpoint: str | Path, folder: Path) -> None:
    """Write a checkpoint's tokeniser as serving reads it.

    Raises:
        BackboneError: It cannot be read, or not be written as tokenizer.json.
    """
    refuse_unreadable_tokenizer(checkpoint)
    try:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        tokenizer.save_pretrained(folder)
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise BackboneError(
            f"{checkpoint}: its tokenizer cannot be read: {str(error).strip().splitlines()[0]}"
        ) from error
    if not (folder / TOKENIZER_FILE).exists():
        raise BackboneError(
            f"{checkpoint}: {type(tokenizer).__name__} exists only in Python and cannot be saved "
            f"as {TOKENIZER_FILE}, which this package needs; use a checkpoint whose tokenizer can, "
            "such as the usual ones of BERT, RoBERTa, XLM-R and DeBERTa"
        )


def _refuse_unnamed_classes(checkpoint: str | Path, names: Mapping[int, Any]) -> None:
    if sorted(names) != list(range(len(names))) or len(set(names.values())) < len(names):
        raise BackboneError(
            f"{checkpoint}: id2label of its config.json must name the classes 0, 1, … by different "
            f"names, got {dict(names)}"
        )


def _from_folder(classes: Mapping[Any, Any], folder: ModelFolder) -> Any:
    """Build a model of the library from the open files of a folder."""
    family, weights = str(folder.model_config.get("model_type")), folder.files[TEACHER_FILE]
    try:
        config = CONFIG_MAPPING[family].from_dict(folder.model_config)
        model_class = classes[type(config)]
    except KeyError as error:
        raise FolderError(
            f"{folder.files[MODEL_CONFIG_FILE]}: transformers has no classifier of {family!r}"
        ) from error
    model, report = model_class.from_pretrained(
        None, config=config, state_dict=_tensors(weights), **LOADING
    )
    _refuse_unmatched(weights, report)
    return model


def _tensors(file: OpenFile) -> dict[str, Tensor]:
    """Return the tensors of a file, mapped into memory where they lie."""
    try:
        with safe_open(file.link, framework="pt") as tensors:
            names = tensors.keys()  # the handle itself is no mapping
            return {name: tensors.get_tensor(name) for name in names}
    except SafetensorError as error:
        raise FolderError(f"{file}: cannot be read as safetensors: {error}") from error


def _from_pretrained(auto: Any, checkpoint: str | Path, **changes: Any) -> tuple[Any, Any]:
    read_config(checkpoint)
    try:
        return auto.from_pretrained(checkpoint, **LOADING, **changes)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BackboneError(
            f"{checkpoint}: cannot be loaded as {auto.__name__}: {str(error).splitlines()[0]}"
        ) from error


def _names(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "num_labels": len(labels),
        "id2label": dict(enumerate(labels)),
        "label2id": {label: index for index, label in enumerate(labels)},
        "problem_type": "single_label_classification",
    }


def _refuse_random_encoder(
    checkpoint: str | Path, model: PreTrainedModel, report: Mapping[str, Any]
) -> None:
    """Let only the head and the pooler be new.

    Half-matched checkpoints that train from random layers without a word are how reproductions
    of the paper lost ten points and more.
    """
    prefix = f"{model.base_model_prefix}."
    is_bare = model.base_model is model
    lacking = sorted(
        key
        for key in _unmatched(report)
        if (is_bare or key.startswith(prefix)) and "pooler." not in key
    )
    if lacking:
        raise BackboneError(
            f"{checkpoint}: {len(lacking)} weights of the encoder are missing or of another shape: "
            f"{_some(lacking)}"
        )


def _unmatched(report: Mapping[str, Any]) -> list[str]:
    """Return the tensors of the model that the checkpoint does not have, or not in their shape."""
    return sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])})


def _refuse_unmatched(path: OpenFile, report: Mapping[str, Any]) -> None:
    for what, keys in {
        "missing or of another shape": _unmatched(report),
        "unexpected": sorted(report["unexpected_keys"]),
    }.items():
        if keys:
            raise FolderError(f"{path}: tensors {what}: {_some(keys)}")


def _refuse_non_finite(path: OpenFile, tensors: Mapping[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise FolderError(f"{path}: tensor {name} holds NaN or infinite values")


def _some(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
    return ", ".join(keys[:3]) + more

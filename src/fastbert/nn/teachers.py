"""Teachers from checkpoints: a pretrained encoder to train, or a classifier trained elsewhere."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from fastbert.errors import BackboneError
from fastbert.folder.names import (
    TOKENIZER_FILE,
)
from fastbert.nn.checkpoint import refuse_unreadable, refuse_unreadable_tokenizer
from fastbert.nn.loading import LOADING, some_of, unmatched
from fastbert.nn.model import PaperClassifier, Teacher
from fastbert.nn.objectives import objective_of
from fastbert.shape import TeacherHead
from fastbert.tasks.known import DEFAULT_TASK, TASKS, task_from_json
from fastbert.tasks.task import Task


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
    task: Task,
    teacher_head: TeacherHead = "pretrained",
    layers: int | None = None,
) -> Teacher:
    """Load a checkpoint to be trained for a task; only its head may be new.

    Args:
        checkpoint: A local folder or a Hub name.
        task: What it shall answer.
        teacher_head: The family's own head or the paper's.
        layers: How many of the first encoder layers are kept; None keeps all.

    Raises:
        BackboneError: A weight of the encoder itself is not in the checkpoint, or it has fewer
            layers.
    """
    changes = _names(task) | _first_layers(checkpoint, layers)
    if teacher_head != "pretrained":
        encoder, report = _from_pretrained(AutoModel, checkpoint, **changes)
        _refuse_random_encoder(checkpoint, encoder, report)
        return PaperClassifier(encoder, task.outputs, teacher_head)
    auto_class = objective_of(task).auto_class
    model, report = _from_pretrained(auto_class, checkpoint, **changes)
    _refuse_random_encoder(checkpoint, model, report)
    return model


def trained_teacher(checkpoint: str | Path) -> PreTrainedModel:
    """Load somebody's fine-tuned classifier as it is.

    Raises:
        BackboneError: It has no trained classification head, or other weights do not match.
    """
    model, report = _from_pretrained(AutoModelForSequenceClassification, checkpoint)
    lacking = unmatched(report)
    if lacking:
        raise BackboneError(
            f"{checkpoint}: not a fine-tuned classifier, it lacks {some_of(lacking)}; "
            "fine-tune it first with `fastbert train`"
        )
    answered_task(checkpoint, model.config)
    return model


def answered_task(checkpoint: str | Path, config: PreTrainedConfig) -> Task:
    """Return what a fine-tuned classifier answers, by its configuration.

    Raises:
        BackboneError: It is no task that there is here, or its classes have no names.
    """
    names: Mapping[Any, str] = config.id2label or {}
    _refuse_unnamed_classes(checkpoint, names)
    problem = config.problem_type
    if len(names) < 2 or problem not in (None, *TASKS):
        raise BackboneError(
            f"{checkpoint}: a classifier of two or more labels is needed, this one has "
            f"{len(names)} and solves {problem or 'regression'}"
        )
    labels = [names[index] for index in range(len(names))]
    return task_from_json({"name": problem or DEFAULT_TASK}, labels)


def save_tokenizer(checkpoint: str | Path, folder: Path) -> None:
    """Write a checkpoint's tokeniser as serving reads it.

    Raises:
        BackboneError: It cannot be read, or not be written as tokenizer.json.
    """
    with _read_or_refused(checkpoint):
        tokenizer = AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False)
        tokenizer.save_pretrained(folder)
    if not (folder / TOKENIZER_FILE).exists():
        raise BackboneError(
            f"{checkpoint}: {type(tokenizer).__name__} exists only in Python and cannot be saved "
            f"as {TOKENIZER_FILE}, which this package needs; use a checkpoint whose tokenizer can, "
            "such as the usual ones of BERT, RoBERTa, XLM-R and DeBERTa"
        )


def tokenizer_of(checkpoint: str | Path) -> PreTrainedTokenizerBase:
    """Read a checkpoint's own tokenizer, as transformers has it.

    Raises:
        BackboneError: It cannot be read.
    """
    with _read_or_refused(checkpoint):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            checkpoint, trust_remote_code=False
        )
    return tokenizer


@contextmanager
def _read_or_refused(checkpoint: str | Path) -> Iterator[None]:
    """Name the checkpoint where its tokenizer cannot be read."""
    refuse_unreadable_tokenizer(checkpoint)
    try:
        yield
    except Exception as error:  # the tokenizers library raises nothing narrower
        raise BackboneError(
            f"{checkpoint}: its tokenizer cannot be read: {str(error).strip().splitlines()[0]}"
        ) from error


def _refuse_unnamed_classes(checkpoint: str | Path, names: Mapping[Any, str]) -> None:
    if sorted(names) != list(range(len(names))) or len(set(names.values())) < len(names):
        raise BackboneError(
            f"{checkpoint}: id2label of its config.json must name the classes 0, 1, … by different "
            f"names, got {dict(names)}"
        )


def _from_pretrained(auto: Any, checkpoint: str | Path, **changes: Any) -> tuple[Any, Any]:
    read_config(checkpoint)
    try:
        return auto.from_pretrained(checkpoint, **LOADING, **changes)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise BackboneError(
            f"{checkpoint}: cannot be loaded as {auto.__name__}: {str(error).splitlines()[0]}"
        ) from error


def _names(task: Task) -> dict[str, Any]:
    return {
        "num_labels": task.outputs,
        "id2label": dict(enumerate(task.labels)),
        "label2id": {label: index for index, label in enumerate(task.labels)},
        "problem_type": task.name,
    }


def _first_layers(checkpoint: str | Path, layers: int | None) -> dict[str, Any]:
    if layers is None:
        return {}
    there = read_config(checkpoint).num_hidden_layers
    if layers > there:
        raise BackboneError(f"{checkpoint}: has {there} encoder layers, {layers} are to be kept")
    return {"num_hidden_layers": layers}


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
        for key in unmatched(report)
        if (is_bare or key.startswith(prefix)) and "pooler." not in key
    )
    if lacking:
        raise BackboneError(
            f"{checkpoint}: {len(lacking)} weights of the encoder are missing or of another shape: "
            f"{some_of(lacking)}"
        )

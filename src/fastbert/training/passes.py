"""Single passes over all texts, before a stage: what its frozen parts say is computed once.

Training texts come first and dev after them, so that a row has one number in every stage.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from reprlib import repr as shown

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from fastbert.errors import TrainingError
from fastbert.nn.foreign_teacher import ForeignTeacher
from fastbert.nn.model import FastBertModel
from fastbert.text import Text, TextTokenizer, batches_of_similar_length
from fastbert.training.answers import TeacherAnswers
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.progress import Progress
from fastbert.training.stage import StageSettings
from fastbert.training.stream import TextStream, TrainingTexts, collator
from fastbert.training.tokens import TOKENISED_TOGETHER


def hidden_states(
    model: FastBertModel,
    tokenizer: TextTokenizer,
    texts: TrainingTexts,
    folder: Path,
    settings: StageSettings,
) -> HiddenCache:
    """Return what the students read of all rows: what lies in `folder`, if it is of these."""
    streams, bf16 = all_rows(texts, settings), settings.computes_bf16
    identity = identity_of(model, streams, bf16=bf16)
    if cache := HiddenCache.load(folder, identity):
        return cache
    lengths = np.concatenate([stream.tokens.lengths() for stream in streams])
    batches = _batches(streams, tokenizer, settings)
    return HiddenCache.build(model, batches, lengths, folder, identity=identity, bf16=bf16)


def teacher_answers(
    model: FastBertModel,
    tokenizer: TextTokenizer,
    texts: TrainingTexts,
    folder: Path,
    settings: StageSettings,
) -> TeacherAnswers:
    """Return what the teacher answers to all rows as it is now, without dropout.

    Args:
        model: Whose teacher is asked.
        tokenizer: What made the tokens, and pads them.
        texts: All that is learned from.
        folder: Where the answers lie or go.
        settings: How many rows are asked about together, and in which precision.
    """
    streams, bf16 = all_rows(texts, settings), settings.computes_bf16
    identity = identity_of(model, streams, bf16=bf16)
    if answers := TeacherAnswers.load(folder, identity):
        return answers
    shape = (sum(stream.rows for stream in streams), model.task.outputs)
    answered = _answered(model, _batches(streams, tokenizer, settings), shape[0], bf16=bf16)
    return TeacherAnswers.write(folder, answered, shape, identity)


def foreign_answers(
    teacher: ForeignTeacher,
    texts: Iterable[Text],
    rows: int,
    folder: Path,
    settings: StageSettings,
    content: str,
) -> TeacherAnswers:
    """Return what another model answers to all texts; it is loaded for that and let go again.

    Args:
        teacher: The other model.
        texts: All that is learned from and then all of dev, read a few thousand at a time, and only
            if they have to be answered.
        rows: How many they are.
        folder: Where the answers lie or go.
        settings: How many rows are asked about together, and in which precision.
        content: A hash of the texts in their order.

    Raises:
        BackboneError: It has no trained head, or reads fewer tokens than it shall.
        TrainingError: An answer is NaN or infinite.
    """
    asked = (content, rows, teacher.max_length, settings.computes_bf16)
    identity = hashlib.sha256(repr((asked, sorted(teacher.hashes().items()))).encode()).hexdigest()
    if answers := TeacherAnswers.load(folder, identity):
        return answers
    model = teacher.load().to(device_of_training())
    answered = _answered_by_another(teacher, model, texts, rows, settings)
    answers = TeacherAnswers.write(folder, answered, (rows, teacher.task.outputs), identity)
    del model, answered
    torch.cuda.empty_cache()  # what the teacher had is the trained model's now
    return answers


def all_rows(texts: TrainingTexts, settings: StageSettings) -> list[TextStream]:
    """Return all rows, in batches of similar length, with those of dev after the others."""
    size = settings.batch_size
    streams = [TextStream(texts.train, batch_size=size, seed=settings.seed)]
    if texts.dev is not None:
        dev = TextStream(texts.dev, batch_size=size, seed=None, first_row=len(texts.train))
        streams.append(dev)
    return streams


def identity_of(model: FastBertModel, streams: Sequence[TextStream], *, bf16: bool) -> str:
    """Return a hash of all that a pass depends on: the rows, the teacher's weights, precision."""
    digest = hashlib.sha256(f"bf16 {bf16}".encode())
    for stream in streams:
        digest.update(repr((stream.first_row, stream.rows, stream.tokens.hashes)).encode())
    for name, weight in model.teacher.state_dict().items():
        digest.update(name.encode() + weight.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _batches(
    streams: Sequence[TextStream], tokenizer: TextTokenizer, settings: StageSettings
) -> Iterator[Mapping[str, Tensor]]:
    collate = collator(tokenizer)
    return chain.from_iterable(
        DataLoader(stream, settings.batch_size, collate_fn=collate) for stream in streams
    )


def _answered(
    model: FastBertModel, batches: Iterator[Mapping[str, Tensor]], rows: int, *, bf16: bool
) -> Iterator[tuple[Int[np.ndarray, " _"], Float[np.ndarray, "_ outputs"]]]:
    model.eval()
    progress, done = Progress("teacher's answers", rows, "row"), 0
    for batch in batches:
        tokens = {name: tensor.to(model.device) for name, tensor in batch.items() if name != "row"}
        autocast = torch.autocast(model.device.type, torch.bfloat16, enabled=bf16)
        with torch.no_grad(), autocast:
            _, logits = model.teach(**tokens)
        yield batch["row"].numpy(), logits.float().cpu().numpy()
        done += len(logits)
        progress.move_to(done)
    progress.close()


def _answered_by_another(
    teacher: ForeignTeacher,
    model: nn.Module,
    texts: Iterable[Text],
    rows: int,
    settings: StageSettings,
) -> Iterator[tuple[Int[np.ndarray, " _"], Float[np.ndarray, "_ outputs"]]]:
    size = settings.batch_size if teacher.answers_batches else 1
    progress, done, texts = Progress(f"answers of {teacher.name}", rows, "row"), 0, iter(texts)
    device, bf16 = device_of_training().type, settings.computes_bf16
    while some := list(islice(texts, TOKENISED_TOGETHER)):
        encoded = teacher.encode(some)
        first = done
        for batch in batches_of_similar_length([len(row["input_ids"]) for row in encoded], size):
            with torch.autocast(device, torch.bfloat16, enabled=bf16):
                logits = teacher.ask(model, [encoded[row] for row in batch])
            bad = ~np.isfinite(logits).all(axis=-1)
            if bad.any():
                raise TrainingError(
                    f"{teacher.checkpoint}: answers {shown(some[batch[bad.argmax()]])} by NaN or "
                    "infinity, so nothing can be learned from it"
                )
            yield first + batch, logits
            done += len(batch)
            progress.move_to(done)
    progress.close()


def device_of_training() -> torch.device:
    """Return the accelerator, if there is one, and else the processor."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")

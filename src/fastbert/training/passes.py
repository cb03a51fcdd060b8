"""Single passes over all texts, before a stage: what its frozen parts say is computed once.

Training texts come first and dev after them, so that a row has one number in every stage.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.data import DataLoader

from fastbert.nn.model import FastBertModel
from fastbert.text import TextTokenizer
from fastbert.training.answers import TeacherAnswers
from fastbert.training.hidden_cache import HiddenCache
from fastbert.training.progress import Progress
from fastbert.training.stage import StageSettings
from fastbert.training.stream import TextStream, TrainingTexts, collator


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

"""What a run will do and about how long it will take, said before it starts.

One batch of the mean length runs forward and is timed. All else is counted: a step that moves the
encoder costs as much as three passes forward, one that moves the students alone little more than
one; where hidden states are kept on disk the encoder runs once, however many epochs. Neither
weights nor random numbers are touched, so a forecast changes no result.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tqdm.auto import tqdm

from fastbert.nn.model import FastBertModel
from fastbert.training.caching import saves_passes
from fastbert.training.passes import device_of_training
from fastbert.training.scheme import Scheme
from fastbert.training.stage import Part, Stage, StageSettings
from fastbert.training.stream import TrainingTexts

STEP = 3  # passes forward that a step of the encoder is worth: one forward, two backward


@dataclass(frozen=True)
class Forecast:
    """What a scheme will do.

    Args:
        scheme: Its name.
        stages: Of each stage its name, its epochs and the texts of an epoch.
        tokens: Of a text, on average.
        seconds: About how long all of it takes on this machine.
    """

    scheme: str
    stages: tuple[tuple[str, int, int], ...]
    tokens: float
    seconds: float

    def __str__(self) -> str:
        """Return it as one line."""
        each = "; ".join(
            f"{name}, {epochs} epoch{'s' if epochs > 1 else ''} of {rows:,} texts"
            for name, epochs, rows in self.stages
        )
        return (
            f"plan: scheme {self.scheme}: {each}; {self.tokens:.0f} tokens a text; "
            f"about {_shown(self.seconds)} on this machine"
        )


def announce(scheme: Scheme, model: FastBertModel, texts: TrainingTexts) -> None:
    """Say on standard error what will be done, and about how long it takes."""
    tqdm.write(str(forecast(scheme, model, texts)), file=sys.stderr)


def announce_all(
    what: str,
    first: Scheme,
    further: Mapping[str, Sequence[Stage]],
    model: FastBertModel,
    texts: TrainingTexts,
) -> None:
    """Say what will be done where several go on from one teacher.

    Args:
        what: Of which part.
        first: What all go on from.
        further: The stages of each, after that, by its name.
        model: The model, with its first weights.
        texts: What is learned from.
    """
    every = [*first.stages, *(stage for stages in further.values() for stage in stages)]
    passes = sum(forward_passes(stage, texts) for stage in every)
    seconds = passes * _seconds_of_a_row(model, texts, first.stages[0].settings)
    told = [
        f"{name} ({', '.join(f'{stage.name} {stage.settings.epochs}' for stage in stages)})"
        for name, stages in {first.name: first.stages, **further}.items()
    ]
    tqdm.write(
        f"plan: {what}: epochs of {', '.join(told)}; {len(texts.train):,} texts; "
        f"about {_shown(seconds)} on this machine",
        file=sys.stderr,
    )


def forecast(scheme: Scheme, model: FastBertModel, texts: TrainingTexts) -> Forecast:
    """Return what a scheme will do, and about how long it takes.

    Args:
        scheme: What will be done.
        model: The model, with its first weights.
        texts: What is learned from.
    """
    tokens = float(texts.train.lengths().mean())
    passes = sum(forward_passes(stage, texts) for stage in scheme.stages)
    if any(stage.taught for stage in scheme.stages):
        passes += len(texts.train) + _rows_of_dev(texts)  # the fixed teacher's answers
    seconds = passes * _seconds_of_a_row(model, texts, scheme.stages[0].settings)
    stages = tuple(
        (stage.name, stage.settings.epochs, _rows_of_epoch(stage, texts)) for stage in scheme.stages
    )
    return Forecast(scheme.name, stages, tokens, seconds)


def forward_passes(stage: Stage, texts: TrainingTexts) -> int:
    """Return how many passes of one row through the encoder a stage is worth."""
    rows, dev = _rows_of_epoch(stage, texts), _rows_of_dev(texts)
    if stage.cache_hidden_states or saves_passes(stage):
        return len(texts.train) + dev  # what is cheap, the heads, is not counted
    step = STEP if Part.BACKBONE in stage.trains else 1
    return stage.settings.epochs * (step * rows + dev)


def _rows_of_epoch(stage: Stage, texts: TrainingTexts) -> int:
    if stage.labels == "every" and texts.labels is not None:
        return len(texts.labels)
    return len(texts.train)


def _rows_of_dev(texts: TrainingTexts) -> int:
    return 0 if texts.dev is None else len(texts.dev)


@torch.no_grad()
def _seconds_of_a_row(model: FastBertModel, texts: TrainingTexts, settings: StageSettings) -> float:
    """Return how long a text of the mean length takes in a batch; the second one is timed."""
    length = max(1, round(float(texts.train.lengths().mean())))
    rows = settings.batch_size
    device = device_of_training()
    model.eval().to(device)
    some = np.resize(texts.train.ids[: rows * length], (rows, length)).astype(np.int64)
    tokens = torch.from_numpy(some).to(device)
    mask = torch.ones_like(tokens)
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.computes_bf16):
            model(tokens, mask).float().cpu()
        seconds = time.perf_counter() - start
    return seconds / rows


def _shown(seconds: float) -> str:
    """Return a time in the largest unit that leaves two digits."""
    for unit, size in (("h", 3_600), ("min", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{max(1, math.ceil(seconds))} s"

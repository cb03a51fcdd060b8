"""From a trained model to its folder: what its exits answer, the default, the figures, the card.

The held-out texts run through the model once. The calibration and every figure of the table are
replayed from that, except seconds, which are measured on a sample.
"""

import logging
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from fastbert.calibration.answerer import TORCH
from fastbert.calibration.goal import Goal
from fastbert.calibration.points import OperatingPoint
from fastbert.calibration.solve import LEAST_ROWS, Calibration
from fastbert.data.example import Example
from fastbert.evaluation import summary_of
from fastbert.exits.criteria import EntropyCriterion, ExitCriterion
from fastbert.exits.engine import classify, record
from fastbert.exits.measures import DEFAULT_MEASURE, MEASURES
from fastbert.exits.recorded import RecordedExits
from fastbert.folder.calibration import add_calibration
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.names import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from fastbert.folder.write import seal, staged_folder
from fastbert.nn.backend import TorchBackend
from fastbert.nn.model import FastBertModel
from fastbert.report.card import write_card
from fastbert.shape import ModelShape
from fastbert.tasks.task import Decisions, Task
from fastbert.text import TextTokenizer, TokenBatch, Tokens, batches_of_similar_length

SHOWN_SPEEDS = (0.0, 0.1, 0.3, 0.5, 0.8)  # in the table on the model card, with the default
TIMED_TEXTS = 320  # for the seconds of the table
BATCH = 32

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordedTexts:
    """Texts, and what all exits answered about them.

    Args:
        examples: The texts.
        recorded: The logits of every exit.
        lengths: Tokens of each text.
        truth: The right answers; None where not every text has one that the model knows.
    """

    examples: Sequence[Example]
    recorded: RecordedExits
    lengths: Int[np.ndarray, " rows"]
    truth: Decisions | None


def known_truth(task: Task, examples: Sequence[Example]) -> Decisions | None:
    """Return the right answers, if every text has one and the model knows it."""
    if any(example.label is None for example in examples):
        return None
    try:
        return task.array([example.label for example in examples])
    except ValueError:
        return None


def write_model(
    output: Path,
    model: FastBertModel,
    tokenizer: TextTokenizer,
    tokenizer_folder: Path,
    config: EarlyExitConfig,
    held_out: Sequence[Example],
    test: Sequence[Example] | None,
    source: str,
    default: Goal,
) -> None:
    """Write a trained model as a model folder, with its default and its card.

    Args:
        output: The folder.
        model: The model.
        tokenizer: Its tokenizer.
        tokenizer_folder: Where the tokenizer's files lie.
        config: What early_exit.json shall say, as far as it is known.
        held_out: Texts to choose the default on.
        test: Texts to measure on, if not on those.
        source: What to call the held-out texts: a name that may be published.
        default: What shall be reached where nobody asks for a speed or a goal.
    """
    backend = TorchBackend(model)
    shape = ModelShape.from_config(
        model.teacher.config.to_dict(),
        model.task.outputs,
        teacher_head=config.teacher_head,
        students=config.students,
    )
    dev = _record(backend, tokenizer, model.task, held_out)
    calibration = _calibration(dev, model.task, shape)
    point = None if calibration is None else calibration.solve(default)
    judged = dev if test is None else _record(backend, tokenizer, model.task, test)
    table = _table(backend, tokenizer, model.task, shape, judged, point)
    with staged_folder(output) as staging:
        model.save(staging)
        for name in (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE):  # no chat template
            shutil.copy2(tokenizer_folder / name, staging)
        config = seal(staging, replace(config, evaluation=table))
        if calibration is not None and point is not None:
            config = add_calibration(staging, config, calibration, source, point)
        write_card(staging, config, split="dev" if test is None else "test")


def _record(
    backend: TorchBackend, tokenizer: TextTokenizer, task: Task, examples: Sequence[Example]
) -> RecordedTexts:
    """Run texts through every layer, once."""
    tokens = tokenizer.encode([example.content for example in examples])
    lengths = np.array([len(row) for row in tokens])
    recorded = np.empty((backend.num_exits, len(tokens), task.outputs), np.float32)
    for rows in batches_of_similar_length(lengths, BATCH):
        recorded[:, rows] = record(backend, _batch(tokenizer, tokens, rows))
    return RecordedTexts(examples, RecordedExits(recorded), lengths, known_truth(task, examples))


def _calibration(dev: RecordedTexts, task: Task, shape: ModelShape) -> Calibration | None:
    """Return what the default is chosen from; None if the texts are too few to tell."""
    if len(dev.examples) < LEAST_ROWS:
        logger.warning(
            "%d held-out texts are too few to choose thresholds, so every layer is run by default; "
            "calibrate with at least %d", len(dev.examples), LEAST_ROWS,
        )  # fmt: skip
        return None
    truth = dev.truth
    unseen = set(task.labels) - {example.label for example in dev.examples}
    if truth is not None and unseen:
        logger.warning(
            "%d of %d classes have no dev text, such as %s, so the default is chosen by agreement "
            "with the full model", len(unseen), len(task.labels), min(unseen),
        )  # fmt: skip
        truth = None
    return Calibration(
        dev.recorded,
        truth,
        dev.lengths,
        shape,
        task,
        measure=MEASURES[DEFAULT_MEASURE](),
        answered_by=TORCH,
    )


def _table(
    backend: TorchBackend,
    tokenizer: TextTokenizer,
    task: Task,
    shape: ModelShape,
    texts: RecordedTexts,
    point: OperatingPoint | None,
) -> list[dict[str, Any]]:
    """Return the table of the model card; where nobody labelled a text, the teacher has."""
    truth = texts.truth
    if truth is None:
        truth = task.decide(texts.recorded.recorded[-1])
    settings: list[tuple[ExitCriterion, Goal | None]] = [
        (EntropyCriterion(speed), None) for speed in SHOWN_SPEEDS
    ]
    if point is not None:
        settings.append((point.criterion, point.goal))
    rows = np.unique(np.linspace(0, len(texts.examples) - 1, TIMED_TEXTS).astype(int))
    sample = [texts.examples[row].content for row in rows]
    return [
        summary_of(
            task,
            shape,
            criterion,
            goal,
            truth,
            texts.lengths,
            texts.recorded.replay(criterion),
            (len(sample), _seconds(backend, tokenizer, sample, criterion)),
        ).as_dict()
        for criterion, goal in settings
    ]


def _seconds(
    backend: TorchBackend,
    tokenizer: TextTokenizer,
    texts: Sequence[str | tuple[str, str]],
    criterion: ExitCriterion,
) -> float:
    """Return how long texts take at a setting, tokenisation included."""
    start = time.perf_counter()
    tokens = tokenizer.encode(texts)
    for rows in batches_of_similar_length([len(row) for row in tokens], BATCH):
        classify(backend, _batch(tokenizer, tokens, rows), criterion)
    return time.perf_counter() - start


def _batch(
    tokenizer: TextTokenizer, tokens: Sequence[Tokens], rows: Int[np.ndarray, " batch"]
) -> TokenBatch:
    return tokenizer.collate([tokens[row] for row in rows])

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

from fastbert.answering import Answering, encode
from fastbert.calibration.answerer import TORCH
from fastbert.calibration.goal import Goal
from fastbert.calibration.points import OperatingPoint
from fastbert.calibration.solve import LEAST_ROWS, Calibration
from fastbert.data.example import Example
from fastbert.evaluation import sample_of, summary_of
from fastbert.exits.criteria import EntropyCriterion, ExitCriterion
from fastbert.exits.recorded import RecordedExits
from fastbert.folder.calibration import add_calibration
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.followed import Followed
from fastbert.folder.names import TOKENIZER_CONFIG_FILE, TOKENIZER_FILE
from fastbert.folder.write import seal, staged_folder
from fastbert.nn.backend import TorchBackend
from fastbert.nn.model import FastBertModel
from fastbert.report.card import write_card
from fastbert.shape import ModelShape
from fastbert.tasks.metrics import agreement
from fastbert.tasks.task import Decisions, Task
from fastbert.text import Text, TextTokenizer

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


@dataclass(frozen=True)
class AnsweringTeacher:
    """Another model that taught this one, and what it said about the held-out texts.

    Args:
        name: What may be published of where it lies.
        answers: What it answered, as numbers: the right answers, where it is to be followed.
        flops: Its mean FLOPs for one of them; None where they are not known.
    """

    name: str
    answers: Decisions
    flops: float | None


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
    teacher: AnsweringTeacher | None = None,
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
        teacher: Another model that taught it, whose answers to the held-out texts are the truth.
    """
    task, shape = config.task, config.shape(model.teacher.config.to_dict())
    answering = Answering(TorchBackend(model), tokenizer, task.outputs, workers=1)
    dev = record_texts(answering, task, held_out)
    if teacher is not None:
        dev = replace(dev, truth=teacher.answers)
    elif dev.truth is not None:
        task = task.fitted(dev.recorded.recorded[-1], dev.truth)
        config = replace(config, task=task)
    calibration = _calibration(dev, task, shape, teacher)
    point = None if calibration is None else calibration.solve(default)
    if teacher is not None:
        config = replace(
            config, training=config.training | _followed(teacher, dev, task, shape, point)
        )
    judged = dev if test is None else record_texts(answering, task, test)
    table = _table(answering, task, shape, judged, point)
    with staged_folder(output) as staging:
        model.save(staging)
        for name in (TOKENIZER_FILE, TOKENIZER_CONFIG_FILE):  # no chat template
            shutil.copy2(tokenizer_folder / name, staging)
        config = seal(staging, replace(config, evaluation=table))
        if calibration is not None and point is not None:
            config = add_calibration(staging, config, calibration, source, point)
        write_card(staging, config, split="dev" if test is None else "test")


def record_texts(answering: Answering, task: Task, examples: Sequence[Example]) -> RecordedTexts:
    """Run texts through every layer, once."""
    tokens = encode(answering.tokenizer, [example.content for example in examples])
    recorded = answering.record(tokens, BATCH)
    lengths = np.array([len(row) for row in tokens])
    return RecordedTexts(examples, recorded, lengths, known_truth(task, examples))


def _followed(
    teacher: AnsweringTeacher,
    dev: RecordedTexts,
    task: Task,
    shape: ModelShape,
    point: OperatingPoint | None,
) -> dict[str, Any]:
    """Return what early_exit.json tells of the teacher, and how far it is followed at what cost."""
    every_layer = dev.recorded.replay(EntropyCriterion(0.0))
    kept, full = (
        agreement(task, task.decide(result.logits), teacher.answers)
        for result in (dev.recorded.replay(point.criterion) if point else every_layer, every_layer)
    )
    flops = float(shape.full_flops(dev.lengths).mean()) if point is None else point.flops
    return Followed(teacher.name, len(teacher.answers), kept, full, flops, teacher.flops).told()


def _calibration(
    dev: RecordedTexts, task: Task, shape: ModelShape, teacher: AnsweringTeacher | None
) -> Calibration | None:
    """Return what the default is chosen from; None if the texts are too few to tell."""
    if len(dev.examples) < LEAST_ROWS:
        logger.warning(
            "%d held-out texts are too few to choose thresholds, so every layer is run by default; "
            "calibrate with at least %d", len(dev.examples), LEAST_ROWS,
        )  # fmt: skip
        return None
    truth = dev.truth
    if teacher is None and truth is not None:
        unseen = task.unseen([example.label for example in dev.examples])
        if unseen:
            logger.warning(
                "%d of %d classes have no dev text, such as %s, so the default is chosen by "
                "agreement with the full model", len(unseen), len(task.labels), min(unseen),
            )  # fmt: skip
            truth = None
    return Calibration(
        dev.recorded,
        truth,
        dev.lengths,
        shape,
        task,
        measure=task.default_measure,
        truth_from=None if teacher is None else teacher.name,
        answered_by=TORCH,
    )


def _table(
    answering: Answering,
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
        (EntropyCriterion(speed, task.uncertainty), None) for speed in SHOWN_SPEEDS
    ]
    if point is not None:
        settings.append((point.criterion, point.goal))
    sample = sample_of(texts.examples, TIMED_TEXTS)
    return [
        summary_of(
            task,
            shape,
            criterion,
            goal,
            truth,
            texts.lengths,
            texts.recorded.replay(criterion),
            (len(sample), _seconds(answering, sample, criterion)),
        ).as_dict()
        for criterion, goal in settings
    ]


def _seconds(answering: Answering, texts: Sequence[Text], criterion: ExitCriterion) -> float:
    """Return how long texts take at a setting, tokenisation included."""
    start = time.perf_counter()
    answering.classify(texts, criterion, BATCH)
    return time.perf_counter() - start

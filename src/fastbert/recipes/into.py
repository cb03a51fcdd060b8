"""From somebody's large classifier to an adaptive model on another, smaller encoder.

The teacher is asked once about all texts; its answers lie in the run's folder, and it is gone
before training starts. They stand for labels from there on: in every stage, in the choice of the
default, and in what the model folder tells.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

from transformers import set_seed

from fastbert.calibration.goal import Goal
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Example
from fastbert.head_shapes import Heads, spelled
from fastbert.nn.foreign_teacher import ForeignTeacher
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import teacher_to_train
from fastbert.recipes.contents import Content, marked
from fastbert.recipes.forecast import announce
from fastbert.recipes.outcome import AnsweringTeacher
from fastbert.recipes.run import Run
from fastbert.recipes.run_folder import ANSWERS
from fastbert.text import TextTokenizer
from fastbert.training.answers import TeacherAnswers
from fastbert.training.passes import foreign_answers
from fastbert.training.scheme import Scheme
from fastbert.training.stage import StageSettings
from fastbert.training.stream import TrainingTexts


@dataclass(frozen=True)
class UnlabelledTexts:
    """A file of texts of which one in ten is held out.

    Args:
        path: Where it lies.
        read: Starts reading it.
        content: What was read of it.
        held_out: The texts that choose epochs and default.
    """

    path: str | Path
    read: Callable[[], Iterable[Example]]
    content: Content
    held_out: list[Example]

    def learned_from(self) -> Iterator[Example]:
        """Read the others."""
        return (row for row, is_held_out in marked(self.read()) if not is_held_out)

    def tokenised(self, run: Run, tokenizer: TextTokenizer) -> TrainingTexts:
        """Return all of them without labels, in tokens that lie in the run's folder."""
        return TrainingTexts(
            run.tokens("texts", self.learned_from(), tokenizer, ["texts"]),
            None,
            run.tokens("dev", self.held_out, tokenizer, ["texts"]),
            None,
        )


def grow(
    run: Run,
    teacher: ForeignTeacher,
    encoder: str | Path,
    texts: UnlabelledTexts,
    heads: Heads,
    scheme: Scheme,
    max_length: int,
    default: Goal,
) -> FastBertClassifier:
    """Grow an adaptive model on an encoder, by the answers of another model.

    Args:
        run: An open run.
        teacher: The other model.
        encoder: What it grows on.
        texts: What is learned from.
        heads: The heads of the students.
        scheme: How it learns, without labels.
        max_length: Longest sequence in its own tokens.
        default: What shall be reached where nobody asks for a speed or a goal.

    Raises:
        BackboneError: The encoder cannot be used, or the teacher has no trained head.
        TrainingError: There is a stopped run of other settings, the teacher answers NaN, or the
            loss is not a number.
    """
    set_seed(scheme.stages[0].settings.seed)
    model = FastBertModel(teacher_to_train(encoder, teacher.task), heads)
    settings: dict[str, Any] = {
        "texts": str(texts.path),
        "model": str(encoder),
        "teacher": str(teacher.checkpoint),
        "max_length": max_length,
        "teacher_max_length": teacher.max_length,
        "students": {"heads": spelled(model.student_shapes)},
        **scheme.told(),
    }
    tokenizer = run.begin(encoder, model, {"texts": texts.content}, settings, teacher.hashes())
    answers = _answers(run, teacher, texts, scheme.stages[0].settings)
    answering = AnsweringTeacher(
        teacher.name,
        teacher.task.decide(answers.logits[-len(texts.held_out) :]),
        teacher.flops([example.content for example in texts.held_out]),
    )
    tokenised = replace(texts.tokenised(run, tokenizer), dev_labels=answering.answers)
    announce(scheme, model, tokenised)
    learned = run.train(scheme, model, tokenizer, tokenised, answers)
    return run.finish(model, tokenizer, learned, texts.held_out, None, default, answering)


def _answers(
    run: Run, teacher: ForeignTeacher, texts: UnlabelledTexts, settings: StageSettings
) -> TeacherAnswers:
    """Return what the teacher answers, to the texts to learn from and then to those held out."""
    rows = chain(texts.learned_from(), texts.held_out)
    return foreign_answers(
        teacher,
        (row.content for row in rows),
        texts.content.rows,
        run.folder / ANSWERS,
        settings,
        hashlib.sha256(f"held out last {texts.content.sha256}".encode()).hexdigest(),
    )

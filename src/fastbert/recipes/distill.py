"""From a fine-tuned classifier and texts to a model folder.

Either the classifier itself gets students, the second stage alone, or it teaches an adaptive model
on another encoder (`into.py`).
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from transformers import set_seed

from fastbert.calibration.goal import DEFAULT_MAX_DROP, Goal
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns, Example
from fastbert.data.read import read_examples
from fastbert.errors import DataError
from fastbert.head_shapes import spelled
from fastbert.nn.foreign_teacher import ForeignTeacher
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import trained_teacher
from fastbert.recipes.contents import (
    HELD_OUT_EVERY,
    Content,
    holding_out,
    refuse_files_inside,
)
from fastbert.recipes.into import UnlabelledTexts, grow
from fastbert.recipes.run import Run, StudentSettings
from fastbert.training.scheme import SchemeSettings, paper
from fastbert.training.scheme import into as taught_by_another
from fastbert.training.stage import refuse_several_devices


def distill(
    checkpoint: str | Path,
    texts: str | Path,
    *,
    output: str | Path,
    into: str | Path | None = None,
    columns: Columns | None = None,
    max_length: int = 128,
    teacher_max_length: int | None = None,
    students: StudentSettings | None = None,
    numbers: SchemeSettings | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
    resume: bool = False,
) -> FastBertClassifier:
    """Make a classifier that somebody has fine-tuned adaptive, from texts without labels.

    It gets students, and at speed 0 its answers stay as they are. Or, with `into`, it teaches an
    adaptive model on another encoder: it is asked once about all texts, and every exit of the new
    model, the last one included, learns from what it answered.

    One text in ten, at most 2,000, is held out: these choose the best epoch and calibrate the
    model, by agreement with the teacher.

    Args:
        checkpoint: A `*ForSequenceClassification` model: a local folder or a Hub name.
        texts: File of texts, of any size: it is streamed.
        output: The model folder to write.
        into: The pretrained encoder that the new model grows on, of any family there is here; None
            leaves the checkpoint its own.
        columns: What the columns of the file are called.
        max_length: Longest sequence in tokens of the new model; longer texts are cut.
        teacher_max_length: With `into`, the same for the teacher, in its own tokens; None for
            `max_length`.
        students: What the students look like and, without `into`, the settings of stage 2.
        numbers: With `into`, those of its stages: `imitation`, `warm_up`, `exits`, `polish`,
            `target`.
        max_drop: How much worse than with every layer the default may be, as a share; with `into`
            of the agreement with the teacher.
        resume: Go on with a run that was stopped.

    Raises:
        DataError: The file cannot be used.
        BackboneError: The checkpoint has no trained head, its family is not known (without `into`),
            or the encoder cannot be used.
        TrainingError: There is a stopped run, one of other settings, the loss is not a number, or
            the teacher answers NaN.
        ValueError: There is an argument that goes only with `into`, or only without.
    """
    students = students or StudentSettings()
    _refuse_what_is_not_read(into, teacher_max_length, students, numbers)
    default = Goal(max_drop=max_drop)
    refuse_several_devices()
    refuse_files_inside(output, texts)
    with Run.open(output, resume=resume) as run:
        read = _holding_some_out(texts, columns or Columns())
        if into is None:
            return _add_students(run, checkpoint, read, students, max_length, default)
        scheme = run.settle(taught_by_another(numbers or SchemeSettings()))
        teacher = ForeignTeacher.of(
            checkpoint, max_length if teacher_max_length is None else teacher_max_length
        )
        return grow(run, teacher, into, read, students.heads, scheme, max_length, default)


def _refuse_what_is_not_read(
    into: str | Path | None,
    teacher_max_length: int | None,
    students: StudentSettings,
    numbers: SchemeSettings | None,
) -> None:
    """Refuse settings of the other way."""
    if into is not None and students != StudentSettings(students.heads):
        raise ValueError(
            "with into, students say what they look like and no more; numbers has the settings of "
            "the stages"
        )
    with_into = {"teacher_max_length": teacher_max_length, "numbers": numbers}
    for name, value in with_into.items():
        if into is None and value is not None:
            raise ValueError(f"{name} goes with into, the encoder that a new model grows on")


def _holding_some_out(path: str | Path, columns: Columns) -> UnlabelledTexts:
    """Read a file to its end, so that no row fails after hours.

    Raises:
        DataError: It cannot be used, or is too short.
    """

    def read() -> Iterator[Example]:
        return read_examples(path, columns, needs_label=False)

    held_out: list[Example] = []
    content = Content.of(holding_out(read(), held_out))
    if not held_out:
        raise DataError(
            f"{path}: at least {HELD_OUT_EVERY} texts are needed, to hold one out on which "
            "the epoch is chosen"
        )
    return UnlabelledTexts(path, read, content, held_out)


def _add_students(
    run: Run,
    checkpoint: str | Path,
    texts: UnlabelledTexts,
    students: StudentSettings,
    max_length: int,
    default: Goal,
) -> FastBertClassifier:
    """Give a classifier its students: the paper's second stage alone."""
    students = replace(students, stage=run.settle_bf16(students.stage, "students", "stage"))
    set_seed(students.stage.seed)
    model = FastBertModel(trained_teacher(checkpoint), students.heads)
    settings: dict[str, Any] = {
        "texts": str(texts.path),
        "model": str(checkpoint),
        "max_length": max_length,
        "students": asdict(students) | {"heads": spelled(model.student_shapes)},
    }
    tokenizer = run.begin(checkpoint, model, {"texts": texts.content}, settings)
    scheme = paper(students.scheme_settings()).without_labels()
    learned = run.train(scheme, model, tokenizer, texts.tokenised(run, tokenizer))
    return run.finish(model, tokenizer, learned, texts.held_out, None, default)

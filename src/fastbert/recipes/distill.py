"""From a fine-tuned classifier and texts to a model folder: the second stage alone."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from transformers import set_seed

from fastbert.calibration.goal import DEFAULT_MAX_DROP, Goal
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns, Example
from fastbert.data.read import read_examples
from fastbert.errors import DataError
from fastbert.head_shapes import spelled
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import trained_teacher
from fastbert.recipes.contents import (
    HELD_OUT_EVERY,
    Content,
    holding_out,
    marked,
    refuse_files_inside,
)
from fastbert.recipes.outcome import known_truth
from fastbert.recipes.run import Run, StudentSettings
from fastbert.training.scheme import paper
from fastbert.training.stage import refuse_several_devices
from fastbert.training.stream import TrainingTexts


def distill(
    checkpoint: str | Path,
    texts: str | Path,
    *,
    output: str | Path,
    columns: Columns | None = None,
    max_length: int = 128,
    students: StudentSettings | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
    resume: bool = False,
) -> FastBertClassifier:
    """Give a classifier that somebody has fine-tuned its students, from texts without labels.

    One text in ten, at most 2,000, is held out: these choose the best epoch and calibrate the
    model, by agreement with the teacher. At speed 0 the answers are the checkpoint's own.

    Args:
        checkpoint: A `*ForSequenceClassification` model: a local folder or a Hub name.
        texts: File of texts, of any size: it is streamed.
        output: The model folder to write.
        columns: What the columns of the file are called.
        max_length: Longest sequence in tokens; longer texts are cut.
        students: What the students look like, and the settings of stage 2.
        max_drop: How much worse than the full model the default may be, as a share.
        resume: Go on with a run that was stopped.

    Raises:
        DataError: The file cannot be used.
        BackboneError: The checkpoint has no trained head, or its family is not known.
        TrainingError: There is a stopped run, one of other settings, or the loss is not a number.
    """
    columns, students = columns or Columns(), students or StudentSettings()
    default = Goal(max_drop=max_drop)
    refuse_several_devices()
    refuse_files_inside(output, texts)

    def read() -> Iterator[Example]:
        return read_examples(texts, columns, needs_label=False)

    with Run.open(output, resume=resume) as run:
        held_out: list[Example] = []
        content = Content.of(holding_out(read(), held_out))
        if not held_out:
            raise DataError(
                f"{texts}: at least {HELD_OUT_EVERY} texts are needed, to hold one out on which "
                "the epoch is chosen"
            )
        stage = run.settle_bf16(students.stage, "students", "stage")
        students = replace(students, stage=stage)
        set_seed(students.stage.seed)
        model = FastBertModel(trained_teacher(checkpoint), students.heads)
        tokenizer = run.begin(
            checkpoint,
            model,
            {"texts": content},
            {
                "texts": str(texts),
                "model": str(checkpoint),
                "max_length": max_length,
                "students": asdict(students) | {"heads": spelled(model.student_shapes)},
            },
        )
        learned_from = (row for row, is_held_out in marked(read()) if not is_held_out)
        learned = run.train(
            paper(students.scheme_settings()).without_labels(),
            model,
            tokenizer,
            TrainingTexts(
                run.tokens("texts", learned_from, tokenizer, ["texts"]),
                None,
                run.tokens("dev", held_out, tokenizer, ["texts"]),
                known_truth(model.task, held_out),
            ),
        )
        return run.finish(model, tokenizer, learned, held_out, None, default)

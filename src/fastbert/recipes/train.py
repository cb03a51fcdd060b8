"""From a file of labelled texts to a model folder: both stages, the default, the model card.

A run keeps its checkpoints in `OUTPUT.training` until the model folder is written, so it can be
stopped at any moment and resumed. The folder itself appears at the end, whole.
"""

from collections.abc import Iterable
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path

from transformers import set_seed

from fastbert.calibration.goal import DEFAULT_MAX_DROP, Goal
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples, read_examples
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import teacher_to_train
from fastbert.recipes.contents import Content, refuse_files_inside, warn_about
from fastbert.recipes.run import Run, StudentSettings
from fastbert.recipes.run_folder import (
    TEACHER,
)
from fastbert.shape import TeacherHead
from fastbert.tasks.labels import check_labels, label_names
from fastbert.training.fine_tune import FINE_TUNING, fine_tune
from fastbert.training.stage import StageSettings, refuse_several_devices


def train(
    train: str | Path,
    *,
    dev: str | Path,
    model: str | Path,
    output: str | Path,
    test: str | Path | None = None,
    unlabeled: str | Path | None = None,
    columns: Columns | None = None,
    max_length: int = 128,
    teacher_head: TeacherHead = "pretrained",
    fine_tuning: StageSettings = FINE_TUNING,
    label_smoothing: float = 0.0,
    students: StudentSettings | None = None,
    max_drop: float = DEFAULT_MAX_DROP,
    resume: bool = False,
) -> FastBertClassifier:
    """Train a FastBERT classifier from labelled texts and write its model folder.

    Args:
        train: File of labelled texts.
        dev: File of labelled texts that choose the best epochs and calibrate the model.
        model: The pretrained encoder: a local folder or a Hub name.
        output: The model folder to write.
        test: File of labelled texts for the table on the model card; without it dev serves.
        unlabeled: File of further texts for the students to learn from.
        columns: What the columns of the files are called.
        max_length: Longest sequence in tokens; longer texts are cut.
        teacher_head: `pretrained` gives the teacher the family's own head, `paper` the paper's.
        fine_tuning: Settings of stage 1.
        label_smoothing: Share of the probability that stage 1 spreads over all classes.
        students: What the students look like, and the settings of stage 2.
        max_drop: How much worse than the full model the default may be, as a share.
        resume: Go on with a run that was stopped.

    Raises:
        DataError: A file cannot be used.
        BackboneError: The encoder cannot be used.
        TrainingError: There is a stopped run, one of other settings, or the loss is not a number.
    """
    columns, students = columns or Columns(), students or StudentSettings()
    default = Goal(max_drop=max_drop)
    refuse_several_devices()
    refuse_files_inside(output, train, dev, test, unlabeled)
    with Run.open(output, resume=resume) as run:
        examples = load_examples(train, columns, needs_label=True)
        dev_examples = load_examples(dev, columns, needs_label=True)
        test_examples = load_examples(test, columns, needs_label=True) if test else None
        labels = label_names(examples)
        check_labels(dev_examples, labels)
        check_labels(test_examples or [], labels)
        warn_about(train, examples, {str(dev): dev_examples, str(test): test_examples or []})

        def further() -> Iterable[Example]:
            return read_examples(unlabeled, columns, needs_label=False) if unlabeled else ()

        read = {"train": Content.of(examples), "dev": Content.of(dev_examples)}
        if test:
            read["test"] = Content.of(test_examples or [])
        if unlabeled:
            read["unlabeled"] = Content.of(further())  # whole, so that no row fails after stage 1

        fine_tuning = run.settle_bf16(fine_tuning, "fine_tuning")
        student_stage = run.settle_bf16(students.stage, "students", "stage")
        students = replace(students, stage=student_stage)
        set_seed(fine_tuning.seed)
        teacher = teacher_to_train(model, labels, teacher_head, students.shape)
        fastbert = FastBertModel(teacher, students.shape)
        tokenizer = run.begin(
            model,
            fastbert,
            teacher_head,
            read,
            {
                "train": str(train),
                "dev": str(dev),
                "test": test and str(test),
                "unlabeled": unlabeled and str(unlabeled),
                "rows": [len(examples), len(dev_examples)],
                "model": str(model),
                "max_length": max_length,
                "teacher_head": teacher_head,
                "label_smoothing": label_smoothing,
                "fine_tuning": asdict(fine_tuning),
                "students": asdict(students),
            },
        )
        if not run.has_teacher(fastbert):
            history = fine_tune(
                teacher,
                tokenizer,
                examples,
                dev_examples,
                labels,
                run.folder / TEACHER,
                fine_tuning,
                label_smoothing=label_smoothing,
                resume=resume,
            )
            run.keep_teacher(fastbert, history)
        rows = sum(read[name].rows for name in ("train", "unlabeled") if name in read)
        return run.finish(
            fastbert,
            tokenizer,
            teacher_head,
            students,
            lambda: chain(examples, further()),
            rows,
            dev_examples,
            test_examples,
            default,
        )

"""From a file of labelled texts to a model folder: both stages, the default, the model card.

A run keeps its checkpoints in `OUTPUT.training` until the model folder is written, so it can be
stopped at any moment and resumed. The folder itself appears at the end, whole.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from transformers import set_seed

from fastbert.calibration.goal import DEFAULT_MAX_DROP, Goal
from fastbert.classifier import FastBertClassifier
from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples, read_examples
from fastbert.head_shapes import PaperHead, spelled
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import teacher_to_train
from fastbert.recipes.contents import Content, refuse_files_inside, warn_about
from fastbert.recipes.forecast import announce
from fastbert.recipes.outcome import known_truth
from fastbert.recipes.run import Run, StudentSettings
from fastbert.tasks.known import task_of
from fastbert.tasks.task import Task
from fastbert.text import TextTokenizer
from fastbert.training.scheme import (
    DEFAULT_SCHEME,
    FINE_TUNING,
    TOLERANCE,
    Scheme,
    scheme_named,
)
from fastbert.training.stage import StageSettings, refuse_several_devices
from fastbert.training.stream import TrainingTexts


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
    teacher_head: Literal["pretrained", "paper"] = "pretrained",
    fine_tuning: StageSettings = FINE_TUNING,
    label_smoothing: float = 0.0,
    students: StudentSettings | None = None,
    scheme: str | Scheme = DEFAULT_SCHEME,
    tolerance: float = TOLERANCE,
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
        scheme: How the exits are trained: one of `fastbert.training.scheme.SCHEMES`, or one of
            your own. That brings its own settings, so `fine_tuning`, `label_smoothing`,
            `tolerance` and those of `students` but what they look like are not read.
        tolerance: How much of the metric the last exit may lose on dev, as a share, in a scheme
            that trains all parts together; where it loses more, `paper` is done instead.
        max_drop: How much worse than the full model the default may be, as a share.
        resume: Go on with a run that was stopped.

    Raises:
        DataError: A file cannot be used.
        BackboneError: The encoder cannot be used.
        TrainingError: There is a stopped run, one of other settings, or the loss is not a number.
        ValueError: There is no scheme of that name, or the tolerance is below 0.
    """
    columns, students = columns or Columns(), students or StudentSettings()
    numbers = students.scheme_settings(
        fine_tuning, label_smoothing=label_smoothing, tolerance=tolerance
    )
    wanted = scheme if isinstance(scheme, Scheme) else scheme_named(scheme, numbers)
    default = Goal(max_drop=max_drop)
    refuse_several_devices()
    refuse_files_inside(output, train, dev, test, unlabeled)
    with Run.open(output, resume=resume) as run:
        files = LabelledFiles.load(train, dev, test, unlabeled, columns)
        chosen = run.settle(wanted)
        set_seed(chosen.stages[0].settings.seed)
        head = PaperHead() if teacher_head == "paper" else teacher_head
        fastbert = FastBertModel(teacher_to_train(model, files.task, head), students.heads)
        settings: dict[str, Any] = {
            "train": str(train),
            "dev": str(dev),
            "test": test and str(test),
            "unlabeled": unlabeled and str(unlabeled),
            "rows": [len(files.train), len(files.dev)],
            "model": str(model),
            "max_length": max_length,
            "teacher_head": teacher_head,
            **chosen.told(),
            "students": {"heads": spelled(fastbert.student_shapes)},
        }
        if scheme is not wanted:  # one of one's own brings its numbers
            settings |= {"label_smoothing": label_smoothing, "fine_tuning": asdict(fine_tuning)}
            settings["students"] = asdict(students) | settings["students"]
        tokenizer = run.begin(model, fastbert, files.contents, settings)
        tokenised = files.tokenised(run, tokenizer)
        announce(chosen, fastbert, tokenised)
        learned = run.train(chosen, fastbert, tokenizer, tokenised)
        return run.finish(fastbert, tokenizer, learned, files.dev, files.test, default)


@dataclass(frozen=True)
class LabelledFiles:
    """The files of a run, read and checked.

    Args:
        task: What the labels of training ask for.
        train: The labelled texts to learn from.
        dev: Those that choose.
        test: Those to measure on, if there are some.
        further: Starts reading the texts without labels.
        contents: What was read of each file, by name.
    """

    task: Task
    train: list[Example]
    dev: list[Example]
    test: list[Example] | None
    further: Callable[[], Iterable[Example]]
    contents: dict[str, Content]

    @classmethod
    def load(
        cls,
        train: str | Path,
        dev: str | Path,
        test: str | Path | None,
        unlabeled: str | Path | None,
        columns: Columns,
    ) -> "LabelledFiles":
        """Read the files, each to its end, so that no row fails after the first stage.

        Raises:
            DataError: A file cannot be used.
        """
        examples = load_examples(train, columns, needs_label=True)
        task = task_of(examples)
        read_labelled = partial(load_examples, columns=columns, needs_label=True, parse=task.parse)
        dev_examples = read_labelled(dev)
        test_examples = read_labelled(test) if test else None
        task.check(dev_examples)
        task.check(test_examples or [])
        warn_about(train, examples, {str(dev): dev_examples, str(test): test_examples or []})

        def further() -> Iterable[Example]:
            return read_examples(unlabeled, columns, needs_label=False) if unlabeled else ()

        read = {"train": Content.of(examples), "dev": Content.of(dev_examples)}
        if test:
            read["test"] = Content.of(test_examples or [])
        if unlabeled:
            read["unlabeled"] = Content.of(further())
        return cls(task, examples, dev_examples, test_examples, further, read)

    def tokenised(self, run: Run, tokenizer: TextTokenizer) -> TrainingTexts:
        """Return what is learned from, in tokens that lie in the run's folder."""
        contents = [name for name in ("train", "unlabeled") if name in self.contents]
        return TrainingTexts(
            run.tokens("texts", chain(self.train, self.further()), tokenizer, contents),
            known_truth(self.task, self.train),
            run.tokens("dev", self.dev, tokenizer, ["dev"]),
            known_truth(self.task, self.dev),
        )

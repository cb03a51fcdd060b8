"""Walking the stages of a scheme: what is finished is loaded, what has lost too much is given up.

Where all parts learn, the last exit can get worse than the teacher that it was, and with it what
speed 0 answers. So that stage has a contract: on dev it may lose no more than the scheme's
tolerance. Where it has lost more, the run goes back to the kept teacher, and on with the scheme's
fallback, as if that had been asked for.
"""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fastbert.nn.model import FastBertModel
from fastbert.recipes.run_folder import ANSWERS, KeptStage
from fastbert.text import TextTokenizer
from fastbert.training.answers import TeacherAnswers
from fastbert.training.passes import teacher_answers
from fastbert.training.scheme import Scheme, told
from fastbert.training.stage import Stage
from fastbert.training.stream import TrainingTexts
from fastbert.training.trainee import Trainee
from fastbert.training.trainer import refuse_without_labels, run_stage

History = dict[str, list[dict[str, float]]]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shortfall:
    """Why a scheme was given up.

    Args:
        scheme: Its name.
        fallback: The name of what was done instead.
        metric: By which both were judged on dev.
        full: What the last exit had come to.
        teacher: What it was as the teacher before.
        tolerance: How much it might have lost.
    """

    scheme: str
    fallback: str
    metric: str
    full: float
    teacher: float
    tolerance: float


@dataclass(frozen=True)
class Learned:
    """What became of a scheme.

    Args:
        history: Of each stage by its name; those of a scheme that was given up have its name
            before theirs.
        shortfall: Why it was given up, if it was.
    """

    history: History
    shortfall: Shortfall | None = None

    def told(self) -> dict[str, Any]:
        """Return what early_exit.json tells of it under `training`."""
        why = {} if self.shortfall is None else {"given_up": asdict(self.shortfall)}
        return why | {"history": self.history}


@dataclass(frozen=True)
class Walk:
    """A model, what it learns from, and where its stages are kept.

    Args:
        model: Trained in place.
        tokenizer: What made the tokens.
        texts: What is learned from.
        folder: The run's.
        resume: Go on from checkpoints that lie there.
    """

    model: FastBertModel
    tokenizer: TextTokenizer
    texts: TrainingTexts
    folder: Path
    resume: bool

    def through(self, scheme: Scheme, answers: TeacherAnswers | None = None) -> Learned:
        """Train the model by a scheme.

        Args:
            scheme: What to do.
            answers: Of another model that teaches; None where the first stages make the teacher.

        Raises:
            TrainingError: A stage needs labels and there are none, or a loss is not a number.
        """
        for stage in scheme.stages:  # before the first takes hours
            refuse_without_labels(stage, self.texts)
        fresh = {name: weight.clone() for name, weight in self.model.students.state_dict().items()}
        history: History = {}
        for stage in scheme.stages:
            if stage.taught and answers is None:
                answers = self._answers(stage)
            history[stage.name] = self._learn(stage, stage.name, answers)
            shortfall = self._shortfall(scheme, stage, history[stage.name], answers)
            if shortfall is not None and scheme.fallback is not None:
                self.model.students.load_state_dict(fresh)
                return self._instead(scheme, scheme.fallback, history, shortfall)
        return Learned(history)

    def _answers(self, stage: Stage) -> TeacherAnswers:
        """Return what the teacher answers as the stages before have left it."""
        return teacher_answers(
            self.model, self.tokenizer, self.texts, self.folder / ANSWERS, stage.settings
        )

    def _learn(
        self, stage: Stage, kept_as: str, answers: TeacherAnswers | None = None
    ) -> list[dict[str, float]]:
        """Run a stage, or load it if it is finished already; return its history."""
        kept, parts = KeptStage(self.folder, kept_as), Trainee(self.model, stage)
        history = kept.finished(parts)
        if history is None:
            history = run_stage(
                stage, self.model, self.tokenizer, self.texts, kept.work,
                answers=answers, resume=self.resume,
            )  # fmt: skip
            kept.keep(parts, history)
        return history

    def _shortfall(
        self,
        scheme: Scheme,
        stage: Stage,
        history: list[dict[str, float]],
        answers: TeacherAnswers | None,
    ) -> Shortfall | None:
        """Return how far the last exit has fallen behind the teacher that it was, if too far."""
        truth, task = self.texts.dev_labels, self.model.task
        if not (stage.trains_all and stage.taught and scheme.fallback) or scheme.tolerance is None:
            return None
        if truth is None or answers is None or not history:
            return None
        name, metric = next(iter(task.metrics.items()))
        before = task.decide(answers.logits[len(self.texts.train) :])
        best = max(history, key=lambda epoch: epoch["area"])  # the first, as the Trainer chooses
        full, teacher = best["full"], metric.score(before, truth)
        if teacher - full <= scheme.tolerance:
            return None
        return Shortfall(scheme.name, scheme.fallback.name, name, full, teacher, scheme.tolerance)

    def _instead(
        self, scheme: Scheme, fallback: Scheme, history: History, shortfall: Shortfall
    ) -> Learned:
        """Go back to the stages that both schemes begin with, and on with the fallback."""
        logger.warning(
            "%s: is given up: on dev its last exit has %s %.4f, the teacher before had %.4f, and "
            "more than the tolerance of %g is lost; going back to that teacher and on with %s",
            scheme.name, shortfall.metric, shortfall.full, shortfall.teacher, scheme.tolerance,
            fallback.name,
        )  # fmt: skip
        same = [stage.name for stage in fallback.stages if told(stage) in told(scheme.stages)]
        learned = {f"{scheme.name}.{name}": history[name] for name in history if name not in same}
        for stage in fallback.stages:
            kept_as = stage.name if stage.name in same else f"{fallback.name}.{stage.name}"
            learned[stage.name] = self._learn(stage, kept_as)
        return Learned(learned, shortfall)

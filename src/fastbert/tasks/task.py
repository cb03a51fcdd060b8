"""A task as a value: all that tells one kind of answer from another.

Everything above asks the task and never its type: how the cell of a file is read, what logits
answer, how wrong an answer is, by which names it is judged. Frozen values of NumPy alone; what a
task needs of torch stands in `fastbert.nn.objectives`, one entry for each task.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float

from fastbert.data.example import Example
from fastbert.exits.criteria import Measure

Target = Any
"""The right answer to one row, as `Task.parse` reads it: for one label out of several its name."""

Decisions = np.ndarray
"""Answers as numbers, rows on the last axis or, where a row has several, before it."""


@dataclass(frozen=True)
class Metric:
    """A way to judge the answers to some rows.

    Args:
        column: What tables and files call it.
        score: From the answers and the right ones to a figure; 1 is best, 0 is worst.
        is_mean: Whether it is one less the mean of `Task.losses`, so that a promise can be tested.
    """

    column: str
    score: Callable[[Decisions, Decisions], float]
    is_mean: bool


@runtime_checkable
class Answers(Protocol):
    """The answers to some rows as columns; what one of them is called is made when asked for."""

    def __len__(self) -> int:
        """Return the number of rows."""
        ...

    def predictions(self) -> Sequence[Any]:
        """Return a value for each row, as `predict` gives it."""
        ...

    def columns(self) -> Mapping[str, Sequence[Any]]:
        """Return what a file of answers tells, each column by name."""
        ...

    def usable(self) -> Sequence[bool]:
        """Return which rows are answered by numbers; NaN and infinity are no answer."""
        ...


@runtime_checkable
class Task(Protocol):
    """What a model answers."""

    name: ClassVar[str]
    """As early_exit.json knows it, and `problem_type` of a config.json where that has a word."""

    hub_tag: ClassVar[str]
    """As the Hugging Face Hub knows it (`pipeline_tag`)."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the outputs, in their order."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """What else tells it from another of its kind, as JSON takes it."""
        ...

    @property
    def outputs(self) -> int:
        """The width of the logits."""
        ...

    noun: ClassVar[str]
    """What one of the labels is called: a class where they exclude each other."""

    @property
    def described(self) -> str:
        """How many labels there are and how many a row may have, in words."""
        ...

    prediction_fields: ClassVar[tuple[str, ...]]
    """Those of a prediction that say what is answered."""

    pipeline_options: ClassVar[Mapping[str, Any]]
    """With what the pipeline of transformers has to be asked, to tell all that `piped` reads."""

    measures: ClassVar[tuple[str, ...]]
    """The names in `fastbert.exits.measures.MEASURES` of those that make sense of its logits."""

    uncertainty: ClassVar[Measure]
    """The paper's uncertainty, of which a `speed` is the threshold."""

    default_measure: ClassVar[Measure]
    """How doubtful an answer is, where nobody chose a measure."""

    @property
    def metrics(self) -> Mapping[str, Metric]:
        """The ways to judge answers, as goals call them; the first is the one that is meant."""
        ...

    @staticmethod
    def parse(cell: object) -> Target:
        """Read the right answer from a cell of a file.

        Raises:
            ValueError: It is none; the message says what is wrong with the cell.
        """
        ...

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse examples whose right answers are not among those of this model.

        Raises:
            DataError: There are some; the message names the first and counts them.
        """
        ...

    def array(self, targets: Sequence[Target]) -> Decisions:
        """Return right answers as numbers.

        Raises:
            ValueError: One is not among the answers of this model.
        """
        ...

    def unseen(self, targets: Iterable[Target]) -> tuple[str, ...]:
        """Return the labels about which these right answers say nothing."""
        ...

    def told(self, answer: Any) -> str:
        """Return one answer, as `decide` gives it, in words."""
        ...

    def fitted(self, logits: Float[np.ndarray, "rows outputs"], truth: Decisions) -> "Task":
        """Return the task with the settings that make most of a full model's answers."""
        ...

    def rows_of(self, right: Decisions) -> Bool[np.ndarray, "rows outputs"]:
        """Return which rows each label is about: those for which it is right."""
        ...

    def piped(self, found: Sequence[Any]) -> Decisions:
        """Return what the pipeline of transformers answered, a row each, as `decide` would."""
        ...

    def decide(self, logits: Float[np.ndarray, "*rows outputs"]) -> Decisions:
        """Return what logits answer, as numbers."""
        ...

    def losses(self, answers: Decisions, right: Decisions) -> Float[np.ndarray, "*rows"]:
        """Return how wrong each answer is, from 0 to 1."""
        ...

    def expected_losses(
        self,
        logits: Float[np.ndarray, "exits rows outputs"],
        teacher: Float[np.ndarray, "rows outputs"],
    ) -> Float[np.ndarray, "exits rows"]:
        """Return how wrong each exit's answer is if the truth is as likely as the teacher says."""
        ...

    def probabilities(
        self, logits: Float[np.ndarray, "*rows outputs"]
    ) -> Float[np.ndarray, "*rows outputs"]:
        """Return what `predict_proba` gives."""
        ...

    def answers(self, logits: Float[np.ndarray, "rows outputs"], exit_layer: np.ndarray) -> Answers:
        """Return the answers as columns, with the layer after which each was given."""
        ...

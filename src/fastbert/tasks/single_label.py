"""One label out of several: the likeliest class is the answer."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from fastbert.data.cells import name_in
from fastbert.data.example import Example
from fastbert.exits.criteria import Entropy, Measure, log_softmax, uncertainty
from fastbert.exits.measures import DEFAULT_MEASURE, MEASURES
from fastbert.tasks.labels import (
    check_labels,
    each_of_one_label,
    label_names,
    numbers_of,
    refuse_nothing_to_tell_apart,
)
from fastbert.tasks.metrics import ACCURACY, MACRO_F1
from fastbert.tasks.task import Metric


@dataclass(frozen=True)
class Prediction:
    """What one text was answered.

    Args:
        label: The most likely class.
        probabilities: The probability of each class, in the order of the model's labels.
        uncertainty: Normalised entropy of the answer: 0 is certain, 1 is a guess.
        exit_layer: How many encoder layers the text ran, counted from 1.
    """

    label: str
    probabilities: dict[str, float]
    uncertainty: float
    exit_layer: int

    @property
    def score(self) -> float:
        """The probability of the label."""
        return self.probabilities[self.label]


@dataclass(frozen=True)
class LabelAnswers:
    """The answers to some rows as columns.

    Args:
        labels: The classes.
        probabilities: Of each class.
        uncertainty: Normalised entropy of each answer.
        exit_layer: How many encoder layers each row ran, counted from 1.
    """

    labels: tuple[str, ...]
    probabilities: Float[np.ndarray, "rows classes"]
    uncertainty: Float[np.ndarray, " rows"]
    exit_layer: Int[np.ndarray, " rows"]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.exit_layer)

    def predictions(self) -> list[Prediction]:
        """Return a `Prediction` for each row."""
        return [
            Prediction(
                self.labels[best], dict(zip(self.labels, row.tolist(), strict=True)), doubt, layer
            )
            for best, row, doubt, layer in zip(
                self._best.tolist(),
                self.probabilities,
                self.uncertainty.tolist(),
                self.exit_layer.tolist(),
                strict=True,
            )
        ]

    def columns(self) -> Mapping[str, Sequence[object]]:
        """Return label, score, uncertainty and exit layer of each row."""
        return {
            "label": [self.labels[best] for best in self._best.tolist()],
            "score": self._scores.tolist(),
            "uncertainty": self.uncertainty.tolist(),
            "exit_layer": self.exit_layer.tolist(),
        }

    def usable(self) -> list[bool]:
        """Return which rows have a score that is a number."""
        return [bool(finite) for finite in np.isfinite(self._scores)]

    @property
    def _best(self) -> Int[np.ndarray, " rows"]:
        return np.asarray(self.probabilities.argmax(axis=-1))

    @property
    def _scores(self) -> Float[np.ndarray, " rows"]:
        return np.take_along_axis(self.probabilities, self._best[:, None], axis=-1)[:, 0]


@dataclass(frozen=True)
class SingleLabel:
    """One label out of several.

    Args:
        labels: The classes, in the order of the logits.

    Raises:
        ValueError: There are fewer than two, or two of one name.
    """

    name: ClassVar[str] = "single_label_classification"
    hub_tag: ClassVar[str] = "text-classification"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {"accuracy": ACCURACY, "f1": MACRO_F1}
    )
    measures: ClassVar[tuple[str, ...]] = (
        "entropy",
        "top-entropy",
        "max-probability",
        "margin",
        "energy",
        "patience",
        "confident-patience",
        "stability",
        "ensemble",
        "summed-confidence",
        "learned",
    )
    noun: ClassVar[str] = "class"
    prediction_fields: ClassVar[tuple[str, ...]] = ("label", "score")
    pipeline_options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    uncertainty: ClassVar[Measure] = Entropy()
    default_measure: ClassVar[Measure] = MEASURES[DEFAULT_MEASURE]()

    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse labels that leave nothing to tell apart."""
        refuse_nothing_to_tell_apart(self.labels)

    @property
    def settings(self) -> Mapping[str, Any]:
        """It has none."""
        return {}

    @classmethod
    def of(cls, examples: Iterable[Example]) -> "SingleLabel":
        """Return the task that labelled examples set.

        Raises:
            DataError: There are fewer than two labels, or a row has a list of them.
        """
        return cls(label_names(each_of_one_label(examples)))

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse examples with other labels.

        Raises:
            DataError: There are some; the message counts them. Or a row has a list of labels.
        """
        check_labels(each_of_one_label(examples), self.labels)

    @property
    def outputs(self) -> int:
        """One logit for each class."""
        return len(self.labels)

    @property
    def described(self) -> str:
        """Say how many classes there are."""
        return f"{len(self.labels)} classes"

    @staticmethod
    def parse(cell: object) -> str:
        """Read a label: a string, an integer, or a truth value as JSON spells it.

        Raises:
            ValueError: It is empty or something else.
        """
        return name_in(cell)

    def array(self, targets: Sequence[str]) -> Int[np.ndarray, " rows"]:
        """Return the place of each label among the classes.

        Raises:
            ValueError: One is not among them.
        """
        return numbers_of(targets, self.labels)

    def unseen(self, targets: Iterable[str]) -> tuple[str, ...]:
        """Return the classes of which there is no row, so that nothing is known about them."""
        present = set(targets)
        return tuple(label for label in self.labels if label not in present)

    def told(self, answer: Any) -> str:
        """Return one answer in words."""
        return self.labels[int(answer)]

    def fitted(
        self, logits: Float[np.ndarray, "rows classes"], truth: Int[np.ndarray, " rows"]
    ) -> "SingleLabel":
        """Return the task as it is: the likeliest class is the answer, whatever the rows are."""
        return self

    def rows_of(self, right: Int[np.ndarray, " rows"]) -> Bool[np.ndarray, "rows classes"]:
        """Return which rows are of each class."""
        return np.asarray(right[:, np.newaxis] == np.arange(self.outputs))

    def piped(self, found: Sequence[Any]) -> Int[np.ndarray, " rows"]:
        """Return the label that the pipeline of transformers gave each row."""
        return self.array([answer["label"] for answer in found])

    def decide(self, logits: Float[np.ndarray, "*rows classes"]) -> Int[np.ndarray, "*rows"]:
        """Return the likeliest class, the first of equals."""
        return np.asarray(logits.argmax(axis=-1))

    def losses(
        self, answers: Int[np.ndarray, "*rows"], right: Int[np.ndarray, "*#rows"]
    ) -> Float[np.ndarray, "*rows"]:
        """Return 1 where the answer is wrong."""
        return np.asarray(answers != right, np.float64)

    def expected_losses(
        self,
        logits: Float[np.ndarray, "exits rows classes"],
        teacher: Float[np.ndarray, "rows classes"],
    ) -> Float[np.ndarray, "exits rows"]:
        """Return how likely each answer is wrong, if classes are as likely as the teacher says."""
        likely = self.probabilities(teacher)
        return np.asarray(1 - likely[np.arange(len(likely)), self.decide(logits)])

    def probabilities(
        self, logits: Float[np.ndarray, "*rows classes"]
    ) -> Float[np.ndarray, "*rows classes"]:
        """Return the softmax."""
        return np.asarray(np.exp(log_softmax(logits)))

    def answers(
        self, logits: Float[np.ndarray, "rows classes"], exit_layer: Int[np.ndarray, " rows"]
    ) -> LabelAnswers:
        """Return the answers as columns."""
        return LabelAnswers(
            self.labels, self.probabilities(logits), uncertainty(logits), exit_layer
        )

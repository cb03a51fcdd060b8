"""Several labels at once, or none: each is a yes or no of its own."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int

from fastbert.data.cells import names_in
from fastbert.data.example import Example
from fastbert.exits.criteria import Measure
from fastbert.exits.label_measures import BinaryEntropy, SetProbability
from fastbert.tasks.labels import (
    check_labels,
    each_of_several_labels,
    label_names,
    places_of,
    refuse_nothing_to_tell_apart,
)
from fastbert.tasks.metrics import (
    LABELS_MACRO_F1,
    LABELS_MICRO_F1,
    ROWS_F1,
    labels_micro_f1,
    lacking_f1,
)
from fastbert.tasks.task import Metric

THRESHOLDS = tuple(round(step / 100, 2) for step in range(5, 96))  # that are tried


@dataclass(frozen=True)
class LabelsPrediction:
    """What one text was answered.

    Args:
        labels: Those that hold, in the order of the model's labels; maybe none.
        probabilities: The probability of each label by itself, in that order.
        uncertainty: Mean entropy of the labels' own yes or no: 0 is certain, 1 is a guess.
        exit_layer: How many encoder layers the text ran, counted from 1.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]
    uncertainty: float
    exit_layer: int


@dataclass(frozen=True)
class LabelSetAnswers:
    """The answers to some rows as columns.

    Args:
        labels: All labels of the model.
        probabilities: Of each by itself.
        held: Which of them the answer names.
        uncertainty: Mean entropy of each row's labels.
        exit_layer: How many encoder layers each row ran, counted from 1.
    """

    labels: tuple[str, ...]
    probabilities: Float[np.ndarray, "rows labels"]
    held: Bool[np.ndarray, "rows labels"]
    uncertainty: Float[np.ndarray, " rows"]
    exit_layer: Int[np.ndarray, " rows"]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.exit_layer)

    def predictions(self) -> list[LabelsPrediction]:
        """Return a `LabelsPrediction` for each row."""
        return [
            LabelsPrediction(
                tuple(names), dict(zip(self.labels, row.tolist(), strict=True)), doubt, layer
            )
            for names, row, doubt, layer in zip(
                self._names,
                self.probabilities,
                self.uncertainty.tolist(),
                self.exit_layer.tolist(),
                strict=True,
            )
        ]

    def columns(self) -> Mapping[str, Sequence[object]]:
        """Return labels, their scores, uncertainty and exit layer of each row."""
        return {
            "labels": self._names,
            "scores": [
                row[held].tolist() for row, held in zip(self.probabilities, self.held, strict=True)
            ],
            "uncertainty": self.uncertainty.tolist(),
            "exit_layer": self.exit_layer.tolist(),
        }

    def usable(self) -> list[bool]:
        """Return which rows have probabilities that are numbers."""
        return [bool(finite) for finite in np.isfinite(self.probabilities).all(axis=-1)]

    @property
    def _names(self) -> list[list[str]]:
        return [[self.labels[place] for place in np.flatnonzero(held)] for held in self.held]


@dataclass(frozen=True)
class MultiLabel:
    """Any number of labels, none included.

    Args:
        labels: The labels, in the order of the logits.
        threshold: The probability from which on a label is named.

    Raises:
        ValueError: There are fewer than two labels, or two of one name, or the threshold is no
            probability between 0 and 1.
    """

    name: ClassVar[str] = "multi_label_classification"
    hub_tag: ClassVar[str] = "text-classification"
    metrics: ClassVar[Mapping[str, Metric]] = MappingProxyType(
        {"micro-f1": LABELS_MICRO_F1, "f1": LABELS_MACRO_F1, "row-f1": ROWS_F1}
    )
    measures: ClassVar[tuple[str, ...]] = ("binary-entropy", "set-probability", "worst-label")
    noun: ClassVar[str] = "label"
    prediction_fields: ClassVar[tuple[str, ...]] = ("labels",)
    pipeline_options: ClassVar[Mapping[str, Any]] = MappingProxyType({"top_k": None})
    uncertainty: ClassVar[Measure] = BinaryEntropy()
    default_measure: ClassVar[Measure] = SetProbability()

    labels: tuple[str, ...]
    threshold: float = 0.5

    def __post_init__(self) -> None:
        """Refuse labels that leave nothing to tell apart, and a threshold that lets none or all."""
        refuse_nothing_to_tell_apart(self.labels)
        if not 0 < self.threshold < 1:
            raise ValueError(f"threshold must lie between 0 and 1, got {self.threshold}")

    @property
    def settings(self) -> Mapping[str, Any]:
        """The threshold."""
        return {"threshold": self.threshold}

    @classmethod
    def of(cls, examples: Iterable[Example]) -> "MultiLabel":
        """Return the task that labelled examples set.

        Raises:
            DataError: There are fewer than two labels.
        """
        return cls(label_names(each_of_several_labels(examples)))

    def check(self, examples: Iterable[Example]) -> None:
        """Refuse examples with other labels, or without a list of them.

        Raises:
            DataError: There are some; the message counts them.
        """
        check_labels(each_of_several_labels(examples), self.labels)

    @property
    def outputs(self) -> int:
        """One logit for each label."""
        return len(self.labels)

    @property
    def described(self) -> str:
        """Say how many labels there are, and that they do not exclude each other."""
        return f"{len(self.labels)} labels, of which a text may have any number"

    @staticmethod
    def parse(cell: object) -> tuple[str, ...]:
        """Read the labels of a row: a list of names, which may be empty.

        Raises:
            ValueError: It is no list, or one of them is no name.
        """
        return names_in(cell)

    def array(self, targets: Sequence[Sequence[str]]) -> Bool[np.ndarray, "rows labels"]:
        """Return which labels each row has.

        Raises:
            ValueError: One is not among them.
        """
        return places_of(targets, self.labels)

    def unseen(self, targets: Iterable[Sequence[str]]) -> tuple[str, ...]:
        """Return no label: a row without one says that it does not hold."""
        return ()

    def told(self, answer: Bool[np.ndarray, " labels"]) -> str:
        """Return one answer in words."""
        return ", ".join(self.labels[place] for place in np.flatnonzero(answer)) or "none"

    def fitted(
        self, logits: Float[np.ndarray, "rows labels"], truth: Bool[np.ndarray, "rows labels"]
    ) -> "MultiLabel":
        """Return the task with the threshold at which these answers have the best micro F1.

        A half names rare labels too seldom. There is one for all labels, as most have too few rows
        for one of their own.
        """
        candidates = [replace(self, threshold=threshold) for threshold in THRESHOLDS]
        return max(candidates, key=lambda task: labels_micro_f1(task.decide(logits), truth))

    def rows_of(self, right: Bool[np.ndarray, "rows labels"]) -> Bool[np.ndarray, "rows labels"]:
        """Return which rows have each label: those are what right answers tell."""
        return right

    def piped(self, found: Sequence[Any]) -> Bool[np.ndarray, "rows labels"]:
        """Return the labels to which the pipeline of transformers gives a score high enough."""
        return self.array(
            [
                [each["label"] for each in answer if each["score"] > self.threshold]
                for answer in found
            ]
        )

    def decide(self, logits: Float[np.ndarray, "*rows labels"]) -> Bool[np.ndarray, "*rows labels"]:
        """Return the labels that are likely enough."""
        return np.asarray(logits > math.log(self.threshold / (1 - self.threshold)))

    def losses(
        self, answers: Bool[np.ndarray, "*rows labels"], right: Bool[np.ndarray, "*#rows labels"]
    ) -> Float[np.ndarray, "*rows"]:
        """Return 1 - F1 of each row's set of labels: 0 where both sets are empty."""
        return lacking_f1(answers, right)

    def expected_losses(
        self,
        logits: Float[np.ndarray, "exits rows labels"],
        teacher: Float[np.ndarray, "rows labels"],
    ) -> Float[np.ndarray, "exits rows"]:
        """Return how many labels are expected to be wrong, over those that the truth has.

        Every label is as likely as the teacher says, by itself. No answer is expected to lose less
        than the teacher's: a label that is named wrongly and one that is missed weigh as the
        threshold says, which is the best one for just these weights, and what they are divided by
        is not what the answer itself names, as in F1.
        """
        likely = self.probabilities(teacher)
        named_wrongly, missed = 2 * self.threshold, 2 * (1 - self.threshold)
        wrong = np.where(self.decide(logits), named_wrongly * (1 - likely), missed * likely).sum(
            axis=-1
        )
        named = self.decide(teacher).sum(axis=-1) + likely.sum(axis=-1)
        return np.asarray(np.minimum(wrong / np.maximum(named, 1), 1))

    def probabilities(
        self, logits: Float[np.ndarray, "*rows labels"]
    ) -> Float[np.ndarray, "*rows labels"]:
        """Return the sigmoid of each label."""
        return np.asarray((1 + np.tanh(logits / 2)) / 2)  # without overflow or a warning

    def answers(
        self, logits: Float[np.ndarray, "rows labels"], exit_layer: Int[np.ndarray, " rows"]
    ) -> LabelSetAnswers:
        """Return the answers as columns."""
        doubt = self.uncertainty.doubt(logits[np.newaxis], 1)
        held = self.decide(logits)
        return LabelSetAnswers(self.labels, self.probabilities(logits), held, doubt, exit_layer)

"""Let texts leave by a rule of your own.

A measure says how doubtful an answer is, from 0 to 1. Thresholds for it are found on held-out
texts, by goal, as for the built-in ones; it works in every backend and in the report.
"""

import numpy as np
from jaxtyping import Float

from fastbert import FastBertClassifier
from fastbert.calibration.goal import Goal
from fastbert.data.example import Columns
from fastbert.data.read import load_examples
from fastbert.exits.criteria import Measure, log_softmax


class SecondGuess(Measure):
    """Twice the probability of the second likeliest class."""

    def doubt(
        self, logits: Float[np.ndarray, "exits rows classes"], exit_layer: int
    ) -> Float[np.ndarray, " rows"]:
        probabilities = np.sort(np.exp(log_softmax(logits[-1])), axis=-1)
        return np.asarray(np.minimum(2 * probabilities[:, -2], 1))


classifier = FastBertClassifier.from_pretrained("my-model")
dev = load_examples("dev.csv", Columns(), needs_label=True)
calibration = classifier.calibrate(
    [example.content for example in dev],
    [str(example.label) for example in dev],
    measure=SecondGuess(),
)
point = calibration.solve(Goal(saving=0.5))
texts = ["The film was lovely.", "The film was awful.", "It was a film."]
for text, answer in zip(texts, classifier.predict(texts, point.criterion), strict=True):
    print(f"{answer.label} after layer {answer.exit_layer}: {text}")

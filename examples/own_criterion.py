"""Let texts leave by a rule of your own.

A criterion is an object with two methods that keeps nothing between calls. This one lets a text
leave when its most likely class is probable enough, and does not run the first students at all.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from fastbert import FastBertClassifier
from fastbert.criteria import log_softmax


@dataclass(frozen=True)
class ProbabilityCriterion:
    probability: float
    first_layer: int

    def watches(self, exit_layer: int) -> bool:
        return exit_layer >= self.first_layer

    def leaves(self, logits: Float[np.ndarray, "exits rows classes"]) -> Bool[np.ndarray, " rows"]:
        latest = np.exp(log_softmax(logits[-1]))
        return np.asarray(latest.max(axis=-1) >= self.probability)


classifier = FastBertClassifier.from_pretrained("my-model")
texts = ["The film was lovely.", "The film was awful.", "It was a film."]
result = classifier.classify(texts, ProbabilityCriterion(probability=0.9, first_layer=2))
for text, number, layer in zip(texts, result.logits.argmax(-1), result.exit_layer, strict=True):
    print(f"{classifier.labels[number]} after layer {layer}: {text}")

"""Train a classifier from labelled texts, and classify.

Needs train.csv and dev.csv with the columns `text` and `label`, and an encoder: a local folder, as
here, or a Hub name such as "google-bert/bert-base-uncased".
"""

from fastbert import FastBertClassifier, train

train("train.csv", dev="dev.csv", model="my-encoder", output="my-model")

classifier = FastBertClassifier.from_pretrained("my-model")
print(classifier.default_goal)  # its thresholds were chosen on dev.csv
texts = ["The film was lovely.", "The film was awful.", "It was a film."]
for text, answer in zip(texts, classifier.predict(texts), strict=True):
    layers = f"{answer.exit_layer} of {classifier.num_layers} layers"
    print(f"{answer.label} ({answer.score:.2f}, {layers}): {text}")

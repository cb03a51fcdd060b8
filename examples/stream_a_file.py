"""Classify a file of any size, a thousand texts at a time, in constant memory.

`fastbert predict` does this from the command line. Rows that cannot be read do not stop the rest.
"""

import json
from itertools import islice

from fastbert import FastBertClassifier
from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.read import read_rows

classifier = FastBertClassifier.from_pretrained("my-model")
rows = read_rows("texts.csv", Columns(), needs_label=False)
while chunk := list(islice(rows, 1000)):
    good = [row for row in chunk if isinstance(row, Example)]
    answers = iter(classifier.predict([row.content for row in good], speed=0.5))
    for row in chunk:
        if isinstance(row, BadRow):
            print(json.dumps({"error": f"{row.place}: {row.error}"}))
        else:
            answer = next(answers)
            print(json.dumps({"label": answer.label, "exit_layer": answer.exit_layer}))

"""Classify a file of any size in constant memory.

`fastbert predict` does this from the command line. Every row gets one JSON object in answers.jsonl,
in the order of the rows; one that cannot be read gets an `error` and does not stop the rest.
"""

from fastbert import FastBertClassifier, predict_file

classifier = FastBertClassifier.from_pretrained("my-model")
found = predict_file(classifier, "texts.csv", "answers.jsonl", speed=0.5)
print(f"{found.rows} rows, {found.bad} of them without an answer")
if found.damage:
    print(f"the file cannot be read to its end: {found.damage}")

with open("answers.jsonl", encoding="utf-8") as answers:
    for _, line in zip(range(3), answers, strict=False):
        print(line.rstrip())

"""Make a classifier that you already have faster, from texts without labels.

Needs a fine-tuned `*ForSequenceClassification` checkpoint, a local folder or a Hub name, and
texts.csv with the column `text`. The checkpoint's own weights stay as they are: at speed 0 its
answers do not change.
"""

from fastbert import distill

classifier = distill("my-classifier", "texts.csv", output="my-fast-classifier")

# The last row is the default: thresholds, chosen on held-out texts, that agree on 99.5 %.
for row in classifier.config.evaluation:
    setting = row["goal"] if row["speed"] is None else f"speed {row['speed']:g}"
    print(
        f"{setting}: agrees on {row['accuracy']:.1%}, {row['speedup_flops']:.1f} times fewer FLOPs"
    )

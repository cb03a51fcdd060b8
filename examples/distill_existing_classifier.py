"""Make a classifier that you already have faster, from texts without labels.

Needs a fine-tuned `*ForSequenceClassification` checkpoint, a local folder or a Hub name, and
texts.csv with the column `text`. The checkpoint's own weights stay as they are: at speed 0 its
answers do not change.
"""

from fastbert import distill

classifier = distill("my-classifier", "texts.csv", output="my-fast-classifier")

# Held-out texts chose the speed: the fewest layers that agree with the checkpoint on 99.5 %.
for row in classifier.config.evaluation:
    chosen = " <- recommended" if row["speed"] == classifier.recommended_speed else ""
    print(
        f"speed {row['speed']:g}: agrees on {row['accuracy']:.1%}, "
        f"{row['speedup_flops']:.1f} times fewer FLOPs{chosen}"
    )

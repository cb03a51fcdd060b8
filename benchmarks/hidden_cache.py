"""Whether distilling from hidden states on disk is faster than running the backbone every epoch.

    python benchmarks/hidden_cache.py TEACHER WORK

Both ways take turns on the same 800 sst2 texts, in float32 and, where the machine has it, in
bfloat16; the time to fill the cache counts.
"""

import argparse
import shutil
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from machine import SHARED, require_shared, write_result
from stages import learn
from students import MAX_LENGTH, Trial

from fastbert.data.example import Columns, Example
from fastbert.data.read import load_examples
from fastbert.nn.model import FastBertModel
from fastbert.nn.teachers import trained_teacher
from fastbert.text import TextTokenizer
from fastbert.training.scheme import DISTILLATION, SchemeSettings, paper
from fastbert.training.stage import has_native_bf16

ROWS, EPOCHS, TURNS = 800, 5, 3


def main() -> None:
    """Time both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teacher", type=Path)
    parser.add_argument("work", type=Path)
    options = parser.parse_args()
    require_shared()
    torch.set_num_threads(2)
    texts = load_examples(SHARED / "data/sst2/train.parquet", Columns(), needs_label=False)[:ROWS]
    results = []
    for bf16 in sorted({False, has_native_bf16()}):
        seconds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(TURNS):
            for cached, taken in seconds.items():
                taken.append(time_distillation(options.teacher, texts, options.work, cached, bf16))
        ratios = [live / cached for live, cached in zip(seconds[False], seconds[True], strict=True)]
        results.append(
            {
                "bf16": bf16,
                "live_seconds": seconds[False],
                "cached_seconds": seconds[True],
                "live_over_cached": statistics.median(ratios),
            }
        )
        print(results[-1])
    write_result("hidden_cache", {"rows": ROWS, "epochs": EPOCHS, "results": results})


def time_distillation(
    teacher: Path, texts: list[Example], work: Path, cached: bool, bf16: bool
) -> float:
    """Return the seconds of stage 2 from its first text to its last step."""
    model = FastBertModel(trained_teacher(teacher), Trial.heads)
    tokenizer = TextTokenizer.from_folder(teacher, MAX_LENGTH)
    stage = replace(DISTILLATION, epochs=EPOCHS, bf16=bf16, checkpoint_steps=10_000)
    start = time.perf_counter()
    settings = SchemeSettings(distillation=stage, cache_hidden_states=cached)
    _, students = paper(settings).stages
    learn(students, model, tokenizer, texts, [], work)
    taken = time.perf_counter() - start
    shutil.rmtree(work)
    return taken


if __name__ == "__main__":
    main()

"""Whether `fastbert train` does its work once: this checkout against another one, taking turns.

    python benchmarks/work_once.py OTHER WORK [--rounds 3] [--epochs 3] [--distill-epochs 5]

OTHER is the root of another checkout, such as `git worktree add OTHER COMMIT` makes. Both train on
the same 5,000 rows of sst2, in turns that change who begins, then calibrate and report on the same
folder with an export in it. Beside the wall time of each command stands, part by part, how often
and how long it tokenised, hashed, read weights, ran rows through the model for inference, and
copied files.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from machine import ENCODER, SHARED, require_shared, write_result

from fastbert.data.example import Columns
from fastbert.data.read import load_examples

ROOT = Path(__file__).parents[1]
ROWS = {"train": 5_000, "dev": 872, "test": 1_821}

# Runs a command and counts; the names of what is counted are the same in both checkouts.
COUNTED = """
import atexit, functools, hashlib, json, os, sys, time, shutil
parts = {}

def counted(part, function, size):
    def wrapper(*arguments, **options):
        start = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            calls, units, seconds = parts.get(part, (0, 0, 0.0))
            took = time.perf_counter() - start
            parts[part] = calls + 1, units + size(*arguments, **options), seconds + took
    return functools.wraps(function)(wrapper)

started = time.perf_counter()
size_of = lambda file, *_: os.fstat(file.fileno()).st_size
hashlib.file_digest = counted("bytes hashed", hashlib.file_digest, size_of)
copied = lambda source, *_, **__: os.stat(source).st_size
shutil.copy2 = counted("bytes copied", shutil.copy2, copied)
from fastbert.text import TextTokenizer
TextTokenizer.encode = counted("texts tokenised", TextTokenizer.encode, lambda _, texts: len(texts))
from fastbert.nn.backend import TorchBackend
TorchBackend.start = counted("rows embedded", TorchBackend.start, lambda _, batch: len(batch))
TorchBackend.advance = counted("exits asked", TorchBackend.advance, lambda *_: 1)
from fastbert.nn.model import FastBertModel
FastBertModel.load = counted("models loaded", FastBertModel.load, lambda *_: 1)
from fastbert.cli.run import run
code = run(sys.argv[2:])
parts["whole command"] = 1, 1, time.perf_counter() - started
json.dump(parts, open(sys.argv[1], "w"))
sys.exit(code)
"""


def main() -> None:
    """Take turns, and write down medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--distill-epochs", type=int, default=5)
    options = parser.parse_args()
    require_shared()
    options.work.mkdir(parents=True, exist_ok=True)
    files = write_files(options.work)
    epochs = ["--epochs", str(options.epochs), "--distill-epochs", str(options.distill_epochs)]
    train = ["train", files["train"], "--dev", files["dev"], "--test", files["test"]]
    train += ["--model", str(ENCODER), *epochs]
    roots = {"before": options.other.resolve(), "after": ROOT}
    results: dict[str, Any] = {}
    commands = {
        "train": [*train, "--output", "NAME"],
        "export": ["export", "NAME"],
        "calibrate": ["calibrate", "NAME", files["dev"], "--runtime", "torch"],
        "report": ["report", "NAME", "--data", files["dev"], "--output", "NAME.html"],
    }
    for command, words in commands.items():
        taken: dict[str, list[Mapping[str, Any]]] = {name: [] for name in roots}
        for turn in range(1 if command == "export" else options.rounds):
            for name in sorted(roots, reverse=turn % 2 == 0):
                arguments = [word.replace("NAME", name) for word in words]
                taken[name].append(run(roots[name], options.work, arguments))
                print(command, name, json.dumps(taken[name][-1]), flush=True)
        results[command] = compared(taken)
    write_result("work_once", {"rows": ROWS, "settings": epochs, "results": results})


def write_files(work: Path) -> dict[str, str]:
    """Write the rows as JSON lines; return the names of the files."""
    names = {}
    for split, most in ROWS.items():
        path = work / f"{split}.jsonl"
        rows = load_examples(SHARED / f"data/sst2/{split}.parquet", Columns(), needs_label=True)
        lines = [json.dumps({"text": row.text, "label": row.label}) for row in rows[:most]]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        names[split] = path.name
    return names


def run(root: Path, work: Path, arguments: list[str]) -> Mapping[str, Any]:
    """Run a command with the package of a checkout, and return what was counted."""
    counts = work / "counts.json"
    environment = os.environ | {"PYTHONPATH": str(root / "src"), "HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-c", COUNTED, str(counts), *arguments],
        cwd=work, env=environment, check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    counted: Mapping[str, Any] = json.loads(counts.read_text(encoding="utf-8"))
    return counted


def compared(taken: Mapping[str, list[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return every part's calls, units and median seconds, and the median ratio of the turns."""
    parts = sorted({part for counts in taken.values() for run in counts for part in run})
    found: dict[str, Any] = {}
    for part in parts:
        figures = {}
        for name, runs in taken.items():
            calls, units, _ = runs[-1].get(part, (0, 0, 0.0))
            seconds = [run.get(part, (0, 0, 0.0))[2] for run in runs]
            figures[name] = {"calls": calls, "units": units, "seconds": seconds}
        pairs = zip(figures["before"]["seconds"], figures["after"]["seconds"], strict=True)
        ratios = [before / after for before, after in pairs if after]
        found[part] = figures | {"before_over_after": statistics.median(ratios) if ratios else None}
    return found


if __name__ == "__main__":
    main()

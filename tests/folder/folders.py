"""Small model folders, and what tests of folders do to them."""

import json
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from fastbert.files.disk import hash_of_file
from fastbert.folder import saves
from fastbert.folder.config import DefaultPoint, EarlyExitConfig, hash_of_settings
from fastbert.folder.read import ModelFolder
from fastbert.folder.strict_json import hash_of_json
from fastbert.folder.write import seal, staged_folder
from fastbert.head_shapes import MeanHead, PaperHead, QueryHead
from fastbert.tasks.single_label import SingleLabel

LABELS = ("sport", "politique", "体育")
STUDENT = np.arange(6, dtype=np.float32).reshape(2, 3)


def settings(**changes: Any) -> EarlyExitConfig:
    given: dict[str, Any] = {
        "teacher_head": "pretrained",
        "task": SingleLabel(LABELS),
        "num_layers": 4,
        "max_length": 64,
        "students": (PaperHead("mean", width=12, num_heads=3), QueryHead(5, width=6), MeanHead()),
        "default": DefaultPoint({"name": "margin"}, (0.1, 0.0, 0.3), {"max_drop": 0.01}),
        "training": {"seed": 7, "rows": [100, 20]},
        "evaluation": [{"speed": 0.3, "accuracy": 0.875}],
    }
    return EarlyExitConfig(**(given | changes))


def write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def fill(staging: Path, mark: float = 1.0, labels: tuple[str, ...] = LABELS) -> None:
    """Write the files of a model whose every tensor says `mark`, all but early_exit.json."""
    names = {str(index): label for index, label in enumerate(labels)}
    write_json(
        staging / "config.json",
        {"model_type": "bert", "num_hidden_layers": 4, "vocab_size": 9, "id2label": names},
    )
    vocabulary = {f"word{index}": index for index in range(8)}
    write_json(
        staging / "tokenizer.json",
        {"model": {"vocab": vocabulary}, "added_tokens": [{"id": 8, "content": "[MASK]"}]},
    )
    write_json(staging / "tokenizer_config.json", {"padding_side": "right"})
    save_file({"encoder": np.full((5, 7), mark, np.float32)}, staging / "model.safetensors")
    save_file({"students.0": STUDENT * mark}, staging / "students.safetensors")
    (staging / "README.md").write_text(f"# A model of {mark}\n", encoding="utf-8")


def students_of(opened: ModelFolder) -> Any:
    """Return the student, from where the torch backend reads it."""
    return load_file(opened.files["students.safetensors"].link)["students.0"]


def save(target: Path, mark: float = 1.0, **changes: Any) -> Path:
    with staged_folder(target) as staging:
        config = settings(**changes)
        fill(staging, mark, config.labels)
        seal(staging, config)
    return target


def content(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


FOREIGN = {
    ".git/HEAD": b"ref: refs/heads/main\n",
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "LICENSE": b"mine",
    "customers.csv": b"name\nAda\n",
    "data/train.csv": b"text,label\n",
    "openvino/notes.txt": b"compiled on the small machine",
    "onnx/layer_01.onnx.bak": b"an older one",
    "pytorch_model.bin": b"a pickle",
    "vocab.txt": b"a list of somebody's",
}
EXPORT = {
    "openvino/manifest.json": b"{}",
    "openvino/layer_04.xml": b"<",
    "onnx/adaptive.onnx": b"o",
}


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Write files into a folder, as a user does who keeps them there."""
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def foreign(folder: Path) -> dict[str, bytes]:
    return {name: data for name, data in content(folder).items() if name in FOREIGN}


def names_beside(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


def edit(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    write_json(path, value)


def reseal(model: Path, **hashes: str) -> None:
    """Make the hashes agree again after an edit, as a faulty writer would."""
    path = model / "early_exit.json"
    entries = json.loads(path.read_text(encoding="utf-8"))
    for name in entries["hashes"]:
        if (model / name).is_file():
            entries["hashes"][name] = hash_of_file(model / name)
    if isinstance(entries.get("labels"), list):
        entries["hashes"]["labels"] = hash_of_json(entries["labels"])
    entries["hashes"]["settings"] = hash_of_settings(entries)
    entries["hashes"] |= hashes
    write_json(path, entries)


def putting_back(call: str, arguments: tuple[Any, ...]) -> bool:
    return call == "rename" and Path(arguments[0]).name == "old-0"


PROGRAM = f"""
import os, signal, sys
sys.path[:0] = [{str(Path(__file__).parents[2])!r}]
from pathlib import Path
from tests.folder.folders import *
target = Path(sys.argv[1])
"""


def start(program: str, target: Path, *arguments: str) -> "subprocess.Popen[str]":
    source = PROGRAM + textwrap.dedent(program)
    command = [sys.executable, "-c", source, str(target), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed_between_renames(model: Path) -> Path:
    """Move a folder to where a save that was killed leaves it, and return that place."""
    work = Path(tempfile.mkdtemp(prefix=saves._prefix(model), dir=model.parent))
    (work / "lock").touch()
    return model.rename(work / "old-0")

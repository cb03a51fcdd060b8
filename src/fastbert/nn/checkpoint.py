"""What is wrong with a checkpoint that cannot be loaded, in words that name the file.

transformers and safetensors say what they stumbled over, not in which file and not why. These
checks look at a local folder before either does; a name on the Hub has none to look at yet.
"""

import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open

from fastbert.data.diagnosis import LFS_POINTER
from fastbert.errors import BackboneError
from fastbert.files.disk import hash_of_file

CONFIG, ADAPTER, WEIGHTS = "config.json", "adapter_config.json", "model.safetensors"
INDEX, PICKLED = f"{WEIGHTS}.index.json", "pytorch_model.bin"
JSON_FILES = (CONFIG, "tokenizer.json", "tokenizer_config.json", "added_tokens.json", "vocab.json")
VOCABULARIES = ("vocab.txt", "merges.txt", "bpe.codes", "*.model")
OTHER_FORMATS = {"*.gguf": "GGUF", "*.onnx": "ONNX", "tf_model.h5": "TensorFlow"}


def refuse_unreadable(checkpoint: str | Path) -> None:
    """Say what is wrong with a local checkpoint, as far as its files tell.

    Raises:
        BackboneError: A file is a Git LFS pointer, damaged or missing, or the folder holds what
            another tool writes.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        return
    _refuse_what_is_no_model(folder)
    for pattern in (*JSON_FILES, *VOCABULARIES):
        for path in sorted(folder.glob(pattern)):
            _refuse_pointer(path)
            if pattern in JSON_FILES:
                _read_json(path)
    for path in _weights(folder):
        _refuse_pointer(path)
        _refuse_damaged(path)


def hashes_of(checkpoint: str | Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a checkpoint that decides what is loaded, by name.

    Args:
        checkpoint: A local folder, or a name on the Hub that has been loaded before.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        cached = try_to_load_from_cache(str(checkpoint), CONFIG)
        if not isinstance(cached, str):
            return {}
        folder = Path(cached).parent
    named = {path for name in (*JSON_FILES, *VOCABULARIES) for path in folder.glob(name)}
    return {path.name: hash_of_file(path) for path in sorted(named | set(_weights(folder)))}


def refuse_unreadable_tokenizer(checkpoint: str | Path) -> None:
    """Say what the tokenizer of a local checkpoint lacks.

    Without any file of it transformers makes one that knows no word, and says nothing.

    Raises:
        BackboneError: There is no file of it, or SentencePiece's alone and nothing to convert it
            with.
    """
    folder = Path(checkpoint)
    if not folder.is_dir():
        return
    names = (*JSON_FILES[1:], *VOCABULARIES)
    if not any(path for name in names for path in folder.glob(name)):
        raise BackboneError(
            f"{checkpoint}: has no tokenizer, such as a tokenizer.json; save it there beside the "
            "model"
        )
    if (folder / "tokenizer.json").exists() or not any(folder.glob("*.model")):
        return
    needed = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf"}
    missing = [package for package, module in needed.items() if not _is_installed(module)]
    if missing:
        raise BackboneError(
            f"{checkpoint}: its tokenizer needs {' and '.join(missing)}: "
            f"pip install {' '.join(missing)}"
        )


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of a dotted name the first part
        return False


def _refuse_pointer(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) == LFS_POINTER:
            raise BackboneError(
                f"{path}: is a Git LFS pointer, its content was not downloaded; get it in its "
                "repository by: git lfs pull"
            )


def _refuse_what_is_no_model(folder: Path) -> None:
    """Refuse folders of other tools, and such as have no config.json or no safetensors."""
    has_config = (folder / CONFIG).exists()
    has_weights = any((folder / name).exists() for name in (WEIGHTS, INDEX))
    if has_config and has_weights:
        return
    if (folder / ADAPTER).exists():
        base = _read_json(folder / ADAPTER).get("base_model_name_or_path")
        raise BackboneError(
            f"{folder}: holds a LoRA adapter of {base}; merge it first, with peft: "
            f"AutoPeftModelForSequenceClassification.from_pretrained({str(folder)!r})"
            ".merge_and_unload().save_pretrained(MERGED), and its tokenizer beside it"
        )
    inner = folder / "0_Transformer"  # where sentence-transformers kept its encoder
    if not has_config and (inner / CONFIG).exists():
        raise BackboneError(f"{folder}: a sentence-transformers model; name its encoder, {inner}")
    if has_config and any(folder.glob("pytorch_model*.bin")):
        raise BackboneError(
            f"{folder}: has {PICKLED} and no {WEIGHTS}; pickles are never read, for they can run "
            f'code; convert it in a safe place: python -c "{_conversion(folder)}"'
        )
    _refuse_other_formats(folder)
    lacking = f"{WEIGHTS} or {INDEX}" if has_config else CONFIG
    raise BackboneError(f"{folder}: not a Hugging Face checkpoint, it has no {lacking}")


def _conversion(folder: Path) -> str:
    """Return the program that converts pickled weights, and adds no head that is not there."""
    named = _read_json(folder / CONFIG).get("architectures")
    model = named[0] if isinstance(named, list) and named else "AutoModel"
    return (
        f"from transformers import {model} as Model; Model.from_pretrained('{folder}', "
        f"use_safetensors=False).save_pretrained('{folder}')"
    )


def _refuse_other_formats(folder: Path) -> None:
    for pattern, name in OTHER_FORMATS.items():
        if any(folder.rglob(pattern)):
            raise BackboneError(
                f"{folder}: holds weights for {name} only; get the checkpoint they were made "
                f"from, with {CONFIG} and {WEIGHTS}"
            )


def _weights(folder: Path) -> Iterator[Path]:
    if (folder / WEIGHTS).exists():  # which transformers prefers
        yield folder / WEIGHTS
        return
    index = _read_json(folder / INDEX).get("weight_map")
    for name in sorted(set(index.values())) if isinstance(index, dict) else []:
        if not (folder / str(name)).exists():
            raise BackboneError(
                f"{folder / str(name)}: is missing, {INDEX} names it; get the checkpoint anew"
            )
        yield folder / str(name)


def _refuse_damaged(path: Path) -> None:
    try:
        with safe_open(path, framework="numpy"):
            pass
    except SafetensorError as error:
        reason = "cut short" if "not fully covered" in str(error) else f"damaged ({error})"
        raise BackboneError(f"{path}: is {reason}; get it anew") from error


def _read_json(path: Path) -> dict[str, Any]:
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise BackboneError(f"{path}: is not JSON ({error}); get it anew") from error
    return entries if isinstance(entries, dict) else {}

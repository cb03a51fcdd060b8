"""Checkpoints that cannot be loaded: which file is at fault, and what to do about it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from fastbert.errors import BackboneError
from fastbert.nn import checkpoint as module
from fastbert.nn.teachers import save_tokenizer, teacher_to_train, trained_teacher
from fastbert.tasks.single_label import SingleLabel
from tests.tiny import tiny_classifier, tiny_encoder
from tests.tiny_data import LABELS, save_classifier, save_encoder

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def point(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / name).write_text(POINTER)

    return spoil


def empty(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def break_config(folder: Path) -> None:
    (folder / "config.json").write_text("<html>not found</html>")


def adapt(folder: Path) -> None:
    empty(folder)
    settings = {"peft_type": "LORA", "base_model_name_or_path": "someone/encoder"}
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    (folder / "adapter_model.safetensors").touch()


def pickle(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def lose_a_shard(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    tiny_classifier("bert").save_pretrained(folder, max_shard_size="20kB")
    next(folder.glob("model-00002-*")).unlink()


def keep_gguf(folder: Path) -> None:
    empty(folder)
    (folder / "model-q4.gguf").touch()


def keep_onnx(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").touch()


def keep_no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def nest(folder: Path) -> None:
    inner = folder / "0_Transformer"
    inner.mkdir()
    for path in list(folder.glob("*.*")):
        path.rename(inner / path.name)
    (folder / "modules.json").write_text("[]")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (point("model.safetensors"), r"/model\.safetensors: is a Git LFS pointer.* git lfs pull"),
        (point("config.json"), r"/config\.json: is a Git LFS pointer"),
        (point("tokenizer.json"), r"/tokenizer\.json: is a Git LFS pointer"),
        (cut, r"/model\.safetensors: is cut short; get it anew"),
        (break_config, r"/config\.json: is not JSON"),
        (adapt, r": holds a LoRA adapter of someone/encoder; merge it first.*merge_and_unload"),
        (pickle, r": has pytorch_model\.bin and no model\.safetensors; pickles are never read"),
        (lose_a_shard, r"/model-00002-of-000\d\d\.safetensors: is missing, .*index\.json names it"),
        (keep_gguf, r": holds weights for GGUF only"),
        (keep_onnx, r": holds weights for ONNX only"),
        (keep_no_weights, r": .* it has no model\.safetensors or model\.safetensors\.index\.json"),
        (nest, r": a sentence-transformers model; name its encoder, .*/0_Transformer"),
    ],
)
def test_the_file_at_fault_is_named(
    spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    folder = save_classifier(tmp_path / "checkpoint")
    spoil(folder)
    for load in (trained_teacher, lambda folder: teacher_to_train(folder, SingleLabel(LABELS))):
        with pytest.raises(BackboneError, match=f"^{folder}{message}"):
            load(folder)


@pytest.mark.parametrize("save", [save_classifier, save_encoder])
def test_the_advice_for_pickled_weights_gives_the_weights_and_no_head(
    save: Callable[[Path], Path], tmp_path: Path
) -> None:
    folder = save(tmp_path / "checkpoint")
    weights = load_file(folder / "model.safetensors")
    pickle(folder)
    with pytest.raises(BackboneError, match="pickles are never read") as refused:
        trained_teacher(folder)
    program = str(refused.value).partition('python -c "')[2].removesuffix('"')
    exec(program, {})
    converted = load_file(folder / "model.safetensors")
    assert converted.keys() == weights.keys()
    assert all(torch.equal(converted[name], weights[name]) for name in weights)


def test_weights_in_several_files_are_read(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "checkpoint")
    (folder / "model.safetensors").unlink()
    tiny_classifier("bert").save_pretrained(folder, max_shard_size="20kB")
    assert trained_teacher(folder).num_labels == 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_weights_of_half_the_size_are_read_as_float32(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "checkpoint")
    model: Any = tiny_classifier("bert")
    model.to(dtype).save_pretrained(folder)
    assert {tensor.dtype for tensor in trained_teacher(folder).parameters()} == {torch.float32}


def test_a_tokenizer_that_exists_only_in_python_is_named(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "checkpoint")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("good 1\nbad 2\n")
    (folder / "bpe.codes").write_text("#version: 0.2\n")
    settings = {"tokenizer_class": "PhobertTokenizer"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    wanted = f"^{folder}: PhobertTokenizer exists only in Python and cannot be saved as tokenizer"
    with pytest.raises(BackboneError, match=wanted):
        save_tokenizer(folder, tmp_path / "written")


def test_a_folder_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    # transformers would make one that knows no word, and train on nothing but [UNK].
    tiny_encoder("bert").save_pretrained(tmp_path)
    with pytest.raises(BackboneError, match=f"^{tmp_path}: has no tokenizer, such as"):
        save_tokenizer(tmp_path, tmp_path / "written")


def test_packages_that_a_tokenizer_needs_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_classifier(tmp_path / "checkpoint")
    (folder / "tokenizer.json").unlink()
    (folder / "spm.model").write_bytes(b"\x0a")
    there: dict[str, Any] = {"google.protobuf": True}
    monkeypatch.setattr(module, "find_spec", there.get)
    with pytest.raises(BackboneError, match=f"^{folder}: .* pip install sentencepiece$"):
        save_tokenizer(folder, tmp_path / "written")


def test_hashes_tell_what_decides_a_model_and_nothing_else(tmp_path: Path) -> None:
    folder = save_classifier(tmp_path / "checkpoint")
    before = module.hashes_of(folder)
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= before.keys()
    (folder / "README.md").write_text("words")
    assert module.hashes_of(folder) == before
    weights = load_file(folder / "model.safetensors")
    changed = {name: tensor + 1 for name, tensor in weights.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    after = module.hashes_of(folder)
    assert [name for name in before if after[name] != before[name]] == ["model.safetensors"]

"""An export is checked before it computes anything."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastbert.classifier import FastBertClassifier
from fastbert.errors import FolderError
from fastbert.folder.export import open_export, read_manifest
from fastbert.folder.read import open_folder
from fastbert.running import Precision, Runtime
from tests.exported import export_all
from tests.tiny_folder import save_model


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("model") / "model", "bert")
    export_all(folder, [("onnx", "fp32"), ("openvino", "fp32")])
    return folder


def rewrite(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        entries = json.loads((path / "manifest.json").read_text())
        change(entries)
        del entries["sha256"]  # as whoever edits it may
        (path / "manifest.json").write_text(json.dumps(entries))

    return damage


def flip(name: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        content = bytearray((path / name).read_bytes())
        content[len(content) // 2] ^= 1
        (path / name).write_bytes(content)

    return damage


def listing(name: str) -> Callable[[Path], None]:
    return rewrite(lambda entries: entries["files"].update({name: "0" * 64}))


@pytest.mark.parametrize(
    ("runtime", "precision", "bits"),
    [("onnx", "int8", 8), ("openvino", "int8", 8), ("onnx", "fp32", None)],
)
def test_an_export_of_version_0_1_is_known_to_have_activations_of_8_bits(
    original: Path, tmp_path: Path, runtime: Runtime, precision: Precision, bits: int | None
) -> None:
    folder = shutil.copytree(original, tmp_path / "model")
    rewrite(lambda it: it.pop("activation_bits") or it.update(precision=precision))(
        folder / runtime
    )
    opened = open_folder(folder)
    assert read_manifest(opened, runtime).activation_bits == bits
    assert open_export(opened, runtime).activation_bits == bits


@pytest.mark.parametrize(
    ("runtime", "damage", "message"),
    [
        ("onnx", lambda path: (path / "layer_02.onnx").unlink(), r"layer_02.onnx: is missing"),
        ("openvino", lambda path: (path / "layer_03.bin").unlink(), r"layer_03.bin: is missing"),
        ("onnx", flip("layer_01.onnx"), r"layer_01.onnx: does not match its hash"),
        ("onnx", flip("embeddings.bin"), r"embeddings.bin: does not match its hash"),
        ("openvino", flip("embeddings.bin"), r"embeddings.bin: does not match its hash"),
        (
            "onnx",
            lambda path: (path / "manifest.json").write_text("{"),
            r"manifest.json: cannot be read",
        ),
        ("onnx", rewrite(lambda it: it.pop("parity")), r"its keys must be activation_bits, exp"),
        ("onnx", rewrite(lambda it: it.update(more=1)), r"its keys must be"),
        ("onnx", rewrite(lambda it: it["parity"].pop("rows")), r"its keys must be"),
        (
            "onnx",
            rewrite(lambda it: it.update(runtime="openvino")),
            r"it speaks of openvino in fp32",
        ),
        (
            "openvino",
            rewrite(lambda it: it.update(precision="fp4")),
            r"it speaks of openvino in fp4",
        ),
        (
            "onnx",
            rewrite(lambda it: it["files"].pop("layer_04.onnx")),
            r"manifest.json: does not list layer_04.onnx",
        ),
        (
            "openvino",
            rewrite(lambda it: it["files"].pop("layer_02.bin")),
            r"manifest.json: does not list layer_02.bin",
        ),
        (
            "onnx",
            rewrite(lambda it: it["files"].pop("layer_02.bin")),
            r"layer_02.bin: is not listed in manifest.json",
        ),
        *[
            ("openvino", listing(name), rf"manifest.json: lists '{name}', which is no file of an")
            for name in ("/etc/passwd", "../config.json", "layer_05.xml", "adaptive.onnx", "")
        ],
        (
            "onnx",
            lambda path: (path / "manifest.json").write_text(
                (path / "manifest.json").read_text().replace('"fp32"', '"int8"')
            ),
            r"manifest.json: cannot be read: it was damaged or edited",
        ),
        (
            "onnx",
            rewrite(lambda it: it["exported_from"].update({"model.safetensors": "0" * 64})),
            r"was exported from another model.safetensors",
        ),
        (
            "onnx",
            rewrite(lambda it: it["exported_from"].update(labels="0" * 64)),
            r"was exported from another order of labels",
        ),
    ],
)
def test_damage_is_named_and_says_what_to_do(
    original: Path, tmp_path: Path, runtime: Any, damage: Callable[[Path], None], message: str
) -> None:
    folder = shutil.copytree(original, tmp_path / "model")
    damage(folder / runtime)
    with pytest.raises(FolderError, match=message) as caught:
        FastBertClassifier.from_pretrained(folder, runtime=runtime)
    assert f"fastbert export {folder} --runtime {runtime}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_manifest_of_version_0_1_has_no_hash_of_its_own_and_is_read(
    original: Path, tmp_path: Path, runtime: Any
) -> None:
    folder = open_folder(shutil.copytree(original, tmp_path / "model"))
    manifest = read_manifest(folder, runtime)
    rewrite(lambda _: None)(folder.path / runtime)
    assert read_manifest(folder, runtime) == manifest

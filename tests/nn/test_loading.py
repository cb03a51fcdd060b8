"""Weights of files, strictly: what does not match is named, never made up."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.nn.loading import (
    model_from_folder,
    refuse_non_finite,
    some_of,
    tensors_of,
    unmatched,
)
from tests.tiny_folder import save_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    return open_folder(save_model(tmp_path_factory.mktemp("model") / "model", "bert"))


def test_a_model_is_built_from_the_open_files(folder: ModelFolder) -> None:
    model = model_from_folder(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, folder)
    expected = tensors_of(folder.files["model.safetensors"])
    found = model.state_dict()
    assert len(expected) > 20
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert all(tensor.dtype == torch.float32 for tensor in model.parameters())


@pytest.mark.parametrize("family", ["no-such-model", "clip", None])
def test_a_family_without_a_classifier_is_refused(family: str | None, folder: ModelFolder) -> None:
    other = replace(folder, model_config={**folder.model_config, "model_type": family})
    with pytest.raises(FolderError, match=rf"config\.json: .* no classifier of '{family}'"):
        model_from_folder(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, other)


def test_a_file_that_is_not_safetensors_is_named(tmp_path: Path) -> None:
    path = tmp_path / "students.safetensors"
    path.write_bytes(b"no tensors at all")
    with pytest.raises(FolderError, match=r"students\.safetensors: cannot be read"):
        tensors_of(OpenFile(path))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_tensor_that_is_no_number_is_named(value: float, tmp_path: Path) -> None:
    good, bad = torch.ones(3), torch.tensor([1.0, value])
    path = tmp_path / "students.safetensors"
    save_file({"good": good, "bad": bad}, path)
    file = OpenFile(path)
    refuse_non_finite(file, {"good": good, "numbers": torch.tensor([1])})
    with pytest.raises(FolderError, match="tensor bad holds NaN or infinite"):
        refuse_non_finite(file, tensors_of(file))


def test_what_is_missing_or_of_another_shape_does_not_match() -> None:
    mismatched = {("a", (1,), (2,))}
    report = {"missing_keys": {"b"}, "mismatched_keys": mismatched, "unexpected_keys": {"c"}}
    assert unmatched(report) == ["a", "b"]


def test_of_many_names_a_few_are_shown() -> None:
    assert some_of(["a", "b", "c"]) == "a, b, c"
    assert some_of(list("abcde")) == "a, b, c and 2 more"

"""A folder is opened when it is whole and one model; every defect of it is named."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile
from fastbert.folder import read
from fastbert.folder.config import EarlyExitConfig
from fastbert.folder.names import HASHED_FILES
from fastbert.folder.read import check_tensors, open_folder
from fastbert.folder.write import seal, staged_folder
from fastbert.head_shapes import PaperHead
from fastbert.tasks.single_label import SingleLabel
from tests.folder.folders import (
    STUDENT,
    content,
    edit,
    fill,
    reseal,
    save,
    settings,
    students_of,
    write_json,
)


def test_a_saved_folder_is_read_back_as_it_was(model: Path) -> None:
    found = open_folder(model)

    written = settings(hashes=found.config.hashes, versions=found.config.versions)
    assert found.config == written
    assert found.path == model
    assert found.model_config["vocab_size"] == 9
    assert students_of(found).tolist() == STUDENT.tolist()


def test_the_papers_head_needs_no_labels_in_config_json(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "model") as staging:
        fill(staging)
        edit(staging / "config.json", lambda config: config.pop("id2label"))
        seal(staging, settings(teacher_head=PaperHead(width=16)))

    assert open_folder(tmp_path / "model").config.teacher_head == PaperHead(width=16)


def test_the_two_labels_that_transformers_leaves_out_are_understood(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "model") as staging:
        fill(staging)
        edit(staging / "config.json", lambda config: config.pop("id2label"))
        seal(staging, settings(task=SingleLabel(("LABEL_0", "LABEL_1"))))

    assert open_folder(tmp_path / "model").config.labels == ("LABEL_0", "LABEL_1")


def test_distilberts_own_word_for_layers_is_understood(tmp_path: Path) -> None:
    def rename(config: dict[str, Any]) -> None:
        config |= {"model_type": "distilbert", "n_layers": config.pop("num_hidden_layers")}

    with staged_folder(tmp_path / "model") as staging:
        fill(staging)
        edit(staging / "config.json", rename)
        seal(staging, settings())

    assert open_folder(tmp_path / "model").config.num_layers == 4


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    save(Path("~/model"))

    assert (tmp_path / "model").is_dir()
    assert open_folder("~/model").path == tmp_path / "model"


def test_a_relative_path_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save(Path("model"))

    assert open_folder("model").config == open_folder(tmp_path / "model").config


def test_a_folder_of_links_loads_as_in_the_hub_cache(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in model.iterdir():
        (snapshot / file.name).symlink_to(file)

    assert open_folder(snapshot).config == open_folder(model).config
    assert students_of(open_folder(snapshot)).tolist() == STUDENT.tolist()


def test_a_read_only_folder_loads(model: Path) -> None:
    for file in model.iterdir():
        file.chmod(0o444)
    model.chmod(0o555)
    model.parent.chmod(0o555)
    try:
        students_of(open_folder(model))
    finally:
        model.parent.chmod(0o755)
        model.chmod(0o755)


def test_a_path_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="nowhere: there is no such folder"):
        open_folder(tmp_path / "nowhere")


def test_a_file_is_not_a_folder(model: Path) -> None:
    with pytest.raises(FolderError, match=r"README\.md: is a file"):
        open_folder(model / "README.md")


def test_a_plain_checkpoint_is_told_how_to_be_distilled(unsealed: Path) -> None:
    with pytest.raises(FolderError, match=r"plain Hugging Face checkpoint.*`fastbert distill .*--"):
        open_folder(unsealed)


def test_another_folder_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"not a FastBERT model folder.*early_exit\.json"):
        open_folder(tmp_path)


def test_the_home_of_nobody_is_a_folder_error() -> None:
    with pytest.raises(FolderError, match="~nobody-of-that-name"):
        open_folder("~nobody-of-that-name/model")


def test_a_name_longer_than_the_system_allows_is_a_folder_error(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="cannot be read"):
        open_folder(tmp_path / ("x" * 300))
    with pytest.raises(FolderError, match="not saved"):
        save(tmp_path / ("x" * 300))


@pytest.mark.parametrize("name", HASHED_FILES)
def test_a_missing_file_is_named(model: Path, name: str) -> None:
    (model / name).unlink()

    with pytest.raises(FolderError, match=f"{name}: is missing"):
        open_folder(model)


def test_a_pickle_does_not_stand_in_for_weights(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")

    with pytest.raises(FolderError, match=r"model\.safetensors: is missing"):
        open_folder(model)


@pytest.mark.parametrize("name", HASHED_FILES)
def test_a_changed_file_does_not_match_its_hash(model: Path, name: str) -> None:
    with (model / name).open("ab") as file:
        file.write(b" ")

    with pytest.raises(FolderError, match=f"{name}: does not match the hash"):
        open_folder(model)


def test_another_models_teacher_does_not_match(model: Path, tmp_path: Path) -> None:
    other = save(tmp_path / "other", mark=2.0)
    shutil.copy(other / "model.safetensors", model / "model.safetensors")

    with pytest.raises(FolderError, match=r"model\.safetensors: does not match the hash"):
        open_folder(model)


def test_labels_in_another_order_are_refused(model: Path) -> None:
    def swap(config: dict[str, Any]) -> None:
        names = config["id2label"]
        names["0"], names["1"] = names["1"], names["0"]

    edit(model / "config.json", swap)
    reseal(model)

    with pytest.raises(FolderError, match=r"config\.json: the labels .*'politique', 'sport'"):
        open_folder(model)


@pytest.mark.parametrize("names", [{}, {"1": "a", "2": "b", "3": "c"}, ["a", "b"], {"a": "0"}, 5])
def test_labels_that_are_not_numbered_are_refused(model: Path, names: Any) -> None:
    edit(model / "config.json", lambda config: config.update(id2label=names))
    reseal(model)

    with pytest.raises(FolderError, match=r'config\.json: key "id2label"'):
        open_folder(model)


def test_another_number_of_layers_is_refused(model: Path) -> None:
    edit(model / "config.json", lambda config: config.update(num_hidden_layers=6))
    reseal(model)

    with pytest.raises(FolderError, match=r"config\.json: has 6 layers, early_exit\.json says 4"):
        open_folder(model)


@pytest.mark.parametrize("key", ["num_hidden_layers", "vocab_size"])
@pytest.mark.parametrize("value", [None, "4", True, 0, 1.5])
def test_a_config_without_a_number_that_decides_is_refused(
    model: Path, key: str, value: Any
) -> None:
    edit(model / "config.json", lambda config: config.update({key: value}))
    reseal(model)

    with pytest.raises(FolderError, match=f'config.json: key "{key}"'):
        open_folder(model)


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"model": {"vocab": {"a": 0, "b": 9}}},
        {"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 9}]},
        {"model": {"vocab": [["a", -1.0]] * 10}, "added_tokens": []},
    ],
    ids=["a word", "an added token", "a list of pieces"],
)
def test_a_vocabulary_larger_than_the_embedding_matrix_is_refused(
    model: Path, tokenizer: dict[str, Any]
) -> None:
    write_json(model / "tokenizer.json", tokenizer)
    reseal(model)

    with pytest.raises(FolderError, match=r"tokenizer\.json: the vocabulary is larger .* id 9"):
        open_folder(model)


@pytest.mark.parametrize(
    "tokenizer",
    [
        {},
        {"model": 3},
        {"model": {"vocab": None}},
        {"model": {"vocab": {}}},
        {"model": {"vocab": {"a": "b"}}},
        {"model": {"vocab": {"a": 1}}, "added_tokens": [3]},
    ],
)
def test_a_tokenizer_without_a_vocabulary_is_refused(
    model: Path, tokenizer: dict[str, Any]
) -> None:
    write_json(model / "tokenizer.json", tokenizer)
    reseal(model)

    with pytest.raises(FolderError, match=r"tokenizer\.json: has no vocabulary"):
        open_folder(model)


def test_what_was_opened_stays_what_it_was(model: Path) -> None:
    opened, before = open_folder(model), content(model)
    assert opened.is_in_place
    save(model, mark=2.0)

    for name, file in opened.files.items():
        assert file.read_bytes() == before[name] == bytes(file.mapped() or b"")
    assert students_of(opened).tolist() == STUDENT.tolist()
    assert not opened.is_in_place
    shutil.rmtree(model)
    assert students_of(opened).tolist() == STUDENT.tolist()
    assert not opened.is_in_place


def test_a_folder_that_is_replaced_while_it_is_opened_is_opened_again(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    coming = iter(range(1))

    def open_file(path: Path) -> OpenFile:
        if path.name == "students.safetensors" and next(coming, None) is not None:
            save(model, mark=2.0)
        return OpenFile(path)

    monkeypatch.setattr(read, "OpenFile", open_file)
    opened = open_folder(model)
    assert next(coming, None) is None
    assert students_of(opened)[1, 2] == 10
    assert opened.is_in_place


def test_tensors_as_expected_are_accepted() -> None:
    check_tensors("file", {"a": (2, 3), "b": ()}, {"b": (), "a": (2, 3)})


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"a": (2, 3)}, r"file: tensor b is missing, expected \[4\]$"),
        ({"a": (2, 3), "b": (4,), "c": (1,)}, r"file: tensor c is unexpected, of shape \[1\]$"),
        ({"a": (3, 2), "b": (4,)}, r"file: tensor a is \[3, 2\], expected \[2, 3\]$"),
        ({"c": (1,), "d": (), "e": ()}, r"a is missing.*b is missing.*c is unexp.*; and 2 more$"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    found: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(FolderError, match=message):
        check_tensors("file", {"a": (2, 3), "b": (4,)}, found)


def damage(content: bytes, random: np.random.Generator) -> bytes:
    """Return other bytes: one flipped, some cut off, repeated, zeroed or inserted."""
    start, stop = sorted(random.integers(0, len(content), size=2))
    middle = content[start : stop + 1]
    flipped = bytes([middle[0] ^ (1 << random.integers(8))])
    return [
        content[:start] + flipped + content[start + 1 :],
        content[:start],
        content[:stop] + middle + content[stop:],
        content[:start] + bytes(len(middle)) + content[stop + 1 :],
        content[:start] + random.bytes(5) + content[start:],
    ][random.integers(5)]


def loaded(path: Path) -> tuple[EarlyExitConfig, list[Any]]:
    found = open_folder(path)
    return found.config, students_of(found).tolist()


@pytest.mark.parametrize("seed", range(200))
def test_damage_anywhere_is_caught_or_changes_nothing(model: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    expected = loaded(model)
    file = sorted(model.iterdir())[random.integers(len(list(model.iterdir())))]
    file.write_bytes(damage(file.read_bytes(), random))

    try:
        found = loaded(model)
    except FolderError as error:
        message = str(error)
    else:
        assert file.name in ("README.md", "early_exit.json")  # a space for a line break, say
        assert found == expected
        return
    assert file.name in message
    assert "\n" not in message

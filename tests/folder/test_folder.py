import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fastbert.errors import FolderError
from fastbert.files.disk import hash_of_file
from fastbert.files.open_file import OpenFile
from fastbert.folder import read, saves
from fastbert.folder.config import DefaultPoint, EarlyExitConfig, hash_of_settings
from fastbert.folder.names import HASHED_FILES
from fastbert.folder.read import ModelFolder, check_tensors, open_folder
from fastbert.folder.saves import lies_here
from fastbert.folder.strict_json import hash_of_json
from fastbert.folder.write import copy_folder, seal, staged_folder
from fastbert.shape import StudentShape
from fastbert.tasks.single_label import SingleLabel

LABELS = ("sport", "politique", "体育")
STUDENT = np.arange(6, dtype=np.float32).reshape(2, 3)


def settings(**changes: Any) -> EarlyExitConfig:
    given: dict[str, Any] = {
        "teacher_head": "pretrained",
        "task": SingleLabel(LABELS),
        "num_layers": 4,
        "max_length": 64,
        "students": StudentShape("mean", width=12, num_heads=3),
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


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


@pytest.fixture
def unsealed(tmp_path: Path) -> Path:
    """Return a folder whose early_exit.json is still to be written."""
    staging = tmp_path / "unsealed"
    staging.mkdir()
    fill(staging)
    return staging


# What is saved is what is read.


def test_a_saved_folder_is_read_back_as_it_was(model: Path) -> None:
    found = open_folder(model)

    written = settings(hashes=found.config.hashes, versions=found.config.versions)
    assert found.config == written
    assert found.path == model
    assert found.model_config["vocab_size"] == 9
    assert students_of(found).tolist() == STUDENT.tolist()


def test_seal_returns_what_is_then_read(unsealed: Path) -> None:
    assert seal(unsealed, settings()) == open_folder(unsealed).config


def test_the_packages_that_wrote_a_folder_are_named(model: Path) -> None:
    versions = open_folder(model).config.versions

    assert versions.keys() >= {"fastbert", "tokenizers"}
    assert versions["tokenizers"][0].isdigit()


def test_the_papers_head_needs_no_labels_in_config_json(tmp_path: Path) -> None:
    with staged_folder(tmp_path / "model") as staging:
        fill(staging)
        edit(staging / "config.json", lambda config: config.pop("id2label"))
        seal(staging, settings(teacher_head="paper"))

    assert open_folder(tmp_path / "model").config.teacher_head == "paper"


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


@pytest.mark.parametrize(
    "name", ["with spaces in it", "名前 é", "x" * 200, "[a-z]*?", os.fsdecode(b"latin-\xe9")]
)
def test_any_name_will_do(tmp_path: Path, name: str) -> None:
    target = tmp_path / name / name
    save(target)
    save(target, mark=2.0)

    assert students_of(open_folder(target))[1, 2] == 10
    assert names_beside(target) == [name]


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


def test_saving_to_a_link_replaces_the_folder_it_points_to(model: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(model)
    save(link, mark=2.0)

    assert link.is_symlink()
    assert students_of(open_folder(model))[1, 2] == 10


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


def test_saved_files_are_readable_by_whom_new_files_are(model: Path, tmp_path: Path) -> None:
    # safetensors makes its files for the owner alone, so a server of another user could not read.
    (tmp_path / "new").touch()
    expected = (tmp_path / "new").stat().st_mode

    assert {file.stat().st_mode for file in model.iterdir()} == {expected}


def test_a_copy_is_the_same_model(model: Path, tmp_path: Path) -> None:
    copy_folder(open_folder(model), tmp_path / "copy")

    assert content(tmp_path / "copy") == content(model)


def test_a_copy_of_links_is_made_of_files(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in model.iterdir():
        (snapshot / file.name).symlink_to(file)
    copy_folder(open_folder(snapshot), tmp_path / "copy")

    assert content(tmp_path / "copy") == content(model)
    assert not any(file.is_symlink() for file in (tmp_path / "copy").iterdir())


def test_a_folder_can_be_copied_onto_itself(model: Path) -> None:
    before = content(model)
    copy_folder(open_folder(model), model)

    assert content(model) == before


def test_a_copy_carries_what_is_on_the_list_and_nothing_else(model: Path, tmp_path: Path) -> None:
    own = {"speed-accuracy.png": b"png", "calibration.safetensors": b"c", **EXPORT}
    put(model, own)
    expected = content(model)
    put(model, FOREIGN)
    copy_folder(open_folder(model), tmp_path / "copy")

    assert content(tmp_path / "copy") == expected
    assert not list(tmp_path.glob("copy/.*"))


def test_a_folder_that_was_replaced_since_it_was_opened_is_not_copied(
    model: Path, tmp_path: Path
) -> None:
    opened = open_folder(model)
    save(model, mark=2.0)

    with pytest.raises(FolderError, match="model: was replaced"):
        copy_folder(opened, tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


# What is not a model folder.


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


# Defects of a folder, each of them named.


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


def test_labels_reordered_in_early_exit_json_are_refused(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries["labels"].reverse())

    with pytest.raises(FolderError, match=r'early_exit\.json: key "labels"'):
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


@pytest.mark.parametrize("name", ["early_exit.json", "config.json", "tokenizer.json"])
@pytest.mark.parametrize(
    "broken",
    [b"", b"{", b"[]", b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"null", b"[" * 100_000, b"9" * 9_999],
    ids=["empty", "open", "a list", "UTF-16", "BOM", "null", "deep", "long"],
)
def test_broken_json_is_named(model: Path, name: str, broken: bytes) -> None:
    (model / name).write_bytes(broken)

    with pytest.raises(FolderError, match=f"{name}: (is not JSON|must hold a JSON object)"):
        open_folder(model)


@pytest.mark.parametrize("schema", [0, 3, 10**30])
def test_an_unknown_schema_is_refused_with_what_to_do(model: Path, schema: int) -> None:
    edit(model / "early_exit.json", lambda entries: entries.update(schema_version=schema, new=1))

    with pytest.raises(FolderError, match=r'"schema_version" is .*pip install -U fastbert-kit'):
        open_folder(model)


KEYS = list(json.loads(settings().to_json()))
PLACES: list[tuple[str, ...]] = [(key,) for key in KEYS if key != "task"]
PLACES += [("students", key) for key in ("pooling", "width", "num_heads")]
PLACES += [("default", key) for key in ("measure", "thresholds", "goal")]


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_missing_key_is_named(model: Path, place: tuple[str, ...]) -> None:
    def remove(entries: dict[str, Any]) -> None:
        *parents, key = place
        for parent in parents:
            entries = entries[parent]
        del entries[key]

    edit(model / "early_exit.json", remove)

    with pytest.raises(FolderError, match=rf'early_exit\.json: key "{".".join(place)}" is missing'):
        open_folder(model)


@pytest.mark.parametrize("place", PLACES, ids=".".join)
def test_a_value_of_the_wrong_type_is_named(model: Path, place: tuple[str, ...]) -> None:
    def spoil(entries: dict[str, Any]) -> None:
        *parents, key = place
        for parent in parents:
            entries = entries[parent]
        entries[key] = True  # neither a number nor anything else here

    edit(model / "early_exit.json", spoil)

    with pytest.raises(FolderError, match=rf'early_exit\.json: key "{".".join(place)}" must be'):
        open_folder(model)


@pytest.mark.parametrize("where", ["", "students", "hashes"])
def test_an_unknown_key_is_named(model: Path, where: str) -> None:
    def add(entries: dict[str, Any]) -> None:
        (entries[where] if where else entries)["surprise"] = "x"

    edit(model / "early_exit.json", add)

    expected = f"{where}.surprise" if where else "surprise"
    with pytest.raises(FolderError, match=rf'early_exit\.json: key "{expected}" is unknown'):
        open_folder(model)


def test_a_missing_hash_is_named(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries["hashes"].pop("model.safetensors"))

    with pytest.raises(FolderError, match=r'key "hashes\.model\.safetensors" is missing'):
        open_folder(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("labels", ["a", 3, "b"]),
        ("evaluation", [[]]),
        ("versions", {"torch": 2}),
        ("hashes", {"model.safetensors": 3}),
    ],
)
def test_an_item_of_the_wrong_type_is_named(model: Path, key: str, value: Any) -> None:
    edit(model / "early_exit.json", lambda entries: entries.update({key: value}))

    with pytest.raises(FolderError, match=rf'early_exit\.json: every item of "{key}"'):
        open_folder(model)


def test_a_threshold_that_is_no_number_is_named(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries["default"].update(thresholds=["0.5"]))

    with pytest.raises(FolderError, match=r'every item of "default\.thresholds" must be a number'):
        open_folder(model)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("teacher_head", "other"),
        ("num_layers", 0),
        ("max_length", -1),
        ("default", {"measure": {}, "thresholds": [0.5, 1.5, 0.0], "goal": None}),
        ("default", {"measure": {}, "thresholds": [0.5, 0.5], "goal": None}),
        ("labels", ["one"]),
        ("labels", ["twin", "twin"]),
        ("students", {"pooling": "last", "width": 12, "num_heads": 3}),
        ("students", {"pooling": "mean", "width": 12, "num_heads": 5}),
    ],
)
def test_a_value_outside_its_range_is_named(model: Path, key: str, value: Any) -> None:
    edit(model / "early_exit.json", lambda entries: entries.update({key: value}))
    reseal(model)

    with pytest.raises(FolderError, match=rf"early_exit\.json: .*{key}"):
        open_folder(model)


def test_settings_edited_by_hand_are_noticed(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries.update(max_length=65))

    with pytest.raises(FolderError, match=r"early_exit\.json: was damaged or edited"):
        open_folder(model)


def test_a_key_given_twice_is_refused(model: Path) -> None:
    path = model / "early_exit.json"
    path.write_text(path.read_text(encoding="utf-8").replace("{", '{"num_layers": 4,', 1), "utf-8")

    with pytest.raises(FolderError, match=r"early_exit\.json: is not JSON: a key is given twice"):
        open_folder(model)


def test_a_number_that_json_does_not_have_is_refused(model: Path) -> None:
    edit(model / "early_exit.json", lambda entries: entries["training"].update(loss=float("nan")))

    with pytest.raises(FolderError, match=r"early_exit\.json: is not JSON: NaN"):
        open_folder(model)


def test_settings_nested_too_deep_to_check_are_refused(model: Path) -> None:
    path = model / "early_exit.json"
    deep = '"training": {"a": ' + "[" * 980 + "]" * 980 + ", "
    path.write_text(path.read_text(encoding="utf-8").replace('"training": {', deep), "utf-8")

    with pytest.raises(FolderError, match=r"early_exit\.json: "):
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


# What a failed save leaves behind.


def test_a_failed_save_leaves_the_old_folder_and_nothing_else(model: Path) -> None:
    before = content(model)

    def fail() -> None:
        with staged_folder(model) as staging:
            fill(staging, mark=2.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert content(model) == before
    assert names_beside(model) == ["model"]


def test_a_failed_first_save_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        with staged_folder(tmp_path / "model") as staging:
            fill(staging)
            (staging / "students.safetensors").unlink()
            seal(staging, settings())

    with pytest.raises(FolderError, match=r"students\.safetensors"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_of_another_model_is_never_sealed(unsealed: Path) -> None:
    with pytest.raises(FolderError, match="has 4 layers"):
        seal(unsealed, settings(num_layers=5, default=None))

    assert not (unsealed / "early_exit.json").exists()


def test_a_save_replaces_the_whole_model(model: Path, tmp_path: Path) -> None:
    put(model, {"calibration.safetensors": b"c", "speed-accuracy.png": b"png", **EXPORT})
    save(model, mark=2.0)

    assert content(model) == content(save(tmp_path / "new", mark=2.0))
    assert not (model / "openvino").exists()


def test_what_a_user_keeps_in_the_folder_is_left_alone(model: Path, tmp_path: Path) -> None:
    put(model, FOREIGN | EXPORT)
    inode = (model / "data/train.csv").stat().st_ino
    (model / "link").symlink_to("data/train.csv")
    save(model, mark=2.0)
    copy_folder(open_folder(model), model)

    assert foreign(model) == FOREIGN
    assert (model / "data/train.csv").stat().st_ino == inode  # moved, not copied
    assert (model / "link").read_bytes() == FOREIGN["data/train.csv"]
    (model / "link").unlink()
    assert content(model) == content(save(tmp_path / "model2", mark=2.0)) | FOREIGN
    assert names_beside(model) == ["model", "model2"]


def test_a_name_that_is_taken_is_not_overwritten(
    model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(model, {"notes.txt": b"the old ones", "data/a.csv": b"a", "plan.txt": b"plan"})
    with staged_folder(model) as staging:
        fill(staging, mark=2.0)
        seal(staging, settings())
        put(staging, {"notes.txt": b"new ones", "data/b.csv": b"b"})

    assert (model / "notes.txt").read_bytes() == b"new ones"
    assert content(model / "data") == {"b.csv": b"b"}
    assert (model / "plan.txt").exists()
    [left] = model.parent.glob(".*/left-0")
    assert content(left) == {"notes.txt": b"the old ones", "data/a.csv": b"a"}
    [record] = caplog.records
    assert f"{model}: data, notes.txt of the folder" in record.message
    assert str(left) in record.message

    (model / "notes.txt").unlink()  # once there is room, the next save or load puts it back
    open_folder(model)
    assert (model / "notes.txt").read_bytes() == b"the old ones"
    assert content(left) == {"data/a.csv": b"a"}


def test_what_cannot_be_moved_is_kept_and_named(
    model: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(model, FOREIGN)
    real = os.rename

    def rename(source: Path, destination: Path) -> None:
        if Path(source).parent.name == "left-0":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(source, destination)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", rename)
        save(model, mark=2.0)

    [left] = model.parent.glob(".*/left-0")
    assert str(left) in caplog.text
    assert students_of(open_folder(model))[1, 2] == 10
    assert foreign(model) == FOREIGN
    assert names_beside(model) == ["model"]


def test_a_failed_save_leaves_what_a_user_keeps(model: Path) -> None:
    put(model, FOREIGN)
    test_a_failed_save_leaves_the_old_folder_and_nothing_else(model)

    assert foreign(model) == FOREIGN


@pytest.mark.parametrize("kind", ["the Hub's cache", "links", "a link of a folder"])
def test_a_folder_that_others_share_is_not_written_to(
    model: Path, tmp_path: Path, kind: str
) -> None:
    shared = tmp_path / "models--a--b" / "snapshots" / "0123abc"
    shared.parent.mkdir(parents=True)
    if kind == "the Hub's cache":  # on a disk without links
        shutil.copytree(model, shared)
    elif kind == "links":
        shared = tmp_path / "links"
        shared.mkdir()
        for file in model.iterdir():
            (shared / file.name).symlink_to(file)
    else:
        shared = model
        (tmp_path / "exports").mkdir()
        (shared / "onnx").symlink_to(tmp_path / "exports")
    before = content(shared)

    with pytest.raises(FolderError, match=r"0123abc|links|model: lies in .* of your own") as caught:
        save(shared, mark=2.0)
    assert str(caught.value).startswith(f"{shared}: ")
    assert content(shared) == before


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()

    open_folder(save(tmp_path / "model"))


def test_a_folder_of_other_files_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()

    with pytest.raises(FolderError, match=r"holds other files and no early_exit\.json"):
        save(tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "thesis.tex"]


def test_a_folder_that_fills_up_while_saving_is_not_replaced(tmp_path: Path) -> None:
    def fill_both() -> None:
        with staged_folder(tmp_path / "model"):
            (tmp_path / "model").mkdir()
            (tmp_path / "model" / "thesis.tex").touch()

    with pytest.raises(FolderError, match="holds other files"):
        fill_both()
    assert content(tmp_path) == {"model/thesis.tex": b""}


def test_a_file_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    with pytest.raises(FolderError, match="file: is a file; name a folder"):
        save(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("kib", [800, 900, 960, 1000, 1010, 1020, 1024])
def test_a_disk_that_is_really_full_leaves_the_old_folder(small_disk: Path, kib: int) -> None:
    # Every size lets the save come a file or so further before the disk is full.
    model = save(small_disk / "model")
    before = content(model)
    used = sum(file.stat().st_blocks * 512 for file in small_disk.rglob("*"))
    (small_disk / "other").write_bytes(bytes(max(0, kib * 1024 - used)))

    def save_more() -> None:
        with staged_folder(model) as staging:
            fill(staging, mark=2.0)
            save_file({"encoder": np.zeros(60_000, np.float32)}, staging / "model.safetensors")
            seal(staging, settings())

    with pytest.raises(FolderError, match=r"model: not saved, the disk is full: [\d,]+ bytes"):
        save_more()
    assert content(model) == before
    assert names_beside(model) == ["model", "other"]
    open_folder(model)


def test_a_disk_that_is_full_while_copying_is_told_as_such(model: Path, small_disk: Path) -> None:
    (small_disk / "other").write_bytes(bytes(1020 * 1024))

    with pytest.raises(FolderError, match="copy: not saved, the disk is full"):
        copy_folder(open_folder(model), small_disk / "copy")
    assert names_beside(small_disk / "copy") == ["other"]


@pytest.mark.parametrize("call", ["fsync", "mkdir", "chmod", "rename"])
@pytest.mark.parametrize("times", range(4))
def test_a_full_disk_at_any_call_leaves_the_old_folder(
    model: Path, monkeypatch: pytest.MonkeyPatch, call: str, times: int
) -> None:
    before = content(model)
    allowed = iter(range(times))
    real = getattr(os, call)

    def limited(*arguments: Any, **options: Any) -> Any:
        if next(allowed, None) is None and not putting_back(call, arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments, **options)

    monkeypatch.setattr(os, call, limited)
    message = None
    try:
        save(model, mark=2.0)
    except FolderError as error:
        message = str(error)
    monkeypatch.undo()

    if message is None:  # no more calls than allowed
        assert content(model)["README.md"] == b"# A model of 2.0\n"
    else:
        assert message.startswith(f"{model}: not saved, the disk is full")
        assert content(model) == before
    open_folder(model)
    assert names_beside(model) == ["model"]


def putting_back(call: str, arguments: tuple[Any, ...]) -> bool:
    return call == "rename" and Path(arguments[0]).name == "old-0"


def test_an_old_folder_that_cannot_be_put_back_is_kept_and_named(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = content(model)
    real = os.rename

    def one_way(source: Path, destination: Path) -> None:
        if destination == model:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        real(source, destination)

    monkeypatch.setattr(os, "rename", one_way)
    with pytest.raises(FolderError, match="could not be put back") as caught:
        save(model, mark=2.0)
    monkeypatch.undo()

    [kept] = model.parent.glob("*/old-0")
    assert str(kept) in str(caught.value)
    assert content(kept) == before
    open_folder(model)  # puts it back, for its process no longer holds the lock
    assert content(model) == before
    assert names_beside(model) == ["model"]


# Processes that die, and processes that save at the same time.

PROGRAM = f"""
import os, signal, sys
sys.path[:0] = [{str(Path(__file__).parents[2])!r}]
from pathlib import Path
from tests.folder.test_folder import *
target = Path(sys.argv[1])
"""


def start(program: str, target: Path, *arguments: str) -> "subprocess.Popen[str]":
    source = PROGRAM + textwrap.dedent(program)
    command = [sys.executable, "-c", source, str(target), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def killed_while_staging(target: Path) -> None:
    program = """
        with staged_folder(target) as staging:
            fill(staging, mark=2.0)
            print("staged", flush=True)
            signal.pause()
    """
    with start(program, target) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "staged\n"
        process.kill()
    assert process.returncode == -signal.SIGKILL


def test_a_save_that_is_killed_leaves_the_old_folder(model: Path) -> None:
    before = content(model)
    killed_while_staging(model)

    assert content(model) == before
    open_folder(model)


def test_the_next_save_removes_what_a_killed_one_left(model: Path) -> None:
    killed_while_staging(model)
    assert len(names_beside(model)) == 2

    save(model, mark=3.0)
    assert names_beside(model) == ["model"]


def test_a_save_killed_between_its_renames_is_undone_by_the_next_load(model: Path) -> None:
    before = content(model)
    program = """
        real = os.rename
        def rename(source, destination):
            if Path(source).name == "new":
                os.kill(os.getpid(), signal.SIGKILL)
            real(source, destination)
        os.rename = rename
        save(target, mark=2.0)
    """
    with start(program, model) as process:
        process.wait()
    assert process.returncode == -signal.SIGKILL
    assert not model.exists()

    open_folder(model)
    assert content(model) == before
    assert names_beside(model) == ["model"]


def killed_between_renames(model: Path) -> Path:
    """Move a folder to where a save that was killed leaves it, and return that place."""
    work = Path(tempfile.mkdtemp(prefix=saves._prefix(model), dir=model.parent))
    (work / "lock").touch()
    return model.rename(work / "old-0")


def test_a_path_of_which_the_save_was_killed_is_a_folder_of_ours(model: Path) -> None:
    assert lies_here(str(model))
    assert not lies_here(str(model.parent / "mod"))
    killed_between_renames(model)
    assert lies_here(str(model))


def test_a_load_between_the_renames_of_a_living_save_waits_for_it(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = killed_between_renames(model)
    lock = os.open(old.with_name("lock"), os.O_RDWR)
    fcntl.flock(lock, fcntl.LOCK_EX)  # as long as it lives
    waits: list[float] = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            os.rename(old, model)

    monkeypatch.setattr("fastbert.folder.saves.time.sleep", sleep)

    assert open_folder(model).config.labels == LABELS
    assert len(waits) == 2
    os.close(lock)


KILLS = {  # after so many calls; the last of each is at the end of a save
    "fsync": (0, 3, 8),
    "mkdir": (0, 1, 2, 3, 4),
    "chmod": (0, 5),
    "rename": (0, 1, 2, 3, 4, 5, 6, 8, 11, 12),
    "open": (0, 1, 9),
    "unlink": (0, 1, 6, 7),
    "rmdir": (0, 1, 2, 3),
}


@pytest.mark.parametrize(("call", "times"), [(call, n) for call, ns in KILLS.items() for n in ns])
def test_a_save_killed_at_any_call_leaves_a_whole_folder(
    model: Path, call: str, times: int
) -> None:
    put(model, FOREIGN)
    before = content(model)
    program = """
        name, times = sys.argv[2], int(sys.argv[3])
        real, calls = getattr(os, name), iter(range(times))
        def deadly(*arguments, **options):
            if next(calls, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)
        setattr(os, name, deadly)
        save(target, mark=2.0)
    """
    with start(program, model, call, str(times)) as process:
        process.wait()
    assert process.returncode == -signal.SIGKILL

    students_of(open_folder(model))
    if content(model) != before:
        assert content(model)["README.md"] == b"# A model of 2.0\n"
    assert foreign(model) == FOREIGN
    save(model, mark=3.0)
    assert content(model)["README.md"] == b"# A model of 3.0\n"
    assert foreign(model) == FOREIGN


def test_a_save_in_progress_is_not_cleaned_up_by_another(model: Path) -> None:
    with staged_folder(model) as staging:
        fill(staging, mark=2.0)
        save(model, mark=3.0)
        assert staging.is_dir()
        seal(staging, settings())

    assert students_of(open_folder(model))[1, 2] == 10  # the last one wins
    assert names_beside(model) == ["model"]


@pytest.mark.parametrize("intruders", [1, 9, 10])
def test_a_save_that_comes_between_the_renames_of_another_is_replaced_whole(
    model: Path, monkeypatch: pytest.MonkeyPatch, intruders: int
) -> None:
    put(model, FOREIGN)
    other = save(model.parent / "other", mark=4.0)
    real = os.rename
    coming = iter(range(intruders))

    def rename(source: Path, destination: Path) -> None:
        if Path(source).name == "new" and next(coming, None) is not None:
            shutil.copytree(other, destination)
        real(source, destination)

    monkeypatch.setattr(os, "rename", rename)
    message = None
    try:
        save(model, mark=2.0)
    except FolderError as error:
        message = str(error)
    monkeypatch.undo()

    assert (message is None) == (intruders < saves.SWAP_ATTEMPTS)
    if message is None:
        assert content(model)["README.md"] == b"# A model of 2.0\n"
    else:
        assert "another process keeps saving here" in message
        assert content(model) == content(other) | FOREIGN
    assert foreign(model) == FOREIGN
    assert names_beside(model) == ["model", "other"]


def test_processes_that_save_to_one_place_never_mix(model: Path) -> None:
    program = """
        for _ in range(15):
            save(target, mark=float(sys.argv[2]), training={"mark": float(sys.argv[2])})
    """
    put(model, FOREIGN)
    processes = [start(program, model, mark) for mark in ("2", "3", "4")]
    reads = 0
    while any(process.poll() is None for process in processes):
        try:
            students = students_of(found := open_folder(model))
        except FolderError:
            continue  # replaced while it was being read, and noticed
        reads += 1
        mark = found.config.training.get("mark", 1.0)
        assert students.tolist() == (STUDENT * mark).tolist()
    for process in processes:
        process.communicate()

    assert [process.returncode for process in processes] == [0, 0, 0]
    assert reads > 0
    assert names_beside(model) == ["model"]
    assert foreign(model) == FOREIGN
    last = open_folder(model)
    students = students_of(last)
    assert students.tolist() == (STUDENT * last.config.training["mark"]).tolist()


def test_a_disk_without_locks_can_be_saved_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    save(tmp_path / "model")

    assert isinstance(open_folder(tmp_path / "model"), ModelFolder)


def test_a_folder_that_names_no_task_answers_one_label(model: Path) -> None:
    def before_there_was_a_second_task(entries: dict[str, Any]) -> None:
        del entries["task"]
        entries["hashes"]["settings"] = hash_of_settings(entries)

    edit(model / "early_exit.json", before_there_was_a_second_task)
    assert open_folder(model).config.task == SingleLabel(LABELS)


def test_a_task_that_is_not_known_is_refused(model: Path) -> None:
    def another(entries: dict[str, Any]) -> None:
        entries["task"]["name"] = "juggling"
        entries["hashes"]["settings"] = hash_of_settings(entries)

    edit(model / "early_exit.json", another)
    with pytest.raises(FolderError, match=r"unknown task 'juggling'; known are single_label"):
        open_folder(model)

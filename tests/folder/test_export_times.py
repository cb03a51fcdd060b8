"""What exports took, kept by processor: read where they still lie, and otherwise nothing."""

import json
import shutil
from pathlib import Path

import pytest

from fastbert.errors import FolderError
from fastbert.folder import export_times
from fastbert.folder.export_times import ExportTimes, fastest, read_times, write_times
from fastbert.folder.names import TIMES_FILE
from fastbert.folder.read import ModelFolder, open_folder
from fastbert.running import Runtime
from tests.exported import export_all
from tests.tiny_folder import save_model

TIMES: dict[Runtime, ExportTimes] = {
    "onnx": ExportTimes(3.0, 5.0),
    "openvino": ExportTimes(2.0, 9.0),
}


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_model(tmp_path_factory.mktemp("times") / "model", "bert")
    export_all(folder, [("onnx", "fp32"), ("openvino", "fp32")])
    return folder


@pytest.fixture
def folder(exported: Path, tmp_path: Path) -> ModelFolder:
    return open_folder(shutil.copytree(exported, tmp_path / "model"))


def test_times_are_read_as_they_were_written_on_the_same_processor_alone(
    folder: ModelFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_times(folder, ["onnx", "openvino"]) == {}
    write_times(folder, TIMES)
    assert read_times(folder, ["onnx", "openvino"]) == TIMES
    monkeypatch.setattr(export_times, "processor_name", lambda: "Another")
    assert read_times(folder, ["onnx", "openvino"]) == {}
    others: dict[Runtime, ExportTimes] = {"onnx": ExportTimes(7.0, 8.0)}
    write_times(folder, others)
    assert read_times(folder, ["onnx", "openvino"]) == others
    monkeypatch.undo()
    assert read_times(folder, ["onnx", "openvino"]) == TIMES


def test_times_of_an_export_that_was_replaced_or_removed_are_gone(folder: ModelFolder) -> None:
    write_times(folder, TIMES)
    export_all(folder.path, [("onnx", "int8")])
    assert read_times(open_folder(folder.path), ["onnx", "openvino"]).keys() == {"openvino"}
    shutil.rmtree(folder.path / "openvino")
    assert read_times(open_folder(folder.path), ["onnx", "openvino"]) == {}


@pytest.mark.parametrize("damage", ["{", "[]", '{"x": 1}'])
def test_a_damaged_file_counts_as_none_and_is_written_anew(
    damage: str, folder: ModelFolder
) -> None:
    (folder.path / TIMES_FILE).write_text(damage, "utf-8")
    assert read_times(folder, ["onnx", "openvino"]) == {}
    write_times(folder, TIMES)
    assert read_times(folder, ["onnx", "openvino"]) == TIMES


def test_entries_of_another_form_count_as_none(folder: ModelFolder) -> None:
    write_times(folder, TIMES)
    path = folder.path / TIMES_FILE
    written = json.loads(path.read_text("utf-8"))
    [processor] = written
    del written[processor]["onnx"]["bulk_ms"]
    path.write_text(json.dumps(written), "utf-8")
    assert read_times(folder, ["onnx", "openvino"]).keys() == {"openvino"}


def test_times_that_cannot_be_written_are_an_error_of_one_line(folder: ModelFolder) -> None:
    (folder.path / TIMES_FILE).mkdir()
    with pytest.raises(FolderError, match=r"export_times.json: not written, .*directory"):
        write_times(folder, TIMES)


def test_the_fastest_is_so_alone_and_in_bulk_together() -> None:
    assert fastest(TIMES) == "onnx"  # 15 beside 18
    assert fastest({"a": ExportTimes(1.0, 9.0), "b": ExportTimes(4.0, 2.0)}) == "b"

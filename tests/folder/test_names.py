"""The list of what belongs to a model: whatever else lies in the folder is somebody's own."""

from pathlib import Path

from fastbert.folder.names import foreign, own_files
from tests.folder.folders import EXPORT, FOREIGN, content, put


def named(paths: list[Path]) -> set[str]:
    return {path.as_posix() for path in paths}


def test_what_lies_in_a_folder_is_on_the_list_or_foreign(model: Path) -> None:
    own = content(model).keys() | EXPORT.keys()
    put(model, FOREIGN | EXPORT)

    assert named(own_files(model)) == own
    # A folder of somebody's is named as a whole, but for what lies between the files of an export.
    assert named(foreign(model)) == {
        name if name.startswith(("openvino/", "onnx/")) else name.split("/")[0] for name in FOREIGN
    }


def test_a_folder_or_a_link_of_folders_named_like_a_file_of_ours_is_foreign(model: Path) -> None:
    (model / "speed-accuracy.png").mkdir()
    (model / "onnx").symlink_to(model)

    assert named(foreign(model)) == {"speed-accuracy.png", "onnx"}


def test_no_more_than_ninety_nine_layers_are_on_the_list(model: Path) -> None:
    put(model, {"onnx/layer_99.onnx": b"", "onnx/layer_100.onnx": b"", "onnx/layer_1.bin": b""})

    assert named(foreign(model)) == {"onnx/layer_100.onnx", "onnx/layer_1.bin"}

"""What belongs to a model folder: one list of its files.

Whatever else a user keeps in the folder is left alone, not copied and not pushed.
"""

from fnmatch import fnmatchcase
from pathlib import Path

MODEL_CONFIG_FILE = "config.json"
TEACHER_FILE = "model.safetensors"
STUDENTS_FILE = "students.safetensors"
TOKENIZER_FILE = "tokenizer.json"
TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
EARLY_EXIT_FILE = "early_exit.json"
CALIBRATION_FILE = "calibration.safetensors"
CARD_FILE = "README.md"
FIGURE_FILE = "speed-accuracy.png"  # on the card
TIMES_FILE = "export_times.json"  # of the exports
MANIFEST_FILE = "manifest.json"  # of an export
ADAPTIVE_FILE = "adaptive.onnx"
HASHED_FILES = (  # whatever decides an answer
    MODEL_CONFIG_FILE,
    TEACHER_FILE,
    STUDENTS_FILE,
    TOKENIZER_FILE,
    TOKENIZER_CONFIG_FILE,
)
EXPORT_SUFFIXES = {  # of the graph and the weights of a piece, by the folder of the runtime
    "openvino": (".xml", ".bin"),
    "onnx": (".onnx", ".bin"),
}
EXPORT_FILES = (
    *(f"{runtime}/{MANIFEST_FILE}" for runtime in EXPORT_SUFFIXES),
    *(
        f"{runtime}/{piece}{suffix}"
        for runtime, suffixes in EXPORT_SUFFIXES.items()
        for piece in ("embeddings", "layer_[0-9][0-9]")
        for suffix in suffixes
    ),
    f"onnx/{ADAPTIVE_FILE}",
)
# All that belongs to a model folder, as patterns: what is copied, pushed and replaced.
OWN_FILES = (
    *HASHED_FILES,
    EARLY_EXIT_FILE,
    CALIBRATION_FILE,
    CARD_FILE,
    FIGURE_FILE,
    TIMES_FILE,
    *EXPORT_FILES,
)


def own_files(folder: Path) -> list[Path]:
    """Return the files in a folder that are on the list, relative to it."""
    return [name for name in _entries(folder) if _is_own(folder, name)]


def foreign(folder: Path) -> list[Path]:
    """Return the files and folders in a folder that are not on the list, relative to it."""
    return [name for name in _entries(folder) if not _is_own(folder, name)]


def _entries(folder: Path) -> list[Path]:
    """Return all that lies in a folder, relative to it; for an export, all that lies in that."""
    paths: list[Path] = []
    for path in folder.iterdir():
        is_export = path.name in EXPORT_SUFFIXES and path.is_dir() and not path.is_symlink()
        paths += path.iterdir() if is_export else [path]
    return sorted(path.relative_to(folder) for path in paths)


def _is_own(folder: Path, name: Path) -> bool:
    listed = any(fnmatchcase(name.as_posix(), pattern) for pattern in OWN_FILES)
    return listed and (folder / name).is_file()

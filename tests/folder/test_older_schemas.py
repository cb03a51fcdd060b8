"""Folders of earlier schemas are read, and say the same in the words of today."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastbert.errors import FolderError
from fastbert.folder.config import EarlyExitConfig, hash_of_settings
from fastbert.folder.read import open_folder
from fastbert.head_shapes import PaperHead
from fastbert.tasks.single_label import SingleLabel
from tests.folder.folders import LABELS, edit, settings

SHAPE = {"pooling": "mean", "width": 12, "num_heads": 3}
HEAD = PaperHead("mean", 12, 3)


def in_schema_2(
    model: Path, change: Callable[[dict[str, Any]], Any] = lambda entries: None
) -> Path:
    """Make a folder one of schema 2, all of whose students have the paper's head."""

    def rewrite(entries: dict[str, Any]) -> None:
        entries |= {
            "schema_version": 2,
            "students": dict(SHAPE),
            "training": {"students": {"shape": SHAPE, "direction": "student-teacher"}},
        }
        change(entries)
        entries["hashes"]["settings"] = hash_of_settings(entries)

    edit(model / "early_exit.json", rewrite)
    return model


def test_what_all_students_had_each_of_them_has(model: Path) -> None:
    config = open_folder(in_schema_2(model)).config
    assert config.students == (HEAD,) * 3
    assert (config.teacher_head, config.schema_version) == ("pretrained", 3)
    assert config.training == {
        "students": {"heads": "paper/mean/12/3", "direction": "student-teacher"}
    }
    assert config.default == settings().default
    assert config.evaluation == settings().evaluation


def test_the_papers_teacher_had_the_students_shape(model: Path) -> None:
    in_schema_2(model, lambda entries: entries.update(teacher_head="paper"))
    assert open_folder(model).config.teacher_head == HEAD


def test_a_folder_that_names_no_task_answers_one_label(model: Path) -> None:
    in_schema_2(model, lambda entries: entries.pop("task"))
    assert open_folder(model).config.task == SingleLabel(LABELS)


def test_what_is_written_is_the_schema_of_today(model: Path, tmp_path: Path) -> None:
    config = open_folder(in_schema_2(model)).config
    (tmp_path / "early_exit.json").write_text(config.to_json(), encoding="utf-8")
    edit(tmp_path / "early_exit.json", _seal)
    again = EarlyExitConfig.read(tmp_path / "early_exit.json")
    assert (again.students, again.training) == (config.students, config.training)


def _seal(entries: dict[str, Any]) -> None:
    entries["hashes"]["settings"] = hash_of_settings(entries)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"students": {"pooling": "mean", "width": 12}}, r'"students\.num_heads" is missing'),
        ({"students": SHAPE | {"kind": "paper"}}, r'"students\.kind" is unknown'),
        ({"students": SHAPE | {"width": "12"}}, r'"students\.width" must be a whole number'),
        ({"students": SHAPE | {"pooling": "last"}}, r'"students\.pooling" must be one of'),
        ({"students": SHAPE | {"num_heads": 5}}, r'"students": width must be a positive multiple'),
        ({"students": [HEAD.as_dict()] * 3}, r'"students" must be an object, got a list'),
        ({"teacher_head": "other"}, r'"teacher_head" must be one of'),
        ({"teacher_head": HEAD.as_dict()}, r'"teacher_head" must be a string'),
        ({"num_layers": 10**30}, r"early_exit\.json: "),
    ],
)
def test_what_is_wrong_in_an_older_folder_is_named(
    changes: dict[str, Any], message: str, model: Path
) -> None:
    in_schema_2(model, lambda entries: entries.update(changes))
    with pytest.raises(FolderError, match=message):
        open_folder(model)

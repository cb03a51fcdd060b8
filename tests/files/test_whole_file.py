import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fastbert.files.whole_file import whole_file


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"earlier")

    with whole_file(path) as file:
        file.write(b"first half, ")
        file.flush()
        assert path.read_bytes() == b"earlier"
        file.write(b"second half")
    assert path.read_bytes() == b"first half, second half"
    assert names(tmp_path) == {"answers.jsonl"}


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt])
def test_what_was_there_stays_where_the_writer_fails(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"earlier")

    def fail() -> None:
        with whole_file(path) as file:
            file.write(b"half")
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == b"earlier"
    assert names(tmp_path) == {"answers.jsonl"}


def test_of_two_writers_each_writes_its_own_and_the_last_to_finish_wins(tmp_path: Path) -> None:
    path = tmp_path / "same.jsonl"
    with whole_file(path) as second:
        second.write(b"one ")
        with whole_file(path) as first:
            first.write(b"two")
        assert path.read_bytes() == b"two"
        second.write(b"of the second")
    assert path.read_bytes() == b"one of the second"
    assert names(tmp_path) == {"same.jsonl"}


def test_no_file_is_taken_for_an_unfinished_one(tmp_path: Path) -> None:
    others = {f"{name}.part" for name in ("a.jsonl", ".a.jsonl", f".a.jsonl.{os.getpid()}")}
    for name in others:
        (tmp_path / name).write_text("mine")

    with whole_file(tmp_path / "a.jsonl") as file:
        file.write(b"answers")
    assert names(tmp_path) == {"a.jsonl", *others}
    assert all((tmp_path / name).read_text() == "mine" for name in others)


def test_a_killed_writer_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(b"earlier")
    program = (
        "import os, pathlib\n"
        "from fastbert.files.whole_file import whole_file\n"
        f"with whole_file(pathlib.Path({str(path)!r})) as file:\n"
        "    file.write(b'half')\n"
        "    file.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", program]).returncode == -9

    [left] = names(tmp_path) - {"answers.jsonl"}
    assert left.startswith("answers.jsonl.")
    assert left.endswith(".part")
    with whole_file(path) as file:
        file.write(b"whole")
    assert path.read_bytes() == b"whole"
    assert (tmp_path / left).read_bytes() == b"half"


def test_everyone_whom_the_umask_lets_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    with whole_file(path):
        pass
    (tmp_path / "usual").touch()
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((tmp_path / "usual").stat().st_mode)


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("target")

    with whole_file(tmp_path / "link") as file:
        file.write(b"whole")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_bytes() == b"whole"


def test_what_is_no_file_is_written_to_as_it_is() -> None:
    with whole_file(Path(os.devnull)) as file:
        file.write(b"nothing")
    assert not Path(os.devnull).is_file()

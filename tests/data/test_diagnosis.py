# ruff: noqa: RUF001  # texts in other writings
import gzip
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fastbert.data.diagnosis import encoding_advice
from fastbert.data.example import Columns
from fastbert.data.read import load_examples, read_rows
from fastbert.errors import DataError

COLUMNS = Columns()
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 9\n"
ENDINGS = ["csv", "tsv", "jsonl", "parquet"]


def refusal(path: Path, content: bytes) -> str:
    """Return what is said about the file as a whole, without its folder and the colon."""
    path.write_bytes(content)
    with pytest.raises(DataError) as raised:
        list(read_rows(path, COLUMNS, needs_label=True))
    assert str(raised.value).startswith(f"{path}:")
    assert "\n" not in str(raised.value)
    return str(raised.value).removeprefix(f"{path}:").lstrip()


# A file is not what its name says.


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize(
    ("content", "said"),
    [
        (LFS, "is a Git LFS pointer: git lfs pull"),
        (b"PK\x03\x04\x14\0\x06\0[Content_Types].xml", "is an Excel workbook or another ZIP"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\0\0", "is an Excel workbook in the format before 2007"),
        (b"\n<!DOCTYPE html><title>Log in</title>", "is a web page"),
        (b"\x28\xb5\x2f\xfd\x04", "is packed by zstd: zstd -d"),
        (b"\xfd7zXZ\0\0\4", "is packed by xz: xz -dc"),
        (b"BZh91AY&SY\0", "is packed by bzip2: bzip2 -dc"),
    ],
)
def test_a_file_of_another_kind_is_called_what_it_is(
    tmp_path: Path, ending: str, content: bytes, said: str
) -> None:
    assert refusal(tmp_path / f"rows.{ending}", content).startswith(said)
    if ending != "parquet":
        assert refusal(tmp_path / f"rows.{ending}.gz", content).startswith(said)


@pytest.mark.parametrize("ending", ENDINGS[:3])
def test_gzip_belongs_to_the_name(tmp_path: Path, ending: str) -> None:
    packed = gzip.compress(b"text\tlabel\na\tb\n")
    said = f"is packed by gzip: name it rows.{ending}.gz"
    assert refusal(tmp_path / f"rows.{ending}", packed) == said
    said = f"is not packed by gzip: name it rows.{ending}"
    assert refusal(tmp_path / f"rows.{ending}.gz", b"text\tlabel\na\tb\n") == said


def test_parquet_belongs_to_the_name(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.csv", b"PAR1\x15\4") == "is a Parquet file: name it a.parquet"
    assert refusal(tmp_path / "a.tsv.gz", b"PAR1\x15\4") == "is a Parquet file: name it a.parquet"
    said = refusal(tmp_path / "rows.parquet", b"text,label\na,b\n")
    assert said.startswith("is not a Parquet file, it begins with b'text,label")
    said = refusal(tmp_path / "rows.parquet", gzip.compress(b"PAR1"))
    assert said == "is packed by gzip: gunzip < FILE > NEW"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b'[{"text": "a"}, {"text": "b"}]', "is one JSON array; .*jq -c '.\\[\\]' FILE"),
        ("a.json", b'[\n  {\n    "text": "a"\n  }\n]\n', "is one JSON array"),
        ("a.ndjson", b"[]", "is one JSON array"),
        ("a.jsonl", b'{\n  "text": "a"\n}\n', "its JSON objects take several lines; .*jq -c . F"),
        ("a.csv", b'{"text": "a", "label": "b"}\n', "1: holds JSON: name it a.jsonl"),
        ("a.tsv", b'{"text": "a", "label": "b"}\n', "1: holds JSON: name it a.jsonl"),
        ("a.jsonl", b"text,label\na,b\n", "holds a table, no JSON lines: name it a.csv"),
        ("a.json", b"label\ttext\na\tb\n", "holds a table, no JSON lines: name it a.tsv"),
    ],
)
def test_json_is_told_from_tables_and_arrays_from_lines(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    assert re.match(said, refusal(tmp_path / name, content))


@pytest.mark.parametrize("name", ["rows.json", "rows.ndjson", "rows.NDJSON.gz"])
def test_json_lines_may_be_called_otherwise(tmp_path: Path, name: str) -> None:
    content = b'{"text": "a"}\n{"text": "b"}\n'
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)

    rows = load_examples(tmp_path / name, COLUMNS, needs_label=False)
    assert [row.text for row in rows] == ["a", "b"]


# Lines and columns.


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl"])
@pytest.mark.parametrize("packed", [False, True])
def test_lines_that_end_in_cr_alone_are_named(tmp_path: Path, name: str, packed: bool) -> None:
    lines = ["text,label", "Good,yes", "Bad,no"]
    if name == "rows.tsv":
        lines = [line.replace(",", "\t") for line in lines]
    if name == "rows.jsonl":
        lines = ['{"text": "Good", "label": "yes"}', '{"text": "Bad", "label": "no"}']
    content = "".join(f"{line}\r" for line in lines).encode()

    said = refusal(
        tmp_path / (f"{name}.gz" if packed else name), gzip.compress(content) if packed else content
    )
    assert said.startswith("its lines end in CR alone")
    (tmp_path / f"new-{name}").write_bytes(content.replace(b"\r", b"\n"))  # what `tr` does
    assert len(load_examples(tmp_path / f"new-{name}", COLUMNS, needs_label=True)) == 2
    assert said.endswith(r"tr '\r' '\n' < FILE > NEW")


def test_a_cr_in_a_text_that_is_not_quoted_is_a_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(b'text,label\nGood,yes\nB\rad,no\n"B\rad",no\n')
    with pytest.raises(DataError, match=r"rows\.csv:3: holds a CR outside quotes; quote that"):
        load_examples(path, COLUMNS, needs_label=True)


@pytest.mark.parametrize("before", ["", "sep=;\r\n"])
@pytest.mark.parametrize("header", ["text;label", '"text";"label"', "\ufefftext;label"])
def test_the_advice_about_semicolons_gives_the_rows(
    tmp_path: Path, before: str, header: str
) -> None:
    if header.startswith("\ufeff") and before:
        header, before = header[1:], f"\ufeff{before}"
    path, new = tmp_path / "rows.csv", tmp_path / "new.csv"
    said = refusal(path, f'{before}{header}\r\n"slow; and ""cold""";no\r\n–;yes\r\n'.encode())

    assert said.startswith(
        "1: its first line, 'sep=;', is for Excel alone"
        if before
        else "1: its columns are separated by ';', not by commas"
    )
    command = said[said.index("tail" if before else "python") :]
    command = command.replace("python", sys.executable)
    command = command.replace("FILE", str(path)).replace("NEW", str(new))
    subprocess.run(
        command, shell=True, check=True, env={"PYTHONUTF8": "1", "PATH": "/usr/bin:/bin"}
    )
    rows = load_examples(new, COLUMNS, needs_label=True)
    assert [(row.text, row.label) for row in rows] == [('slow; and "cold"', "no"), ("–", "yes")]


@pytest.mark.parametrize(
    ("name", "header", "said"),
    [
        ("a.csv", "text\tlabel", "1: its columns are separated by tabs, .*; name it a.tsv"),
        ("a.tsv", "text,label", "1: its columns are separated by commas, .*; name it a.csv"),
        ("a.tsv", '"text","label"', "1: its columns are separated by commas, .*name it a.csv"),
        ("a.tsv", "text;label", "1: its columns are separated by ';', not by tabs; convert it"),
        ("a.csv", "text|label", "1: its columns are separated by '|', not by commas; convert"),
        ("a.csv", "Text;Class", "1: its columns are separated by ';'"),  # of whatever name
        ("a.csv", "sep=,", "1: its first line, 'sep=,', .*: tail -n +2 FILE > NEW"),
        ("a.csv", "sentence", "1: no column 'text', only"),
        ("a.csv", "sentence;a,class", "1: no column 'text', only"),
    ],
)
def test_columns_that_are_separated_otherwise_are_told_from_those_of_other_names(
    tmp_path: Path, name: str, header: str, said: str
) -> None:
    found = refusal(tmp_path / name, f"{header}\na b\n".encode())
    start, *rest = said.split(".*")
    assert found.startswith(start)
    assert all(part in found for part in rest)
    assert "separated" not in found or "--text-column" not in found


# Encodings.


@pytest.mark.parametrize(
    ("encoding", "text", "named"),
    [
        ("cp1252", "The room was clean – “lovely”", "cp1252"),
        ("latin-1", "café, très bien", "cp1252"),
        ("cp1252", "naïveté’s “été” für 5 €", "cp1252"),
        ("gbk", "房间很干净,好评", "gb18030"),
        ("gb18030", "服务太慢了。", "gb18030"),
        ("shift_jis", "部屋がきれい,良い", "shift_jis"),
        ("euc-kr", "배송이 빨라요!", "euc-kr"),
        ("big5", "這部電影非常好看", "big5"),
        ("cp1251", "Отличный фильм", "cp1251"),
    ],
)
def test_an_encoding_is_shown_with_what_it_makes_of_the_line(
    encoding: str, text: str, named: str
) -> None:
    said = encoding_advice(f"{text}\n".encode(encoding)) or ""

    first = next(place for place, letter in enumerate(text) if letter > "\x7f")
    assert f"as {named} it says {text[max(first - 8, 0) : first + 8]!r}" in said
    assert "latin" not in said.lower()
    one = said.count(" it says ") == 1
    assert f"iconv -f {named if one else 'ENCODING'} -t utf-8" in said


def test_an_encoding_that_cannot_be_told_has_to_be_found_out() -> None:
    assert "find out its encoding" in (encoding_advice(b"\x81\x8d") or "")
    assert "find out its encoding" in (encoding_advice(b"\x98\x98\x98") or "")


def test_a_broken_character_among_whole_ones_is_no_other_encoding() -> None:
    for text in ("naïve été", "很好"):
        said = encoding_advice(f"{text} ".encode() + b"\xe5\n") or ""
        assert "the rest of the line is" in said
        assert "cp1252" not in said
    assert encoding_advice("naïve".encode()) is None

"""Files of rows in every format, and what is read from them."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
from hypothesis import strategies as st
from pyarrow import parquet

from fastbert.data.example import BadRow, Columns, Example
from fastbert.data.read import read_rows

COLUMNS = Columns()


Write = Callable[[str, bytes | str], Path]


def rows_of(path: str | Path, needs_label: bool = False) -> list[Example | BadRow]:
    return list(read_rows(path, COLUMNS, needs_label=needs_label))


def one_bad(path: Path, needs_label: bool = True) -> BadRow:
    (bad,) = [row for row in rows_of(path, needs_label) if isinstance(row, BadRow)]
    return bad


TABLE = [
    {"id": "a", "text": "good film", "text_pair": "", "label": "pos"},
    {"id": "b", "text": "", "text_pair": "电影 😀", "label": "neg"},
    {"id": "c", "text": 'he said "no", twice', "text_pair": "é", "label": "neg"},
]


def as_csv(rows: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def as_tsv(rows: list[dict[str, Any]]) -> str:
    return "".join("\t".join(row) + "\n" for row in [list(rows[0]), *(r.values() for r in rows)])


def as_json_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def as_parquet(rows: list[dict[str, Any]]) -> bytes:
    out = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), out, row_group_size=2)
    return out.getvalue()


FORMATS: dict[str, Callable[[list[dict[str, Any]]], str | bytes]] = {
    "rows.csv": as_csv,
    "rows.tsv": as_tsv,
    "rows.jsonl": as_json_lines,
    "rows.csv.gz": as_csv,
    "rows.tsv.gz": as_tsv,
    "rows.jsonl.gz": as_json_lines,
    "rows.parquet": as_parquet,
}


# Characters that no format here can hold in a text as they are: surrogates and NUL.
ANY_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))

"""What a file really is where it cannot be read as what its name says, and what to do.

Each function looks at a few bytes or at one line and returns advice for a message, or None. Advice
that leads astray is worse than none: it must be right for the file at hand, or say what to find out
first. Nothing here opens a file.
"""

import csv
import re
from collections.abc import Callable, Sequence
from reprlib import repr as shown

LFS_POINTER = b"version https://git-lfs.github.com/spec/"

# How other kinds of file begin, and what to do with them.
_SIGNS = (
    (LFS_POINTER, "is a Git LFS pointer: git lfs pull"),
    (
        b"PK\x03\x04",
        "is an Excel workbook or another ZIP archive: save the sheet as CSV UTF-8, or unpack it",
    ),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "is an Excel workbook in the format before 2007: save the sheet as CSV UTF-8",
    ),
    (b"\x28\xb5\x2f\xfd", "is packed by zstd: zstd -d FILE -o NEW"),
    (b"\xfd7zXZ\0", "is packed by xz: xz -dc FILE > NEW"),
    (b"BZh91AY&SY", "is packed by bzip2: bzip2 -dc FILE > NEW"),
)
_GZIP, _PARQUET = b"\x1f\x8b", b"PAR1"
_WEB_PAGE = re.compile(rb"\s*<(!doctype\s+html|html)", re.IGNORECASE)

CR_ALONE = (
    "its lines end in CR alone, as Excel for Mac writes them; convert it: "
    r"tr '\r' '\n' < FILE > NEW"
)
_READ_OTHERWISE = (
    'python -c "import csv, sys; csv.writer(sys.stdout).writerows('
    'csv.reader(sys.stdin, delimiter={delimiter!r}))"'
)


def other_kind(start: bytes, name: str | None, suffix: str, *, packed: bool) -> str | None:
    """Say that a file is not what its name says, by its first bytes.

    Args:
        start: The first bytes of the file, as they lie on disk.
        name: Its name, for advice; None for a stream.
        suffix: What it should be: .csv, .tsv, .jsonl or .parquet.
        packed: Whether its name says that gzip packed it.
    """
    for sign, advice in _SIGNS:
        if start.startswith(sign):
            return advice
    if _WEB_PAGE.match(start):
        return "is a web page, perhaps a log-in or an error; download the file itself"
    is_packed, is_parquet = start.startswith(_GZIP), start.startswith(_PARQUET)
    if is_packed and not packed:
        unpack = name is None or suffix == ".parquet"
        return f"is packed by gzip: {'gunzip < FILE > NEW' if unpack else f'name it {name}.gz'}"
    if is_parquet and suffix != ".parquet":
        return f"is a Parquet file: name it {_renamed(_unpacked(name or 'FILE'), '.parquet')}"
    if packed and start and not is_packed:
        return f"is not packed by gzip: name it {_unpacked(name or 'FILE')}"
    if suffix == ".parquet" and start and not is_parquet:
        return f"is not a Parquet file, it begins with {start[:16]!r}: name it by what it is"
    return None


def _unpacked(name: str) -> str:
    return re.sub(r"(?i)\.gz$", "", name)


def _renamed(name: str, suffix: str) -> str:
    return re.sub(r"(?i)(\.(csv|tsv|jsonl|ndjson|json))?(\.gz)?$", rf"{suffix}\3", name, count=1)


# Lines, by the first one.


def misshapen_lines(first: bytes, suffix: str) -> str | None:
    """Say why the first line of a text file shows that its lines are no rows."""
    if b"\r" in first.rstrip(b"\r\n") and b"\0" not in first:  # NUL: UTF-16, which is named so
        return CR_ALONE
    if suffix == ".jsonl":
        if re.match(rb"\s*\[\s*([{\]]|$)", first):
            return "is one JSON array; write its objects one a line: jq -c '.[]' FILE > NEW"
        if first.strip() == b"{":
            return "its JSON objects take several lines; write one a line: jq -c . FILE > NEW"
    return None


def misread_header(
    line: str, name: str, suffix: str, *, fits: Callable[[Sequence[str]], bool]
) -> str | None:
    """Say why the header of a table does not have the columns that are needed.

    Args:
        line: The line of the header.
        name: The name of the file, for advice.
        suffix: How it was read: .csv or .tsv.
        fits: Whether these names are those of the columns that are needed.
    """
    line = line.rstrip("\r\n")
    if line.lstrip().startswith(("{", "[")):
        return f"holds JSON: name it {_renamed(name, '.jsonl')}"
    if told := re.fullmatch(r'"?sep=(.)"?,*', line):  # the commas of a saved sheet
        return (
            f"its first line, {shown(line)}, is for Excel alone; leave it out: tail -n +2 FILE"
            f"{_converted(told[1], ' | ')} > NEW"
        )
    own = "," if suffix == ".csv" else "\t"
    others = {other: _fields(line, other) for other in ";\t,|" if other != own}
    seen = [other for other, fields in others.items() if fits(fields)]
    if not seen and len(_fields(line, own)) == 1:  # the columns may have other names as well
        seen = [other for other, fields in others.items() if len(fields) > 1]
    if not seen:
        return None
    other = seen[0]
    if other == "," or (other == "\t" and '"' not in line):  # a .tsv knows no quotes
        advice = f"name it {_renamed(name, '.tsv' if suffix == '.csv' else '.csv')}"
    else:
        advice = f"convert it:{_converted(other, ' ')} < FILE > NEW"
    return f"its columns are separated by {_called(other)}, not by {_called(own)}; {advice}"


def table_instead(line: str, name: str, *, fits: Callable[[Sequence[str]], bool]) -> str | None:
    """Say that the first line of what should be JSON lines is the header of a table.

    Args:
        line: The first line.
        name: The name of the file, for advice.
        fits: Whether these names are those of the columns that are needed.
    """
    for delimiter in ",;\t":
        if fits(_fields(line, delimiter)):
            suffix = ".tsv" if delimiter == "\t" else ".csv"
            return f"holds a table, no JSON lines: name it {_renamed(name, suffix)}"
    return None


def _fields(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line.rstrip("\r\n")], delimiter=delimiter), [])
    except csv.Error:  # such as a JSON line that is longer than any field
        return []


def _called(delimiter: str) -> str:
    return {"\t": "tabs", ",": "commas"}.get(delimiter, f"{delimiter!r}")


def _converted(delimiter: str, before: str) -> str:
    return "" if delimiter == "," else before + _READ_OTHERWISE.format(delimiter=delimiter)


# Encodings, by the bytes of one line that is not UTF-8.

# Which may be told by what they make of a line: the name that iconv knows, the codec that reads the
# usual characters alone, and what these must be like. Latin-1 is not among them: what it has beyond
# cp1252 are control characters, which no text holds.
_ENCODINGS = (
    ("shift_jis", "shift_jis", re.compile("(?=.*[\u3041-\u30fa])[^\uff61-\uff9f]+")),
    ("gb18030", "gb2312", re.compile("(?=.*[\u4e00-\u9fa5]).+")),
    ("euc-kr", "euc_kr", re.compile("[\uac00-\ud7a3\u3000-\u303f\u2000-\u206f]+")),
    ("big5", "big5", re.compile("[\u4e00-\u9fa5\u3000-\u303f\u2000-\u206f\uff00-\uff5e]+")),
    ("cp1251", "cp1251", re.compile("[\u0410-\u044f\u0401\u0451\u2010-\u2122\xab\xbb\xa0]+")),
)


def encoding_advice(raw: bytes) -> str | None:
    """Say in which encoding a line may be that is not UTF-8, and how to convert the file.

    Returns:
        None if the line is UTF-8 without a NUL byte. Where several encodings are possible each is
        shown with what it makes of the line, because only a reader can tell.
    """
    if b"\0" in raw:
        return f"holds a NUL byte; remove it, or if the file is UTF-16: {_conversion('utf-16')}"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"is not UTF-8 (byte 0x{raw[error.start]:02x}); {_conversions(raw)}"
    return None


def _conversions(raw: bytes) -> str:
    high = sum(byte >= 0x80 for byte in raw)
    kept = "".join(letter for letter in raw.decode("utf-8", errors="ignore") if letter > "\x7f")
    if len(kept.encode()) * 4 >= high * 3:
        return "the rest of the line is; get the file anew, or leave out such bytes: " + (
            "iconv -c -f utf-8 -t utf-8 FILE > NEW"
        )
    possible = _possible(raw)
    if not possible:
        return f"find out its encoding, then convert it: {_conversion('ENCODING')}"
    readings = ", ".join(f"as {name} it says {_around(raw, name)}" for name in possible)
    if len(possible) > 1:
        return f"{readings}; take the right one: {_conversion('ENCODING')}"
    return f"{readings}; if that is right: {_conversion(possible[0])}"


def _possible(raw: bytes) -> list[str]:
    """Return the encodings that give the line letters of one script."""
    # Where an alphabet is Latin, what is beyond ASCII stands alone or in twos.
    if not re.search(rb"[\x80-\xff]{3}", raw):
        return ["cp1252"] if _beyond_ascii(raw, "cp1252") else []
    return [
        name for name, codec, script in _ENCODINGS if script.fullmatch(_beyond_ascii(raw, codec))
    ]


def _beyond_ascii(raw: bytes, encoding: str) -> str:
    """Return what a line says beyond ASCII; nothing if it is not in that encoding."""
    try:
        return re.sub("[\0-\x7f]", "", raw.decode(encoding))
    except UnicodeDecodeError:
        return ""


def _around(raw: bytes, encoding: str) -> str:
    """Show what an encoding makes of the first bytes that are not ASCII."""
    text = raw.decode(encoding).strip()
    first = next(place for place, letter in enumerate(text) if letter > "\x7f")
    return repr(text[max(first - 8, 0) : first + 8])


def _conversion(encoding: str) -> str:
    return f"iconv -f {encoding} -t utf-8 FILE > NEW"

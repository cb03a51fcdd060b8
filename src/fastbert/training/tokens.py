"""Tokens on disk: a text is tokenised once, however many epochs and stages read it.

All ids lie side by side in one file that is mapped, so texts of any number cost no memory. An
index is written last; it says of what the tokens were made, so that a run that was stopped takes
them up only if they are of the same texts and the same tokenizer, and whole.
"""

import json
import logging
import shutil
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import numpy as np
from jaxtyping import Int

from fastbert.files.disk import hash_of_file
from fastbert.text import TextTokenizer, Tokens

IDS, SEGMENTS, OFFSETS, INDEX = "ids.int32", "segments.uint8", "offsets.int64", "index.json"
TYPES = {IDS: np.int32, SEGMENTS: np.uint8, OFFSETS: np.int64}
TOKENISED_TOGETHER = 4_096  # texts

logger = logging.getLogger(__name__)


class TokenFile:
    """The tokens of many texts, by row; segment ids only where the model reads them."""

    def __init__(self, folder: Path, identity: str, hashes: dict[str, str]) -> None:
        """Map the files of a folder; `write` and `load` make sure of what is in it."""
        arrays = {name: np.memmap(folder / name, TYPES[name], mode="r") for name in hashes}
        self.ids, self.offsets = arrays[IDS], arrays[OFFSETS]
        self.segments = arrays.get(SEGMENTS)
        self.identity = identity
        self.hashes = hashes

    @classmethod
    def write(
        cls,
        folder: Path,
        texts: Iterable[str | tuple[str, str]],
        tokenizer: TextTokenizer,
        identity: str = "",
    ) -> "TokenFile":
        """Tokenise texts, at least one, into a folder, in place of what lies there.

        Args:
            folder: Where the files go.
            texts: Read once, a few thousand at a time.
            tokenizer: What makes tokens of them.
            identity: Of texts and tokenizer; `load` wants the same.
        """
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        names = [IDS, OFFSETS, *([SEGMENTS] if tokenizer.gives_segments else [])]
        files = {name: (folder / name).open("wb") for name in names}
        end = np.zeros(1, np.int64)
        files[OFFSETS].write(end.tobytes())
        texts = iter(texts)
        while some := list(islice(texts, TOKENISED_TOGETHER)):
            rows = tokenizer.encode(some)
            offsets = end[-1] + np.cumsum([len(row) for row in rows])
            end = offsets.astype(np.int64)
            files[OFFSETS].write(end.tobytes())
            files[IDS].write(np.concatenate([row.ids for row in rows]).tobytes())
            if SEGMENTS in files:
                types = np.concatenate([row.type_ids for row in rows])
                files[SEGMENTS].write(types.astype(np.uint8).tobytes())
        for file in files.values():
            file.close()
        hashes = {name: hash_of_file(folder / name) for name in names}
        staged = folder / f"{INDEX}.part"
        staged.write_text(json.dumps({"identity": identity, "hashes": hashes}), encoding="utf-8")
        staged.rename(folder / INDEX)
        return cls(folder, identity, hashes)

    @classmethod
    def load(cls, folder: Path, identity: str) -> "TokenFile | None":
        """Return the tokens that an earlier run has finished here, if they are of this identity."""
        try:
            index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        if index["identity"] != identity:
            logger.warning("%s: holds the tokens of other texts, and is made anew", folder)
            return None
        if any(hash_of_file(folder / name) != sha for name, sha in index["hashes"].items()):
            logger.warning("%s: is damaged, and made anew", folder)
            return None
        return cls(folder, identity, index["hashes"])

    def __len__(self) -> int:
        """Return the number of texts."""
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Tokens:
        """Return the tokens of a text."""
        place = slice(self.offsets[row], self.offsets[row + 1])
        ids = np.array(self.ids[place])
        segments = np.zeros_like(ids) if self.segments is None else self.segments[place]
        return Tokens(ids, np.array(segments, np.int32))

    def lengths(self, first: int = 0, end: int | None = None) -> Int[np.ndarray, " rows"]:
        """Return how many tokens each text of a range has."""
        end = len(self) if end is None else end
        return np.diff(self.offsets[first : end + 1])

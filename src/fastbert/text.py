"""From texts to token batches, by one path for training, evaluation and serving.

The tokenizer is the folder's `tokenizer.json`, run by the `tokenizers` library itself;
`tokenizer_config.json` adds what that file leaves open: the padding token, the side that is cut,
and whether the model reads segment ids. Padding on the right, as here, the result equals
transformers' `AutoTokenizer` for every folder that `AutoTokenizer.from_pretrained(...)
.save_pretrained(...)` wrote. (In a folder from elsewhere the two files may disagree, and
`AutoTokenizer` rebuilds some families from the second; saving once makes them agree.) Nothing here
imports torch or transformers, and a tokenizer never changes after it is made, so threads may share
one.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from tokenizers import Tokenizer

from fastbert.errors import FolderError
from fastbert.files.open_file import OpenFile

# The classes of transformers that give segment ids unless the folder says otherwise. ALBERT's is
# not among them: since version 5 it gives none.
Text = str | tuple[str, str]
"""A text, or a pair of them."""

_CLASSES_WITH_SEGMENTS = frozenset(
    {"BertTokenizer", "DebertaTokenizer", "DebertaV2Tokenizer", "ElectraTokenizer"}
)


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """One text or pair, special tokens included, not padded; segment ids are 0, then 1."""

    ids: Int[np.ndarray, "tokens"]
    type_ids: Int[np.ndarray, "tokens"]

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.ids)


@dataclass(frozen=True, slots=True, eq=False)
class TokenBatch:
    """Rows padded to the longest of them; `token_type_ids` is None if the model reads none."""

    input_ids: Int[np.ndarray, "rows length"]
    attention_mask: Int[np.ndarray, "rows length"]
    token_type_ids: Int[np.ndarray, "rows length"] | None

    @property
    def arrays(self) -> dict[str, Int[np.ndarray, "rows length"]]:
        """Return what the model reads, by the names that encoders give it."""
        arrays = {"input_ids": self.input_ids, "attention_mask": self.attention_mask}
        if self.token_type_ids is not None:
            arrays["token_type_ids"] = self.token_type_ids
        return arrays

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.input_ids)


class TextTokenizer:
    """Texts and pairs to tokens, tokens to padded batches."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        max_length: int,
        pad_id: int,
        gives_segments: bool,
    ) -> None:
        """Wrap a tokenizer that truncates already; `from_folder` is the way to get one."""
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._pad_id = pad_id
        self._gives_segments = gives_segments

    @classmethod
    def from_folder(cls, folder: str | Path, max_length: int) -> "TextTokenizer":
        """Read the tokenizer of a model folder.

        Args:
            folder: Holds `tokenizer.json` and `tokenizer_config.json`.
            max_length: Tokens kept of a text or pair, special tokens counted. A pair loses tokens
                from the longer of its texts first.

        Raises:
            FolderError: A file is missing or damaged, or names no padding token.
            ValueError: `max_length` leaves no room for text beside the special tokens.
        """
        tokenizer, config = (
            _opened(Path(folder), name) for name in ("tokenizer.json", "tokenizer_config.json")
        )
        return cls.from_files(tokenizer, config, max_length)

    @classmethod
    def from_files(
        cls, tokenizer_file: OpenFile, config_file: OpenFile, max_length: int
    ) -> "TextTokenizer":
        """Read a tokenizer from its two files; else as `from_folder`."""
        folder = tokenizer_file.path.parent
        tokenizer = _read_tokenizer(tokenizer_file)
        config = _read_config(config_file)
        # Where the config is silent, AutoTokenizer takes the side saved in tokenizer.json.
        saved_truncation = tokenizer.truncation or {}
        truncation_side = config.get("truncation_side", saved_truncation.get("direction", "right"))
        tokenizer.no_padding()
        _truncate(tokenizer, max_length, truncation_side)
        tokenizer.encode_special_tokens = config.get("split_special_tokens", False)
        return cls(
            tokenizer,
            max_length=max_length,
            pad_id=_pad_id(folder, tokenizer, config),
            gives_segments=_gives_segments(folder, config),
        )

    @property
    def max_length(self) -> int:
        """Return how many tokens are kept of a text or pair, special tokens counted."""
        return self._max_length

    @property
    def gives_segments(self) -> bool:
        """Return whether batches carry segment ids."""
        return self._gives_segments

    @property
    def vocab_size(self) -> int:
        """Return the rows an embedding matrix needs: the largest token id plus 1."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def encode(self, texts: Sequence[Text]) -> list[Tokens]:
        """Return the tokens of each text or pair, truncated, in the order given.

        Raises:
            ValueError: An item is no text, or holds half of a surrogate pair; the message says
                which.
        """
        try:
            encodings = self._tokenizer.encode_batch_fast(list(texts))
        except TypeError as error:  # does not say which text
            raise ValueError(next(_unreadable(texts), str(error))) from error
        return [
            Tokens(np.array(row.ids, dtype=np.int32), np.array(row.type_ids, dtype=np.int32))
            for row in encodings
        ]

    def collate(self, rows: Sequence[Tokens]) -> TokenBatch:
        """Return the rows as one batch, padded on the right to the longest of them.

        The tokenizer's `padding_side` is not followed: classifiers read the first token, and most
        families count positions from the left, so padding there would change the answers.
        """
        if not rows:
            raise ValueError("a batch needs at least one row, got none")
        lengths = np.array([len(row) for row in rows])
        real = np.arange(lengths.max()) < lengths[:, None]
        input_ids = np.full(real.shape, self._pad_id, dtype=np.int64)
        input_ids[real] = np.concatenate([row.ids for row in rows])
        token_type_ids = None
        if self._gives_segments:
            token_type_ids = np.zeros_like(input_ids)
            token_type_ids[real] = np.concatenate([row.type_ids for row in rows])
        return TokenBatch(input_ids, real.astype(np.int64), token_type_ids)


def batches_of_similar_length(
    lengths: Sequence[int] | Int[np.ndarray, "rows"], batch_size: int
) -> list[Int[np.ndarray, "batch"]]:
    """Return the indices of each batch, so that little padding is needed.

    Args:
        lengths: Tokens of each row, in the caller's order.
        batch_size: Rows in each batch; the last may have fewer.

    Returns:
        Every index once, longest rows first, so that a batch too large for the memory fails at
        the start. Rows of equal length keep their order.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    longest_first = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    return [
        longest_first[start : start + batch_size]
        for start in range(0, len(longest_first), batch_size)
    ]


def _opened(folder: Path, name: str) -> OpenFile:
    try:
        return OpenFile(folder / name)
    except FileNotFoundError as error:
        raise FolderError(f"{folder}: has no {name}; {_how_to_make_it(folder)}") from error


def _read_tokenizer(file: OpenFile) -> Tokenizer:
    try:
        return Tokenizer.from_buffer(file.read_bytes())
    except Exception as error:  # the library raises nothing narrower than Exception itself
        raise FolderError(
            f"{file}: damaged ({error}); {_how_to_make_it(file.path.parent)}"
        ) from error


def _read_config(file: OpenFile) -> dict[str, Any]:
    how_to_make_it = _how_to_make_it(file.path.parent)
    try:
        config = json.loads(file.read_bytes().decode("utf-8"))
    except ValueError as error:  # neither UTF-8 nor JSON
        raise FolderError(f"{file}: damaged ({error}); {how_to_make_it}") from error
    if not isinstance(config, dict):
        raise FolderError(f"{file}: must hold a JSON object; {how_to_make_it}")
    return config


def _truncate(tokenizer: Tokenizer, max_length: int, side: str) -> None:
    special = tokenizer.num_special_tokens_to_add(True)
    if max_length <= special:  # the library would silently truncate nothing
        raise ValueError(
            f"max_length must be above {special}, the special tokens of a pair, got {max_length}"
        )
    tokenizer.enable_truncation(max_length, strategy="longest_first", direction=side)


def _pad_id(folder: Path, tokenizer: Tokenizer, config: dict[str, Any]) -> int:
    token = config.get("pad_token")
    if isinstance(token, dict):  # an AddedToken with its flags
        token = token.get("content")
    if token is None:
        raise FolderError(
            f"{folder / 'tokenizer_config.json'}: names no pad_token; {_how_to_make_it(folder)}"
        )
    pad_id: int | None = tokenizer.token_to_id(token)
    if pad_id is None:
        raise FolderError(
            f"{folder / 'tokenizer.json'}: does not know the pad_token {token!r} of "
            f"tokenizer_config.json; {_how_to_make_it(folder)}"
        )
    return pad_id


def _gives_segments(folder: Path, config: dict[str, Any]) -> bool:
    names, tokenizer_class = config.get("model_input_names"), config.get("tokenizer_class")
    if names is not None:
        return "token_type_ids" in names
    if tokenizer_class is not None:
        return str(tokenizer_class).removesuffix("Fast") in _CLASSES_WITH_SEGMENTS
    raise FolderError(
        f"{folder / 'tokenizer_config.json'}: has neither model_input_names nor tokenizer_class, "
        f"which say whether the model reads segment ids; {_how_to_make_it(folder)}"
    )


def _how_to_make_it(folder: Path) -> str:
    return (
        "with transformers, write it by "
        f"AutoTokenizer.from_pretrained(MODEL).save_pretrained({str(folder)!r})"
    )


def _unreadable(texts: Sequence[object]) -> Iterator[str]:
    """Give a message for each text that cannot be tokenised."""
    for index, item in enumerate(texts):
        for text in item if isinstance(item, tuple) and len(item) == 2 else (item,):
            if not isinstance(text, str):
                yield f"texts[{index}] must be a text or a pair of texts, got {type(item).__name__}"
                continue
            try:
                text.encode("utf-8")
            except UnicodeEncodeError as error:
                yield (
                    f"texts[{index}] holds {text[error.start]!r} at character {error.start}, half "
                    "of a surrogate pair, which is no character; remove or replace it"
                )

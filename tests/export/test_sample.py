"""The built-in texts are of every kind that an export is to be compared on."""

from fastbert.export.sample import SAMPLE_TEXTS


def test_there_are_single_texts_pairs_and_other_scripts() -> None:
    singles = [text for text in SAMPLE_TEXTS if isinstance(text, str)]
    pairs = [text for text in SAMPLE_TEXTS if isinstance(text, tuple)]
    assert len(singles) >= 30
    assert len(pairs) >= 10
    assert any("\u4e00" <= letter <= "\u9fff" for text in singles for letter in text)


def test_lengths_go_from_a_word_to_longer_than_any_model_reads() -> None:
    words = [len(text.split()) for text in SAMPLE_TEXTS if isinstance(text, str)]
    assert min(words) == 1
    assert max(words) > 512


def test_no_text_comes_twice() -> None:
    assert len(set(SAMPLE_TEXTS)) == len(SAMPLE_TEXTS)

"""What a folder tells of another model that taught it."""

import pytest

from fastbert.folder.followed import Followed

FOLLOWED = Followed("big-model", 1_800, 0.9912, 0.9955, 2e9, 12.6e9)


def test_it_is_read_back_as_it_was_told_and_is_not_there_otherwise() -> None:
    assert Followed.of({"texts": "t.csv"} | FOLLOWED.told()) == FOLLOWED
    assert Followed.of({"texts": "t.csv"}) is None


@pytest.mark.parametrize(
    ("teacher_flops", "saving"), [(12.6e9, " at 6.30x fewer FLOPs than it takes"), (None, "")]
)
def test_words_tell_agreement_saving_and_texts(teacher_flops: float | None, saving: str) -> None:
    followed = Followed("big-model", 1_800, 0.9912, 0.9955, 2e9, teacher_flops)
    assert followed.in_words() == (
        f"keeps 99.12% of the answers of big-model{saving}, on 1,800 texts that were held out"
    )
    assert followed.quality == "agreement with big-model"

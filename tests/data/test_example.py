"""What a row that can be used holds."""

from fastbert.data.example import Example


def test_the_content_of_an_example_is_its_text_or_its_pair() -> None:
    assert Example("x:1", "a").content == "a"
    assert Example("x:1", "a", "").content == ("a", "")

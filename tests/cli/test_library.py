"""What the commands call: each name found where it is said to be, when it is first asked for."""

from importlib import import_module

import pytest

from fastbert.cli import library


@pytest.mark.parametrize("name", sorted(library.HOMES))
def test_each_name_is_what_its_home_calls_so(name: str) -> None:
    assert getattr(library, name) is getattr(import_module(library.HOMES[name]), name)


def test_what_is_said_to_be_there_is_there() -> None:
    assert set(library.__all__) == {"HOMES", *library.HOMES}


def test_another_name_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match=r"module 'fastbert\.cli\.library' has no .*'lerner'"):
        library.lerner  # noqa: B018

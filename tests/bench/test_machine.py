"""What a measurement ran on, and the threads it was held to."""

import logging
import os

import pytest
import torch

from fastbert.bench import machine as facts


def test_the_machine_is_described() -> None:
    found = facts.machine()
    assert found.keys() == {"processor", "cores", "flags", "load", "system", "python"}
    assert found["cores"] == os.cpu_count()
    assert found["processor"]


@pytest.mark.parametrize(("load", "warns"), [(0.9, False), (1.1, True)])
def test_a_busy_machine_is_warned_of(
    load: float, warns: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    with caplog.at_level(logging.WARNING):
        facts.warn_if_busy()
    assert [f"load {load:.1f}" in line for line in caplog.messages] == [True] * warns


def test_threads_are_limited_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "true")
    monkeypatch.delenv("RAYON_NUM_THREADS", raising=False)
    before = torch.get_num_threads()
    with facts.limited(1):
        assert torch.get_num_threads() == 1
        assert os.environ["TOKENIZERS_PARALLELISM"] == "false"
        assert os.environ["RAYON_NUM_THREADS"] == "1"
    with facts.limited(3):
        assert torch.get_num_threads() == 3
        assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert torch.get_num_threads() == before
    assert os.environ["TOKENIZERS_PARALLELISM"] == "true"
    assert "RAYON_NUM_THREADS" not in os.environ

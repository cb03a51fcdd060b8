"""The processor is named by what the system says of it."""

import os
import platform
from pathlib import Path

import pytest

from fastbert import processor
from fastbert.processor import processor_name, usable_cores, vector_extensions

X86 = "model name\t: A Processor\nflags\t\t: fpu sse avx2 avx512f avx_vnni\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp\n"


@pytest.mark.parametrize(
    ("content", "name", "extensions"),
    [
        (X86 + X86, "A Processor", ["avx2", "avx_vnni", "avx512f"]),
        (ARM, platform.processor() or platform.machine(), ["asimd", "asimddp"]),
    ],
)
def test_the_processor_and_its_vector_extensions_are_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    name: str,
    extensions: list[str],
) -> None:
    (tmp_path / "cpuinfo").write_text(content)
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "cpuinfo")
    assert (processor_name(), vector_extensions()) == (name, extensions)


def test_without_proc_the_processor_has_a_name_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processor, "CPU_INFO", tmp_path / "absent")
    assert processor_name()
    assert vector_extensions() == []


def test_the_cores_are_those_that_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 5, 7}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 9)
    assert usable_cores() == 9

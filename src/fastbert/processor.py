"""Which processor this is, as far as the system tells."""

import platform
from functools import cache
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Return the processor's name."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def instruction_sets() -> frozenset[str]:
    """Return the names of the processor's instruction sets; none are known but on Linux."""
    return frozenset(_cpu_info().get("flags", "").split())


@cache
def _cpu_info() -> dict[str, str]:
    """Return what Linux says of the first core."""
    if not CPU_INFO.is_file():
        return {}
    found: dict[str, str] = {}
    for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found

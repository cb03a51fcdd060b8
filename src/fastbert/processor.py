"""Which processor this is, as far as the system tells."""

import os
import platform
from pathlib import Path

CPU_INFO = Path("/proc/cpuinfo")
# Vector extensions that decide how fast products are, on x86-64 and on Arm.
EXTENSIONS = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)


def processor_name() -> str:
    """Return the processor's name."""
    return _cpu_info().get("model name") or platform.processor() or platform.machine()


def vector_extensions() -> list[str]:
    """Return which of `EXTENSIONS` the processor has; none are known but on Linux."""
    found = _cpu_info()
    flags = (found.get("flags") or found.get("Features") or "").split()  # Arm says Features
    return [extension for extension in EXTENSIONS if extension in flags]


def usable_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_info() -> dict[str, str]:
    """Return what Linux says of the first core."""
    if not CPU_INFO.is_file():
        return {}
    found: dict[str, str] = {}
    for line in CPU_INFO.read_text(encoding="utf-8").splitlines():
        name, _, value = line.partition(":")
        found.setdefault(name.strip(), value.strip())
    return found

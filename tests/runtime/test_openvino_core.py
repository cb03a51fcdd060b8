"""What OpenVINO leaves behind on the thread that loads it."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the layout is that of Linux")

# In a process of its own, where no plugin has been loaded yet.
PROGRAM = """
from fastbert.runtime.openvino_core import SignalStack, open_core
def told():
    stack = SignalStack.current()
    return stack.start, stack.flags, stack.size
before = told()
{given}
cores = [open_core(), open_core()]  # one that is gone takes its stack with it
print(told() == before)
"""
OWN_STACK = """
import ctypes
own = ctypes.create_string_buffer(1 << 18)
SignalStack(ctypes.addressof(own), 0, len(own)).put_back()
before = told()
"""


@pytest.mark.parametrize("given", ["", OWN_STACK], ids=["none", "one of its own"])
def test_a_thread_keeps_its_signal_stack(given: str) -> None:
    program = PROGRAM.format(given=given)
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert shown.stdout == "True\n", shown.stderr

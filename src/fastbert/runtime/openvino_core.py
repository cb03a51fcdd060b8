"""OpenVINO for this processor, without a mark on the thread that loads it.

Its plugin gives the loading thread an alternate signal stack that just holds what the kernel saves
of the wide registers. Python runs its handlers on such a stack (SA_ONSTACK), so ^C ended a process
with a segmentation fault, wherever no readable memory happened to lie below. The thread gets the
stack back that it had: with none, handlers run on the thread's own.
"""

import ctypes
import sys

from openvino import Core


class SignalStack(ctypes.Structure):
    """The alternate signal stack of a thread: `stack_t` of Linux."""

    _fields_ = (("start", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))

    @classmethod
    def current(cls) -> "SignalStack":
        """Return that of this thread."""
        stack = cls()
        ctypes.CDLL(None).sigaltstack(None, ctypes.byref(stack))
        return stack

    def put_back(self) -> None:
        """Make it this thread's again."""
        ctypes.CDLL(None).sigaltstack(ctypes.byref(self), None)


def open_core() -> Core:
    """Return OpenVINO with its plugin for the processor loaded."""
    core = Core()
    stack = SignalStack.current() if sys.platform == "linux" else None
    core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")  # loads the plugin
    if stack is not None:
        stack.put_back()
    return core

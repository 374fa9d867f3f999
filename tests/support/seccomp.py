"""System calls that fail as they would on an odd file system, by a seccomp filter."""

import ctypes
import os
import platform
import sys
from collections.abc import Callable

#: The numbers of the system calls, by machine.
CALLS = {"x86_64": {"flock": 73, "fsync": 74}, "aarch64": {"flock": 32, "fsync": 82}}

has_filters = sys.platform == "linux" and platform.machine() in CALLS


class _Step(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("then", ctypes.c_ubyte),
        ("otherwise", ctypes.c_ubyte),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.POINTER(_Step)))


def fail_system_call(call: str, number: int) -> Callable[[], None]:
    """Returns what makes a system call fail with an error number, in this process and its children.

    It cannot be undone. https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html
    """
    fail, go_on = _Step(0x06, 0, 0, 0x50000 | number), _Step(0x06, 0, 0, 0x7FFF0000)
    # Load the number of the call, and compare it.
    asked = (_Step(0x20, 0, 0, 0), _Step(0x15, 0, 1, CALLS[platform.machine()][call]))
    program = _Program(4, (_Step * 4)(*asked, fail, go_on))
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def refuse() -> None:
        # No new privileges; then the filter.
        if prctl(38, 1, 0, 0, 0) or prctl(22, 2, ctypes.byref(program), 0, 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return refuse

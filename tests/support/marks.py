"""What tests are marked with; apart from `kernel`, which processes read that have no use for pytest."""

from __future__ import annotations

import pytest

from tests.support import seccomp

on_linux = pytest.mark.skipif(not seccomp.has_filters, reason="filters of system calls are Linux's")

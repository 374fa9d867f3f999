"""Marks of tests; apart from `seccomp`, which is imported by processes that do without pytest."""

import pytest

from tests.support import seccomp

on_linux = pytest.mark.skipif(not seccomp.has_filters, reason="filters of system calls are Linux's")

"""What holds for all tests."""

from __future__ import annotations

import gc
import os

import hypothesis  # noqa: F401 - it asks the collector about trio's random numbers: before they are frozen
import pytest

from tests import parsed


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: now and then one of them waits for a process or a clock."""
    return (os.cpu_count() or 1) + 1


def pytest_collection_finish() -> None:
    """What was read by now stays: no collection of garbage need look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def botocores_data_is_read_once():
    end = parsed.once()
    yield
    end()

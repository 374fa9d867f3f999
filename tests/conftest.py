"""What holds for all tests."""

from __future__ import annotations

import gc
import importlib
import os
from contextlib import ExitStack

import hypothesis  # noqa: F401 - it asks the collector about trio's random numbers: before they are frozen
import pytest

from tests import parsed

#: Where the processes that the workers start are born.
NURSERY = pytest.StashKey[str]()


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: now and then one of them waits for a process or a clock."""
    return (os.cpu_count() or 1) + 1


def pytest_xdist_setupnodes(config) -> None:
    """Open one nursery for all workers; and work out Hypothesis's table of characters, which it keeps."""
    from hypothesis import strategies as st

    from tests.nursery import opened
    from tests.processes import CRADLE

    life = ExitStack()
    config.add_cleanup(life.close)
    config.stash[NURSERY] = life.enter_context(opened(CRADLE)).address
    st.text().validate()


def pytest_configure_node(node) -> None:
    """Tell a worker of it."""
    node.workerinput["nursery"] = node.config.stash[NURSERY]


def pytest_configure(config) -> None:
    """In a worker, be told."""
    if address := getattr(config, "workerinput", {}).get("nursery"):
        from tests.processes import share_nursery

        share_nursery(address)


def pytest_collection_finish() -> None:
    """What was read by now stays: no collection of garbage need look at it again."""
    # It looks for what holds trio's generator of chance, which it would not see once that is frozen.
    importlib.import_module("hypothesis")
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def botocores_data_is_read_once():
    end = parsed.once()
    yield
    end()

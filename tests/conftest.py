"""What holds for all tests."""

from __future__ import annotations

import gc
import os
from contextlib import ExitStack

import pytest
from hypothesis import strategies as st

from tests.support import botocore_cache

#: Where the processes that the workers start are born.
NURSERY = pytest.StashKey[str]()


def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: some of them always wait for a process or a clock."""
    return (os.cpu_count() or 1) + 2


def pytest_xdist_setupnodes(config) -> None:
    """Open one nursery for all workers; and work out Hypothesis's table of characters, which it keeps."""
    from tests.support.fork_server import opened
    from tests.support.processes import CRADLE

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
        from tests.support.processes import share_nursery

        share_nursery(address)


def pytest_collection_finish() -> None:
    """What was read by now stays: no collection of garbage need look at it again.

    Hypothesis was read before: it looks for what holds trio's generator of chance, and would not see it.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def botocores_data_is_read_once():
    end = botocore_cache.once()
    yield
    end()

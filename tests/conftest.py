"""Set-up of all tests."""

import gc
import os
import socket
import sys
from contextlib import ExitStack, suppress
from importlib import import_module
from pathlib import Path

import pytest
from hypothesis import strategies as st

from tests.support import botocore_cache

# Bytecode is always kept: else each worker compiles all tests again, and each process what it imports.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# aiohttp reads all authorities of the system twice as it is imported.
os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("support") / "ca.pem")

#: The address of the fork server that all workers share.
FORK_SERVER = pytest.StashKey[str]()


def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: some of them always wait for a process or a clock."""
    return (os.cpu_count() or 1) + 2


def pytest_xdist_setupnodes(config) -> None:
    """Start one fork server for all workers; let Hypothesis compute its table of characters once."""
    from tests.support.fork_server import start_fork_server
    from tests.support.processes import SERVER_ENVIRONMENT

    life = ExitStack()
    config.add_cleanup(life.close)
    config.stash[FORK_SERVER] = life.enter_context(start_fork_server(SERVER_ENVIRONMENT)).address
    st.text().validate()


def pytest_configure_node(node) -> None:
    """Give a worker the address."""
    node.workerinput["fork_server"] = node.config.stash[FORK_SERVER]


def pytest_configure(config) -> None:
    """In a worker, use that server."""
    if address := getattr(config, "workerinput", {}).get("fork_server"):
        from tests.support.processes import use_fork_server

        use_fork_server(address)


def pytest_sessionstart(session) -> None:
    """Where all tests are run, let each worker import some modules first: then each is rewritten once."""
    if (worker := getattr(session.config, "workerinput", None)) and session.config.args == ["tests"]:
        modules = sorted(Path(__file__).parent.rglob("test_*.py"))
        for path in modules[int(worker["workerid"][2:]) :: worker["workercount"]]:
            # The collection imports it again, and reports what is wrong with it.
            with suppress(Exception, pytest.skip.Exception):
                import_module(".".join(path.relative_to(session.config.rootpath).with_suffix("").parts))


def pytest_collection_finish() -> None:
    """Freeze what was imported, so that garbage collections skip it, and collect less often.

    Hypothesis is imported before: it searches the objects for references to trio's random generator.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(scope="session", autouse=True)
def botocore_data_is_loaded_once():
    end = botocore_cache.once()
    yield
    end()


@pytest.fixture(scope="module")
def trap():
    """The URL of a socket to which no test may connect."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.fixture
def cwd(tmp_path, monkeypatch):
    """An empty working folder of this process, and no AWS configuration but our own."""
    from tests.support.processes import move_in

    move_in(monkeypatch, tmp_path)
    return tmp_path


@pytest.fixture
def place(tmp_path):
    """A folder to run commands in."""
    from tests.support.processes import Place

    return Place(tmp_path)


@pytest.fixture
def anyio_backend():
    """Tests that wait run in virtual time."""
    from trio.testing import MockClock

    return ("trio", {"clock": MockClock(autojump_threshold=0)})

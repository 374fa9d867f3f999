"""Where processes of the program are born by a fork, so that what each would read is read once.

They are processes like any other: a folder, an environment, streams, signals and an exit code of
their own, and `batch_snapshot.__main__` from its first line to the last that was to be done at its exit.
What they lack is the second that each would spend on imports and on botocore's data, the clearing of
all that was imported, and a command line of their own in the process list.

A nursery is a process of one thread, for it is safe to fork such a one alone; `run` is its life. Any number
of processes may ask it: all the workers of the tests share one.
"""

from __future__ import annotations

import asyncio
import atexit
import gc
import importlib
import json
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

#: Variables that the interpreter reads as it starts: those that are born get the nursery's.
_ITS_OWN = ("PYTHON", "LC_", "LANG")

#: Modules that import Dask, which takes half a second.
CLUSTER = ("cluster.carrier", "cluster.dask_client", "cluster.posts")


class Order(NamedTuple):
    """What is to be run, and where."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    #: Bytes beyond which it can write to no file; None: as many as there is room for.
    largest: int | None = None
    #: Whether it dies where it tries to.
    deadly: bool = False
    #: What is run.
    module: str = "batch_snapshot"


# -- in the nursery ----------------------------------------------------------------------------------


def run(orders: socket.socket, *, dask: bool) -> str:
    """Give birth for as long as its owner lives; returns in those that are born, with what they run."""
    _read_everything(dask=dask)
    assert threading.active_count() == 1, "what is read here must start no thread"
    # What was read stays where it is, for all of them.
    gc.freeze()
    while _awaited(orders):
        asked = _receive(orders)
        if not os.fork():
            orders.close()
            return _be_born(*asked)
        for descriptor in asked[1]:
            os.close(descriptor)
        _reap()
    # Nothing is left that would be worth an orderly end.
    os._exit(0)


def _awaited(orders: socket.socket) -> bool:
    """Wait for an order, or for the end of standard input, which is that of the owner."""
    return sys.stdin not in select.select([sys.stdin, orders], [], [])[0]


def _read_everything(*, dask: bool) -> None:
    import batch_snapshot

    # Wherever the package is installed, the tests are here.
    sys.path.append(here := str(Path(__file__).parents[2]))
    from tests.support import botocore_cache

    sys.path.remove(here)
    botocore_cache.once()
    botocore_cache.ahead()

    for module in pkgutil.walk_packages(batch_snapshot.__path__, "batch_snapshot."):
        if not module.name.endswith(("__main__", *([] if dask else CLUSTER))):
            importlib.import_module(module.name)
    # What the first run reads: how anyio runs on asyncio, the bounds that the service's model sets, and what
    # botocore registers in each session.
    importlib.import_module("anyio._backends._asyncio")
    importlib.import_module("batch_snapshot.aws.http").new_session()
    importlib.import_module("batch_snapshot.manifest.service_model").row_input()
    if dask:
        importlib.import_module("distributed.cli.dask_scheduler")
        importlib.import_module("distributed.cli.dask_worker")


def _receive(orders: socket.socket) -> tuple[Order, list[int]]:
    asking, _ = orders.accept()
    with asking:
        head, descriptors, _, _ = socket.recv_fds(asking, 8, 4, socket.MSG_WAITALL)
        body = asking.recv(int(head), socket.MSG_WAITALL)
    return Order(*json.loads(body)), list(descriptors)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _be_born(order: Order, descriptors: Sequence[int]) -> str:
    """Return in the process that is to be the program; this one waits for it, and tells how it ended."""
    *streams, report = descriptors
    if pid := os.fork():
        for stream in (0, 1, 2, *streams):
            os.close(stream)
        os.write(report, f"{pid}\n".encode())
        status = os.waitpid(pid, 0)[1]
        os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.close(report)
    _settle(order, streams)
    return order.module


def _settle(order: Order, streams: Sequence[int]) -> None:
    """Make the process what it would be if it had just been started."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.chdir(order.folder)
    os.environ.clear()
    os.environ.update(order.environment)
    time.tzset()
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in order.environment
    sys.path.insert(0, order.folder)
    sys.argv[1:] = order.arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if order.largest is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (order.largest, resource.RLIM_INFINITY))
        # The interpreter has it ignored.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if order.deadly else signal.SIG_IGN)


def _end(ending: SystemExit) -> None:
    """End as the interpreter would, but clear no modules; what is out of the ordinary is left to it."""
    code = 0 if ending.code is None else ending.code
    if not isinstance(code, int):
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code & 0xFF)


# -- for those who ask -------------------------------------------------------------------------------


class Born:
    """A process out of the nursery, as `asyncio.subprocess.Process` would have it."""

    def __init__(
        self, pid: int, report: asyncio.StreamReader, outputs: Sequence[asyncio.StreamReader | None]
    ):
        self.pid = pid
        self.returncode: int | None = None
        self._outputs = outputs
        self._ending = asyncio.ensure_future(self._ended(report))

    async def _ended(self, report: asyncio.StreamReader) -> None:
        self.returncode = int(await report.readline())
        await report.read()

    def send_signal(self, number: int) -> None:
        if self.returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    async def wait(self) -> int:
        """Wait for its end; the exit code."""
        await asyncio.shield(self._ending)
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes | None, bytes | None]:
        """Wait for its end; what it wrote, where that was not given another place."""
        out, err, _ = await asyncio.gather(*map(_everything, self._outputs), self._ending)
        return out, err


async def _everything(stream: asyncio.StreamReader | None) -> bytes | None:
    return None if stream is None else await stream.read()


class Nursery(NamedTuple):
    """A nursery that can be asked by whoever knows where."""

    #: Of the socket that takes orders.
    address: str
    #: Its interpreter's.
    environment: Mapping[str, str]

    async def start(self, order: Order, stdin: Any, stdout: Any, stderr: Any) -> Born:
        """Let a process be born; streams are as for `asyncio.create_subprocess_exec`."""
        wanted = _of_interpreters(order.environment)
        assert wanted == _of_interpreters(self.environment), "that takes an interpreter of its own"
        given, outputs = [_descriptor(stdin)], []
        for stream in (stdout, stderr):
            reader, writer = (None, _descriptor(stream)) if stream != subprocess.PIPE else await _pipe()
            given.append(writer)
            outputs.append(reader)
        report, reporter = await _pipe()
        given.append(reporter)
        body = json.dumps(order).encode()
        with socket.socket(socket.AF_UNIX) as asking:
            asking.connect(self.address)
            socket.send_fds(asking, [b"%8d" % len(body)], given)
            asking.sendall(body)
        for descriptor in given:
            os.close(descriptor)
        return Born(int(await report.readline()), report, outputs)


@contextmanager
def opened(environment: Mapping[str, str], *, dask: bool = False) -> Iterator[Nursery]:
    """A nursery for the length of the block: what is born of it must have ended by then.

    Args:
        environment: its interpreter's.
        dask: whether what Dask needs is read, too.
    """
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as orders:
        address = str(Path(folder, "orders"))
        orders.bind(address)
        # As many as may ask before all is read: they wait.
        orders.listen(100)
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(orders.fileno()), "dask" if dask else ""],
            env=dict(environment),
            pass_fds=[orders.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        with process:
            try:
                yield Nursery(address, environment)
            finally:
                process.kill()


def _of_interpreters(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_ITS_OWN) and name != "PYTHONDONTWRITEBYTECODE"
    }


def _descriptor(stream: Any) -> int:
    """A descriptor of our own for a stream that is given."""
    if stream == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR)
    return os.dup(stream if isinstance(stream, int) else stream.fileno())


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    """What reads a pipe to its end, and the descriptor to write to."""
    source, writer = os.pipe()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0)
    )
    return reader, writer


if __name__ == "__main__":
    born = run(socket.socket(fileno=int(sys.argv[1])), dask=sys.argv[2] == "dask")
    try:
        runpy.run_module(born, run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        _end(ending)
        raise

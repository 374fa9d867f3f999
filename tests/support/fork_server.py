"""A fork server for processes of the program: one process imports everything, then forks for each.

The forked processes are real: folder, environment, streams, signals and exit code of their own, and
`batch_snapshot.__main__` from its first line to its exit functions. They save the second of imports and of
botocore's data. They have no command line of their own in the process list, and modules are not cleared.

The server has one thread, for only such a process can be forked safely. All test workers share one.
"""

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
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

#: Variables that the interpreter reads as it starts: forked processes have the server's.
_INTERPRETER_VARIABLES = ("PYTHON", "LC_", "LANG")

#: Modules that import Dask, which takes half a second.
DASK_MODULES = ("cluster.dask_client", "cluster.worker")


class ProcessSpec(NamedTuple):
    """What to run, and where."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    #: Largest size in bytes of a file that it writes; None: no limit.
    largest: int | None = None
    #: Whether exceeding that size kills it.
    deadly: bool = False
    module: str = "batch_snapshot"


# -- in the server -----------------------------------------------------------------------------------


def run(requests: socket.socket, *, dask: bool) -> str:
    """Fork on request for as long as the owner lives; returns in each fork, with the module to run."""
    _import_everything(dask=dask)
    assert threading.active_count() == 1, "what is read here must start no thread"
    # All forks share the pages of what was imported.
    gc.freeze()
    while _wait_for_request(requests):
        asked = _receive(requests)
        if not os.fork():
            requests.close()
            return _start_program(*asked)
        for descriptor in asked[1]:
            os.close(descriptor)
        _reap()
    # No exit functions: they belong to the forks.
    os._exit(0)


def _wait_for_request(requests: socket.socket) -> bool:
    """Wait for a request; False: standard input has ended, and with it the owner."""
    return sys.stdin not in select.select([sys.stdin, requests], [], [])[0]


def _import_everything(*, dask: bool) -> None:
    import batch_snapshot

    # Wherever the package is installed, the tests are here.
    sys.path.append(here := str(Path(__file__).parents[2]))
    from tests.support import botocore_cache

    sys.path.remove(here)
    botocore_cache.once()
    botocore_cache.ahead()

    for module in pkgutil.walk_packages(batch_snapshot.__path__, "batch_snapshot."):
        if not module.name.endswith(("__main__", *([] if dask else DASK_MODULES))):
            importlib.import_module(module.name)
    # What a run imports or reads later: anyio's asyncio backend, the service's model, botocore's session.
    importlib.import_module("anyio._backends._asyncio")
    importlib.import_module("batch_snapshot.aws.http").new_session()
    importlib.import_module("batch_snapshot.manifest.service_model").row_input()
    if dask:
        importlib.import_module("distributed.cli.dask_scheduler")
        importlib.import_module("distributed.cli.dask_worker")


def _receive(requests: socket.socket) -> tuple[ProcessSpec, list[int]]:
    connection, _ = requests.accept()
    with connection:
        head, descriptors, _, _ = socket.recv_fds(connection, 8, 4, socket.MSG_WAITALL)
        body = connection.recv(int(head), socket.MSG_WAITALL)
    return ProcessSpec(*json.loads(body)), list(descriptors)


def _reap() -> None:
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _start_program(spec: ProcessSpec, descriptors: Sequence[int]) -> str:
    """Fork once more and return in the new process; this one waits for it and reports its exit code."""
    *streams, report = descriptors
    if pid := os.fork():
        for stream in (0, 1, 2, *streams):
            os.close(stream)
        os.write(report, f"{pid}\n".encode())
        status = os.waitpid(pid, 0)[1]
        os.write(report, f"{os.waitstatus_to_exitcode(status)}\n".encode())
        os._exit(0)
    os.close(report)
    _prepare(spec, streams)
    return spec.module


def _prepare(spec: ProcessSpec, streams: Sequence[int]) -> None:
    """Give the process the state of one that an interpreter has just started."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout.reconfigure(line_buffering=os.isatty(1))  # type: ignore[union-attr]
    os.chdir(spec.folder)
    os.environ.clear()
    os.environ.update(spec.environment)
    time.tzset()
    sys.dont_write_bytecode = "PYTHONDONTWRITEBYTECODE" in spec.environment
    sys.path.insert(0, spec.folder)
    sys.argv[1:] = spec.arguments
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    if spec.largest is not None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (spec.largest, resource.RLIM_INFINITY))
        # The interpreter ignores it.
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if spec.deadly else signal.SIG_IGN)


def _end(ending: SystemExit) -> None:
    """Exit as the interpreter would, but clear no modules; anything unusual is left to the interpreter."""
    code = 0 if ending.code is None else ending.code
    if not isinstance(code, int):
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    with suppress(OSError, ValueError):
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code & 0xFF)


# -- in the tests ------------------------------------------------------------------------------------


class ForkedProcess:
    """A forked process with the methods of `asyncio.subprocess.Process`."""

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
        await asyncio.shield(self._ending)
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes | None, bytes | None]:
        """Wait for its end; what it wrote to its pipes."""
        out, err, _ = await asyncio.gather(*map(_read, self._outputs), self._ending)
        return out, err


async def _read(stream: asyncio.StreamReader | None) -> bytes | None:
    return None if stream is None else await stream.read()


class ForkServer(NamedTuple):
    """A running fork server."""

    #: Of the socket that takes requests.
    address: str
    environment: Mapping[str, str]

    async def start(self, spec: ProcessSpec, stdin: Any, stdout: Any, stderr: Any) -> ForkedProcess:
        """Start a process; streams are as for `asyncio.create_subprocess_exec`."""
        wanted = _interpreter_variables(spec.environment)
        assert wanted == _interpreter_variables(self.environment), "that takes an interpreter of its own"
        given, outputs = [_descriptor(stdin)], []
        for stream in (stdout, stderr):
            reader, writer = (None, _descriptor(stream)) if stream != subprocess.PIPE else await _pipe()
            given.append(writer)
            outputs.append(reader)
        report, reporter = await _pipe()
        given.append(reporter)
        body = json.dumps(spec).encode()
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self.address)
            socket.send_fds(connection, [b"%8d" % len(body)], given)
            connection.sendall(body)
        for descriptor in given:
            os.close(descriptor)
        return ForkedProcess(int(await report.readline()), report, outputs)


@contextmanager
def start_fork_server(environment: Mapping[str, str], *, dask: bool = False) -> Iterator[ForkServer]:
    """A fork server for the length of the block; its processes must have ended by then.

    Args:
        environment: its interpreter's.
        dask: whether it imports Dask, too.
    """
    with TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as requests:
        address = str(Path(folder, "requests"))
        requests.bind(address)
        # Requests wait until everything is imported.
        requests.listen(100)
        process = subprocess.Popen(
            [sys.executable, "-P", __file__, str(requests.fileno()), "dask" if dask else ""],
            env=dict(environment),
            pass_fds=[requests.fileno()],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        with process:
            try:
                yield ForkServer(address, environment)
            finally:
                process.kill()


def _interpreter_variables(environment: Mapping[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_INTERPRETER_VARIABLES) and name != "PYTHONDONTWRITEBYTECODE"
    }


def _descriptor(stream: Any) -> int:
    """A new descriptor for a stream of the caller."""
    if stream == subprocess.DEVNULL:
        return os.open(os.devnull, os.O_RDWR)
    return os.dup(stream if isinstance(stream, int) else stream.fileno())


async def _pipe() -> tuple[asyncio.StreamReader, int]:
    """The reader of a new pipe, and the descriptor to write to."""
    source, writer = os.pipe()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(source, "rb", 0)
    )
    return reader, writer


if __name__ == "__main__":
    module = run(socket.socket(fileno=int(sys.argv[1])), dask=sys.argv[2] == "dask")
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ending:
        _end(ending)
        raise

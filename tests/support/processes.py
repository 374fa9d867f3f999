"""The program as its users run it: real processes, their folder, and the ledgers they leave.

A `Place` is a folder with an environment without the machine's own AWS configuration, which reaches nothing
but loopback.
"""

import asyncio
import atexit
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

import aiohttp
import pytest

import batch_snapshot
from batch_snapshot.simulator import Simulator
from tests.support.fork_server import ForkedProcess, ForkServer, ProcessSpec, start_fork_server

TEMPLATE = "OpportunitySummaryView"

#: Seconds that a test waits for anything; far more than it takes.
PATIENCE = 30.0

Json = dict[str, Any]


# -- manifests ---------------------------------------------------------------------------------------


def pairs(number: int, first: int = 0, **more: str) -> list[Json]:
    """So many pairs, each with an engagement of its own."""
    return [
        {"engagement": f"eng-{n:014d}", "resource": f"O{n + 1}", **more} for n in range(first, first + number)
    ]


def write_manifest(
    path: Path,
    rows: Iterable[Json],
    *,
    name: str = "trial",
    catalog: str = "Sandbox",
    accounts: Mapping[str, Json] | None = None,
) -> Path:
    """Write a manifest of these pairs, each on a line of its own."""
    head = [
        "version: 1",
        f"name: {name}",
        f"defaults: {json.dumps({'catalog': catalog})}",
        *([f"accounts: {json.dumps(accounts)}"] if accounts else []),
        "pairs:",
    ]
    path.write_text("\n".join([*head, *(f"- {json.dumps(row)}" for row in rows), ""]), "utf-8")
    return path


# -- ledgers -----------------------------------------------------------------------------------------


def write_profiles(path: Path, **keys: str) -> str:
    """Write a credentials file with a profile for each access key id; returns its path."""
    profile = "[{}]\naws_access_key_id = {}\naws_secret_access_key = hush-hush\n"
    path.write_text("".join(profile.format(*each) for each in keys.items()), "utf-8")
    return str(path)


def ledger_lines(path: Path) -> list[Json]:
    """The whole lines of a ledger; a torn last one is none."""
    if not path.exists():
        return []
    whole, _, _ = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def of_type(path: Path, kind: str) -> list[Json]:
    """The lines of one type, in their spec."""
    return [line for line in ledger_lines(path) if line["type"] == kind]


def results(path: Path) -> dict[tuple[str, ...], Json]:
    """The last result of each row, by (account, engagement, resource, template)."""
    keys = ("account", "engagement", "resource", "template")
    return {tuple(line[key] for key in keys): line for line in of_type(path, "result")}


def by_engagement(path: Path) -> dict[str, Json]:
    """The last result of each row, where engagements tell rows apart."""
    return {key[1]: line for key, line in results(path).items()}


def assert_exactly_once(simulator: Simulator, path: Path, rows: Sequence[Json]) -> None:
    """Each row has one snapshot at the service, and the ledger names it."""
    wanted = Counter((row["engagement"], row["resource"], row.get("template", TEMPLATE)) for row in rows)
    made = simulator.snapshots
    assert Counter((made.engagement, made.resource, made.template) for made in made) == wanted
    named = results(path).values()
    assert {line["status"] for line in named} <= {"succeeded"}
    assert sorted((line["arn"], line["revision"]) for line in named) == sorted(
        (snapshot.arn, snapshot.revision) for snapshot in made
    )
    assert simulator.pair_overlaps == 0


# -- processes ---------------------------------------------------------------------------------------


#: What an interpreter reads as it starts.
INTERPRETER = {
    # The package that the tests import is the one to run.
    "PYTHONPATH": str(Path(batch_snapshot.__file__).parent.parent),
    "LC_ALL": "C.UTF-8",
}


#: The certificate of one authority.
AUTHORITY = Path(__file__).with_name("ca.pem")


def environment(folder: Path) -> dict[str, str]:
    """An environment in which the only credentials are made up, and the network ends at loopback."""
    nowhere = str(folder / "nowhere")
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        **INTERPRETER,
        "HOME": str(folder / "home"),
        "XDG_STATE_HOME": str(folder / "xdg"),
        "BATCH_SNAPSHOT_STATE_DIR": str(folder / "state"),
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE000000000",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-example",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": nowhere,
        "AWS_SHARED_CREDENTIALS_FILE": nowhere,
        # Nothing uses TLS; reading all the authorities takes longer than most runs.
        "AWS_CA_BUNDLE": str(AUTHORITY),
        "SSL_CERT_FILE": str(AUTHORITY),
        # A test that is wrong about the endpoint must not leave the machine.
        "HTTPS_PROXY": "http://127.0.0.1:9",
        "NO_PROXY": "127.0.0.1,localhost",
    }


class Finished(NamedTuple):
    """How a process ended, and what it wrote."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Its standard output, which must be one JSON value."""
        return json.loads(self.stdout)


#: The end of a script that runs before the program.
_PROGRAM = 'import runpy\nrunpy.run_module("batch_snapshot", run_name="__main__", alter_sys=True)\n'


def first(source: str) -> str:
    """A script that runs `source` and then the program."""
    return f"{source}\n{_PROGRAM}"


def closing(stream: str) -> str:
    """Python that closes a stream of `sys`, as a shell does by `>&-`."""
    number = ("stdin", "stdout", "stderr").index(stream)
    return f"""
import os, sys
os.close({number})
sys.{stream} = sys.__{stream}__ = None
"""


class Child:
    """A process whose output is read all the time, so that it never waits for a reader."""

    def __init__(self, process: asyncio.subprocess.Process | ForkedProcess) -> None:
        self._process = process
        self._reading = asyncio.ensure_future(process.communicate())

    @property
    def running(self) -> bool:
        return self._process.returncode is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    async def finished(self, patience: float = PATIENCE) -> Finished:
        """Wait so many seconds for its end; fails if it wrote a traceback."""
        stdout, stderr = await asyncio.wait_for(asyncio.shield(self._reading), patience)
        code = self._process.returncode
        assert code is not None
        ended = Finished(code, (stdout or b"").decode(), (stderr or b"").decode())
        assert "Traceback" not in ended.stderr, ended.stderr
        return ended

    async def close(self) -> None:
        if self.running:
            self._process.kill()
        await self._reading


#: The environment of a fork server.
SERVER_ENVIRONMENT = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ} | INTERPRETER


def use_fork_server(address: str) -> None:
    """Start this process's children by the fork server at `address`; call it before there are any."""
    _shared.append(ForkServer(address, SERVER_ENVIRONMENT))


_shared: list[ForkServer] = []


@cache
def fork_server(*, dask: bool = False) -> ForkServer:
    """The fork server of this process; the one for Dask clusters has imported Dask."""
    if _shared and not dask:
        return _shared[0]
    life = ExitStack()
    atexit.register(life.close)
    return life.enter_context(start_fork_server(SERVER_ENVIRONMENT, dask=dask))


def move_in(monkeypatch: pytest.MonkeyPatch, folder: Path, environ: Mapping[str, str] | None = None) -> None:
    """Run this process in `folder`, with no configuration but `environ` (by default, the folder's)."""
    for name in os.environ:
        if name.startswith(("AWS_", "BATCH_SNAPSHOT_", "OTEL_", "XDG_")) or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    for name, value in (environment(folder) if environ is None else environ).items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(folder)


class Place:
    """A folder to run in."""

    #: Flags of an interpreter of its own for each process; None: processes are forked.
    python: Sequence[str] | None = None
    #: Whether the fork server has imported Dask.
    dask = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.env = environment(folder)
        (folder / "home").mkdir(exist_ok=True)

    def manifest(self, rows: Iterable[Json], file: str = "trial.yaml", **more: Any) -> Path:
        """Write a manifest here; see `write_manifest`."""
        return write_manifest(self.folder / file, rows, **more)

    @property
    def ledger(self) -> Path:
        """Where the ledger of the manifest called `trial` lies when nothing else was said."""
        return self.folder / "ledgers" / "trial.ndjson"

    @asynccontextmanager
    async def started(
        self,
        *arguments: str | Path,
        python: Sequence[str] | None = None,
        script: str | None = None,
        largest: int | None = None,
        deadly: bool = False,
        **streams: Any,
    ) -> AsyncIterator[Child]:
        """Start `python -m batch_snapshot ARGUMENTS`; it is killed if the block leaves it running.

        It is forked unless `python` asks for an interpreter of its own.

        Args:
            arguments: the command line.
            python: flags of the interpreter; none are needed.
            script: Python that a forked process runs instead of the program, or before it (`first`).
            largest: largest size in bytes of a file that a forked process writes.
            deadly: whether the kernel kills it beyond that size, or the write fails.
            streams: stdin, stdout and stderr, where they are not to be empty or captured.
        """
        chosen = {
            "stdin": asyncio.subprocess.DEVNULL,
            "stdout": asyncio.subprocess.PIPE,
            "stderr": asyncio.subprocess.PIPE,
            **streams,
        }
        words = list(map(str, arguments))
        process: asyncio.subprocess.Process | ForkedProcess
        python = self.python if python is None else python
        if python is None:
            module = "batch_snapshot" if script is None else self._module(script)
            spec = ProcessSpec(words, str(self.folder), self.env, largest, deadly, module)
            process = await fork_server(dask=self.dask).start(spec, **chosen)
        else:
            process = await self._interpreted(python, words, chosen)
        child = Child(process)
        try:
            yield child
        finally:
            await child.close()

    def _module(self, script: str) -> str:
        """Write a script where forked processes find it; returns the module's name."""
        name = f"script_{crc32(script.encode())}"
        (self.folder / f"{name}.py").write_text(script, "utf-8")
        return name

    async def _interpreted(
        self, python: Sequence[str], words: Sequence[str], streams: Mapping[str, Any]
    ) -> asyncio.subprocess.Process:
        def prepare() -> None:
            # Tests that run in the background ignore these signals, and children inherit that.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)

        line = [sys.executable, *python, "-m", "batch_snapshot", *words]
        return await asyncio.create_subprocess_exec(
            *line, cwd=self.folder, env=self.env, preexec_fn=prepare, **streams
        )

    async def call(self, *arguments: str | Path, patience: float = PATIENCE, **more: Any) -> Finished:
        """Run a command to its end, for at most so many seconds."""
        async with self.started(*arguments, **more) as child:
            return await child.finished(patience)


class InterpretedPlace(Place):
    """A folder to run in, with an interpreter of its own for each process."""

    python = ()


class Clustered(Place):
    """A folder to run in on a Dask cluster."""

    dask = True


@asynccontextmanager
async def service(place: Place, *flags: str) -> AsyncIterator[str]:
    """The simulated service in a process of its own; its URL."""
    out = place.folder / "url"
    with out.open("wb") as file:
        async with place.started("simulate", *flags, stdout=file) as served:
            await until(lambda: out.read_bytes().endswith(b"\n") or not served.running, "the service")
            yield out.read_text("utf-8").strip()


async def record(url: str) -> Json:
    """What the service has made, and the calls it got."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/_simulator/record") as answer:
        made: Json = json.loads(await answer.read())
        return made


async def until(
    condition: Callable[[], object], what: str = "the condition", patience: float = PATIENCE
) -> None:
    """Wait until the condition holds, for at most `patience` seconds."""
    deadline = asyncio.get_running_loop().time() + patience
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, f"timed out waiting for {what}"
        await asyncio.sleep(0.005)

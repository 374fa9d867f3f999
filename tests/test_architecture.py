"""The walls of the house: who may import whom, and what each room must do without."""

import ast
import sys
from functools import cache
from pathlib import Path

import pytest

import batch_snapshot

PACKAGE = Path(batch_snapshot.__file__).parent

#: Imports run only to lower levels; rooms of one level never import each other.
LEVELS = [
    {"interrupts", "mounts", "redaction", "text"},
    {"errors"},
    {"endpoint", "files", "filters", "model"},
    {"breaker", "flags", "history"},
    {
        "audit",
        "changes",
        "codec",
        "forecast",
        "lease",
        "listing",
        "locks",
        "manifest",
        "mfa",
        "pace",
        "places",
        "plan",
        "policy",
        "quota",
        "report",
        "revision",
        "scratch",
        "signer",
        "tally",
        "unfinished",
    },
    {
        "abridged",
        "answers",
        "bounds",
        "display",
        "notice",
        "overflow",
        "pacer",
        "shortcut",
        "slots",
        "tls",
        "tries",
    },
    {"feed", "hosts", "ledger", "options", "profiles", "purse"},
    {
        "accounts",
        "backlog",
        "diff",
        "elsewhere",
        "index",
        "lane",
        "metrics",
        "providers",
        "repair",
        "transport",
    },
    {"resumption"},
    {"desk", "job", "sessions"},
    {"client", "course", "reads"},
    {"engine"},
    {"carrier", "choosing", "discover", "topic", "webhook"},
    {"allowance", "dask_client", "identity", "leaving", "preview"},
    {"posts"},
    {"cluster", "service", "view"},
    {"callers", "discovering", "ending", "stopping", "verify"},
    {"batch", "overview", "reporting", "retention"},
    {"blocking", "progress", "schedule"},
    {"cli"},
    {"__main__"},
]

#: Rooms that decide and never act: no clock, no files, no network, no waiting.
PURE = {
    "answers",
    "audit",
    "bounds",
    "breaker",
    "changes",
    "codec",
    "display",
    "endpoint",
    "errors",
    "filters",
    "forecast",
    "history",
    "model",
    "notice",
    "pace",
    "plan",
    "policy",
    "preview",
    "report",
    "revision",
    "signer",
    "tally",
    "text",
    "tries",
}
ACTING = {
    "anyio",
    "asyncio",
    "io",
    "os",
    "pathlib",
    "random",
    "shutil",
    "socket",
    "sqlite3",
    "subprocess",
    "tempfile",
    "threading",
    "time",
}


def rooms():
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        yield inside.parts[0].removesuffix(".py"), path


@cache
def parsed(path):
    return ast.parse(path.read_text("utf-8"))


@cache
def nodes_of(path):
    return list(ast.walk(parsed(path)))


@cache
def imports(path, *, running=True):
    """Names of the modules that `path` imports; with `running`, not those for type checkers only."""
    return list(imported(nodes_of(path), running=running))


def imported(nodes, *, running):
    checking = {
        id(inner)
        for node in nodes
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in nodes:
        if running and id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def level(room):
    return next(number for number, rooms_ in enumerate(LEVELS) if room in rooms_)


def test_every_room_has_a_level():
    known = set().union(*LEVELS) | {"__init__", "simulator"}
    assert {room for room, _ in rooms()} <= known


@pytest.mark.parametrize(
    ("room", "path"), [pair for pair in rooms() if pair[0] not in {"__init__", "simulator"}]
)
def test_imports_run_to_lower_levels_only(room, path):
    for name in imports(path):
        parts = name.split(".")
        if (
            parts[0] == "batch_snapshot"
            and len(parts) > 1
            and parts[1] not in {room, "simulator", "__version__"}
        ):
            assert level(parts[1]) < level(room), f"{room} imports {parts[1]}"


def test_the_simulator_shares_no_code_with_the_package():
    for room, path in rooms():
        if room == "simulator":
            for name in imports(path, running=False):
                assert not name.startswith("batch_snapshot") or name.startswith("batch_snapshot.simulator"), (
                    path
                )


def test_only_the_sessions_their_transport_and_the_topic_import_aioboto3():
    importers = {
        room
        for room, path in rooms()
        for name in imports(path, running=False)
        if name.split(".")[0] in {"aioboto3", "aiobotocore", "boto3"}
    }
    assert importers == {"providers", "sessions", "tls", "transport"}


@pytest.mark.parametrize("room", sorted(PURE))
def test_pure_rooms_do_nothing(room):
    used = {name.split(".")[0] for name in imports(PACKAGE / f"{room}.py")}
    assert used.isdisjoint(ACTING)


@pytest.mark.parametrize("room", ["choosing", "engine", "feed", "lane", "leaving", "pacer", "reads"])
def test_what_waits_knows_anyio_alone(room):
    used = {name.split(".")[0] for name in imports(PACKAGE / f"{room}.py")}
    assert used.isdisjoint({"asyncio", "time", "trio"})


def test_few_rooms_know_a_database():
    importers = {
        room
        for room, path in rooms()
        for name in imports(path, running=False)
        if name.split(".")[0] == "sqlite3"
    }
    # The log of calls, what is searched for, the index of snapshots, and tables for one command.
    assert importers == {"discover", "index", "quota", "scratch"}


def test_nothing_is_posix_only_at_import():
    top = {
        name.split(".")[0]
        for _, path in rooms()
        for node in parsed(path).body
        if isinstance(node, ast.Import)
        for name in (alias.name for alias in node.names)
    }
    assert top.isdisjoint({"fcntl", "grp", "pwd", "resource", "termios"})


def test_every_dependency_is_declared():
    declared = {
        "aioboto3",
        "aiobotocore",
        "aiohttp",
        "anyio",
        "botocore",
        "click",
        "distributed",
        "filelock",
        "jinja2",
        "markupsafe",
        "opentelemetry",
        "orjson",
        "prometheus_client",
        "rich",
        "tenacity",
        "yaml",
        "yarl",
    }
    used = {name.split(".")[0] for _, path in rooms() for name in imports(path, running=False)}
    foreign = used - set(sys.stdlib_module_names) - {"batch_snapshot"}
    assert foreign <= declared


@pytest.mark.parametrize("path", [path for _, path in rooms()], ids=str)
def test_functions_are_small(path):
    for node in nodes_of(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name}"


def test_the_public_surface_is_curated():
    assert sorted(batch_snapshot.__all__) == [
        "BatchSnapshotError",
        "Hooks",
        "InputError",
        "LedgerError",
        "LedgerWriteError",
        "LockedError",
        "ManifestError",
        "Options",
        "Outcome",
        "Selection",
        "Settings",
        "StorageError",
        "Summary",
        "__version__",
        "retry",
        "retry_sync",
        "run",
        "run_sync",
    ]
    for name in batch_snapshot.__all__:
        assert getattr(batch_snapshot, name) is not None
    assert (PACKAGE / "py.typed").exists()

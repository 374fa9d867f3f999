"""The packages: their levels, what they export, and what each must do without."""

import ast
import sys
from functools import cache
from importlib import import_module
from pathlib import Path

import pytest

import batch_snapshot

PACKAGE = Path(batch_snapshot.__file__).parent

#: Imports run only to lower levels; packages of one level never import each other.
LEVELS = [
    {
        "endpoints",
        "errors",
        "files",
        "interrupts",
        "models",
        "mounts",
        "paths",
        "redaction",
        "sqlite",
        "text",
    },
    {"failures", "ledger", "manifest", "ratelimit", "simulator"},
    {"aws", "config"},
    {"engine"},
    {"cluster", "discovery", "reporting"},
    {"jobs", "notify", "schedule", "verify"},
    {"cli"},
]

#: Who may import what: everything else must do without.
ALLOWED = {
    "aioboto3": {"aws"},
    "aiobotocore": {"aws"},
    "boto3": set(),
    "botocore": {"aws", "simulator"},
    "distributed": {"cluster"},
    "sqlite3": {"discovery", "ledger", "ratelimit", "sqlite"},
    "jinja2": {"reporting", "schedule"},
    "rich": {"reporting"},
    "click": {"cli"},
}

#: What waits knows anyio alone, so that tests run it in virtual time.
TIMELESS = {"engine"}


def modules():
    """Each module's package (or its own name at the top level), and its path."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path


@cache
def nodes_of(path):
    return list(ast.walk(ast.parse(path.read_text("utf-8"))))


@cache
def imports(path, *, running=False):
    """Names of what `path` imports; with `running`, not those for type checkers only."""
    nodes = nodes_of(path)
    checking = {
        id(inner)
        for node in nodes
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    found = []
    for node in nodes:
        if running and id(node) in checking:
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def level(package):
    return next(number for number, packages in enumerate(LEVELS) if package in packages)


def inner_imports(path):
    """What `path` imports of this package, as parts below `batch_snapshot`."""
    for name in imports(path):
        head, *parts = name.split(".")
        if head == "batch_snapshot" and parts != ["__version__"]:
            yield parts


def test_every_package_has_a_level():
    assert {package for package, _ in modules()} == set().union(*LEVELS) | {"__init__", "__main__"}


@pytest.mark.parametrize(("package", "path"), list(modules()), ids=str)
def test_imports_run_to_lower_levels_only(package, path):
    if package in {"__init__", "__main__"}:
        return
    for other, *_ in inner_imports(path):
        if other != package and level(package) > 0:
            assert level(other) < level(package), f"{path.name} imports {other}"
        assert other == package or level(other) <= level(package), f"{path.name} imports {other}"


@pytest.mark.parametrize(("package", "path"), list(modules()), ids=str)
def test_packages_import_only_what_others_export(package, path):
    for other, *rest in inner_imports(path):
        if other != package and (PACKAGE / other).is_dir() and rest:
            exported = import_module(f"batch_snapshot.{other}").__all__
            assert rest[0] in exported, f"{path.name} imports {other}.{rest[0]}"


def test_every_package_says_what_it_is_for():
    for path in PACKAGE.rglob("__init__.py"):
        first = ast.get_docstring(ast.parse(path.read_text("utf-8")))
        assert first
        assert "__all__" in path.read_text("utf-8") or path.parent.name == "cli"


def test_only_the_command_line_and_the_library_know_the_jobs():
    knowing = {package for package, path in modules() for other, *_ in inner_imports(path) if other == "jobs"}
    assert knowing <= {"__init__", "cli", "jobs"}


def test_the_simulator_shares_no_code_with_the_package():
    for package, path in modules():
        if package == "simulator":
            assert all(other == "simulator" for other, *_ in inner_imports(path)), path


@pytest.mark.parametrize("library", ALLOWED)
def test_few_packages_know_a_library(library):
    knowing = {
        package for package, path in modules() for name in imports(path) if name.split(".")[0] == library
    }
    assert knowing <= ALLOWED[library]


@pytest.mark.parametrize("package", sorted(TIMELESS))
def test_what_waits_knows_anyio_alone(package):
    for found, path in modules():
        if found == package:
            used = {name.split(".")[0] for name in imports(path, running=True)}
            assert used.isdisjoint({"asyncio", "time", "trio"}), path


def test_nothing_is_posix_only_at_import():
    top = {
        alias.name.split(".")[0]
        for _, path in modules()
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.Import)
        for alias in node.names
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
    used = {name.split(".")[0] for _, path in modules() for name in imports(path)}
    assert used - set(sys.stdlib_module_names) - {"batch_snapshot"} <= declared


@pytest.mark.parametrize("path", [path for _, path in modules()], ids=str)
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

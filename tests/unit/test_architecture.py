"""The packages: their levels, what they export, and what each may import."""

import ast
import dataclasses
import sys
from collections import defaultdict
from functools import cache
from importlib import import_module
from pathlib import Path

import batch_snapshot
from batch_snapshot.cli import cli
from batch_snapshot.config.options import ClusterOptions, Options, Settings

PACKAGE = Path(batch_snapshot.__file__).parent

#: Imports run only to lower levels; packages of one level never import each other.
LEVELS = [
    {
        "clock", "endpoints", "errors", "files", "interrupts", "models", "operations", "paths", "redaction",
        "sqlite", "text",
    },
    {"failures", "ledger", "manifest", "ratelimit", "simulator"},
    {"aws", "config"},
    {"engine"},
    {"cluster", "discovery", "reporting"},
    {"export", "jobs", "notify", "schedule", "verify"},
    {"cli"},
]  # fmt: skip

#: The only packages that may import each library.
ALLOWED = {
    "aioboto3": {"aws"},
    "aiobotocore": {"aws"},
    "boto3": set(),
    "botocore": {"aws", "simulator"},
    "distributed": {"cluster"},
    "sqlite3": {"sqlite"},
    "jinja2": {"reporting", "schedule"},
    "rich": {"reporting"},
    "click": {"cli"},
    "cloup": {"cli"},
    "pyarrow": {"export"},
}

#: Packages that wait with anyio alone, so that tests run them in virtual time.
VIRTUAL_TIME = {"engine", "ratelimit"}


#: The package of each module (or its own name at the top level), and its path.
MODULES = [
    (path.relative_to(PACKAGE).parts[0].removesuffix(".py"), path) for path in sorted(PACKAGE.rglob("*.py"))
]


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
    assert {package for package, _ in MODULES} == set().union(*LEVELS) | {"__init__", "__main__"}


def test_imports_run_to_lower_levels_only():
    for package, path in MODULES:
        if package in {"__init__", "__main__"}:
            continue
        for other, *_ in inner_imports(path):
            lower = level(other) < level(package) or level(package) == level(other) == 0
            assert other == package or lower, f"{path} imports {other}"


def test_packages_import_only_what_others_export():
    for package, path in MODULES:
        for other, *rest in inner_imports(path):
            if other != package and (PACKAGE / other).is_dir() and rest:
                exported = import_module(f"batch_snapshot.{other}").__all__
                assert rest[0] in exported, f"{path} imports {other}.{rest[0]}"


def test_every_package_has_a_docstring_and_exports():
    for path in PACKAGE.rglob("__init__.py"):
        text = path.read_text("utf-8")
        assert ast.get_docstring(ast.parse(text)), path
        assert "__all__" in text, path


def test_only_the_command_line_and_the_library_import_jobs():
    importers = {package for package, path in MODULES for other, *_ in inner_imports(path) if other == "jobs"}
    assert importers <= {"__init__", "cli", "jobs"}


def test_the_simulator_imports_nothing_of_the_package():
    for package, path in MODULES:
        if package == "simulator":
            assert all(other == "simulator" for other, *_ in inner_imports(path)), path


def test_few_packages_import_a_library():
    for package, path in MODULES:
        for library in {name.split(".")[0] for name in imports(path)} & ALLOWED.keys():
            assert package in ALLOWED[library], f"{path} imports {library}"


def test_what_waits_imports_no_clock_but_anyio():
    for package, path in MODULES:
        if package in VIRTUAL_TIME:
            used = {name.split(".")[0] for name in imports(path, running=True)}
            assert used.isdisjoint({"asyncio", "time", "trio"}), path


def test_every_dependency_is_declared():
    declared = {
        "aioboto3", "aiobotocore", "aiohttp", "anyio", "botocore", "click", "cloup", "distributed",
        "filelock", "jinja2", "markupsafe", "msgspec", "opentelemetry", "orjson", "prometheus_client",
        "pyarrow", "rich", "tenacity", "yaml", "yarl",
    }  # fmt: skip
    used = {name.split(".")[0] for _, path in MODULES for name in imports(path)}
    assert used - set(sys.stdlib_module_names) - {"batch_snapshot"} <= declared


def test_modules_and_functions_are_small():
    for _, path in MODULES:
        assert len(path.read_text("utf-8").splitlines()) <= 400, path
        for node in nodes_of(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 50, f"{path}: {node.name}"


def test_no_two_classes_have_one_name():
    homes = defaultdict(list)
    for _, path in MODULES:
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(str(path.relative_to(PACKAGE)))
    assert not {name: paths for name, paths in homes.items() if len(paths) > 1}


def test_each_command_is_defined_in_the_file_of_its_name():
    for name, command in cli.commands.items():
        assert command.callback.__module__ == f"batch_snapshot.cli.{name}"


def test_the_command_line_writes_no_default_that_the_options_have():
    fields = [field for kind in (Settings, ClusterOptions, Options) for field in dataclasses.fields(kind)]
    own = {field.name for field in fields if type(field.default) in {int, float, str}}
    for package, path in MODULES:
        for keyword in nodes_of(path) if package == "cli" else ():
            if (
                isinstance(keyword, ast.keyword)
                and isinstance(keyword.value, ast.Dict)
                and keyword.arg in own
            ):
                told = zip(keyword.value.keys, keyword.value.values, strict=True)
                written = [value for key, value in told if getattr(key, "value", None) == "default"]
                assert not any(isinstance(one, ast.Constant) for one in written), f"{path}: {keyword.arg}"


def test_the_public_surface_is_curated():
    assert sorted(batch_snapshot.__all__) == [
        "BatchSnapshotError", "Hooks", "InputError", "LedgerError", "LedgerWriteError", "LockedError",
        "ManifestError", "Options", "Outcome", "Selection", "Settings", "StorageError", "Summary",
        "__version__", "retry", "retry_sync", "run", "run_sync",
    ]  # fmt: skip
    for name in batch_snapshot.__all__:
        assert getattr(batch_snapshot, name) is not None
    assert (PACKAGE / "py.typed").exists()

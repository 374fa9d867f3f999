"""Every example in README.md and docs/ is run, or checked by what would read it."""

import json
import re
import sqlite3
import subprocess
from contextlib import closing

import click
import pytest
import yaml

from batch_snapshot import manifest
from batch_snapshot.errors import BatchSnapshotError
from batch_snapshot.ledger import records
from batch_snapshot.manifest import keys
from tests import ROOT
from tests.docs import shell
from tests.docs.pages import Block, all_blocks, blocks, pages
from tests.docs.test_reference import ledger_lines
from tests.support.processes import pairs, write_manifest
from tests.support.service_models import service_model

#: Languages of blocks that nothing reads.
SHOWN = {"text", "csv", "mermaid", "dockerfile", "ini"}
CHECKED = {"sh", "console", "yaml", "json", "ndjson", "python", "sql"}


def identify(value: object) -> str | None:
    return value.where if isinstance(value, Block) else None


def test_every_block_has_a_language_that_is_checked_or_shown():
    for block in all_blocks():
        assert block.language in SHOWN | CHECKED, block.where


def test_every_mark_is_known():
    """A named block is run by the test that names it, and by nothing else."""
    tests = "".join(path.read_text("utf-8") for path in (ROOT / "tests").rglob("*.py"))
    for block in all_blocks():
        for mark in block.marks:
            name, colon, value = mark.partition(":")
            known = {"not run": bool(value), "exit": value.strip().isdigit(), "file": bool(value)}
            assert known.get(name) if colon else f'"{mark}"' in tests, f"{block.where}: {mark}"


@pytest.mark.parametrize(
    "page",
    [page for page in pages() if shell.steps(blocks(page))],
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_shell_examples_of_a_page_do_what_it_says(page, tmp_path, endpoint):
    write_manifest(tmp_path / "backfill.yaml", pairs(6), name="backfill")
    write_manifest(tmp_path / "nightly.yaml", pairs(4, 10), name="nightly")
    shell.run(blocks(page), tmp_path, endpoint)


def test_the_command_line_parses_every_command():
    for block in all_blocks("sh", "console"):
        for arguments in shell.own_commands(block):
            try:
                shell.parse(arguments)
            except (click.ClickException, BatchSnapshotError) as error:
                pytest.fail(f"{block.where}: {arguments}: {error}")


#: Commands read those that are files, and other tests those of Kubernetes.
MANIFESTS = [one for one in all_blocks("yaml") if not one.mark("file") and "apiVersion:" not in one.text]


@pytest.mark.parametrize("block", MANIFESTS, ids=identify)
def test_manifests_are_valid(block, tmp_path):
    """Whole ones, and some top-level keys of one."""
    top = yaml.safe_load(block.text)
    assert set(top) <= keys.names(keys.TOP), block.where
    whole = {"version": 1, "name": "example", **top}
    if not {"pairs", "include", "discover"} & set(top):
        whole["pairs"] = [{"engagement": "eng-0123456789abcd", "resource": "O1"}]
        whole.setdefault("defaults", {}).setdefault("catalog", "Sandbox")
        whole["defaults"].setdefault("account", next(iter(top.get("accounts") or ["default"])))
    for file in whole.get("include") or ():
        include(tmp_path, file)
    (tmp_path / "manifest.yaml").write_text(
        block.text if whole == top else yaml.safe_dump(whole, sort_keys=False), "utf-8"
    )
    manifest.load(tmp_path / "manifest.yaml")


def include(folder, file):
    """Write a file that a manifest includes, with a pair."""
    named = isinstance(file, dict)
    path = folder / (file["file"] if named else file)
    path.parent.mkdir(parents=True, exist_ok=True)
    pair = {"engagement": "eng-0123456789abcf", "resource": "O9", "catalog": "Sandbox"}
    if path.suffix == ".csv":
        columns = {key: key for key in pair}
        if named:
            columns |= {key: name for key, name in (file.get("columns") or {}).items() if name}
        if "resources" in columns:
            pair["resources"] = pair[columns.pop("resource")]
        path.write_text(
            ",".join(columns.values()) + "\n" + ",".join(pair.get(key, "") for key in columns) + "\n", "utf-8"
        )
    elif path.suffix == ".ndjson":
        path.write_text(json.dumps(pair) + "\n", "utf-8")
    else:
        path.write_text(json.dumps({"version": 1, "pairs": [pair]}), "utf-8")


@pytest.mark.parametrize("block", all_blocks("json", "ndjson"), ids=identify)
def test_json_is_read_by_what_would_read_it(block):
    for value in shell.as_json(block):
        if isinstance(value, dict) and "Statement" in value:
            check_policy(value)
        if isinstance(value, dict) and value.get("type") in {"run", "intent", "result", "skip", "end"}:
            assert records.decode(json.dumps(value).encode()) is not None


def check_policy(policy):
    """Actions of Partner Central are operations of its model; others are of the form that IAM takes."""
    known = service_model("newer")["operations"]
    for statement in policy["Statement"]:
        actions = statement["Action"]
        for action in [actions] if isinstance(actions, str) else actions:
            service, _, name = action.partition(":")
            assert name
            if service == "partnercentral":
                assert name in known


@pytest.mark.parametrize("block", all_blocks("python"), ids=identify)
def test_python_compiles(block):
    import ast

    compile(block.text, block.where, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


@pytest.mark.parametrize("block", all_blocks("sh"), ids=identify)
def test_shell_can_be_parsed(block):
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", all_blocks("sql"), ids=identify)
def test_sql_runs_on_a_ledger(block):
    """In SQLite, on a table of the lines where DuckDB reads the file."""
    lines = [json.loads(line) for line in ledger_lines().values()]
    columns = sorted({key for line in lines for key in line})
    rows = [
        [json.dumps(value) if isinstance(value := line.get(key), list | dict) else value for key in columns]
        for line in lines
    ]
    with closing(sqlite3.connect(":memory:")) as db:
        db.execute(f"CREATE TABLE ledger ({', '.join(columns)})")
        db.executemany(f"INSERT INTO ledger VALUES ({', '.join('?' * len(columns))})", rows)
        query = re.sub(r"read_ndjson\([^)]*\)|'[^']*\.ndjson'", "ledger", block.text)
        assert db.execute(query).fetchall()


# -- links -------------------------------------------------------------------------------------------


def anchors(page):
    """Of a page's headings, as GitHub makes them."""
    text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    found: dict[str, int] = {}
    for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        found[anchor] = found.get(anchor, -1) + 1
    return {f"{anchor}-{n}" if n else anchor for anchor, last in found.items() for n in range(last + 1)}


def links(page):
    """The links of a page to files of the repository, as paths and anchors."""
    text = re.sub(r"^\s*```.*?^\s*```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(
        r"\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)|(?:src|href)=\"([^\"]+)\"", text, re.MULTILINE
    ):
        path, _, anchor = "".join(target).partition("#")
        if not re.match(r"[a-z]+:", path):
            yield (page.parent / path).resolve() if path else page, anchor


DOCUMENTS = [*pages(), *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "tests/README.md"))]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for path, anchor in links(page):
        assert path.exists(), f"{page}: {path}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page}: {path}#{anchor}"


def test_every_page_is_reachable_from_the_index():
    waiting = [ROOT / "docs" / "README.md"]
    seen = {*waiting}
    while waiting:
        found = {path for path, _ in links(waiting.pop()) if path.suffix == ".md"} - seen
        seen |= found
        waiting += found
    assert {*pages()} <= seen

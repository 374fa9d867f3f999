"""What the reference pages state is what the code says: keys, fields, codes, variables, options."""

import ast
import json
import re
from dataclasses import fields
from datetime import UTC, datetime

import pytest

from batch_snapshot import errors, simulator
from batch_snapshot.cli import cli, main
from batch_snapshot.errors import BatchSnapshotError
from batch_snapshot.ledger import records
from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.ledger.records import End, Header
from batch_snapshot.manifest import filters, keys
from batch_snapshot.models import Account, ErrorKind, Outcome, Quota, Request, Row, RowError, Skip, Status
from batch_snapshot.operations import SNAPSHOT, SOURCES
from batch_snapshot.reporting import display, summary
from batch_snapshot.reporting.display import DisplayPart, Frame, Waiting
from tests import ROOT
from tests.docs.pages import block
from tests.docs.shell import has_shape
from tests.support.processes import move_in, pairs, write_manifest
from tests.unit.test_architecture import LEVELS

REFERENCE = ROOT / "docs" / "reference"
NOW = datetime(2026, 1, 30, 2, 17, tzinfo=UTC)
ROW = SNAPSHOT.example


def section(page, title):
    """The text between a heading of a page and the next one."""
    text = (REFERENCE / page).read_text("utf-8")
    _, begin, rest = text.partition(f"# {title}\n")
    assert begin, f"{page} has no section {title!r}"
    return re.split(r"^#+ ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def tables(text):
    """What stands between backticks in the first cells of each table of a text."""
    found = []
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        cells = [row.split(" | ")[0] for row in table.splitlines()[2:]]
        found.append([name for cell in cells for name in re.findall(r"`([^`]+)`", cell)])
    return found


# -- the manifest ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("Top level", keys.TOP),
        ("Defaults", keys.CONTEXT),
        ("Pairs", keys.PAIR),
        ("Accounts", keys.ACCOUNT),
        ("Quota", keys.QUOTA),
        ("Include", keys.INCLUDE),
        ("Discover", keys.DISCOVER),
    ],
)
def test_manifest_page_has_every_key_and_no_other(title, wanted):
    [found] = tables(section("manifest.md", title))
    assert sorted(found) == sorted(key.name for key in wanted)


def test_manifest_page_names_defaults_stages_and_sources():
    text = (REFERENCE / "manifest.md").read_text("utf-8")
    for key in keys.CONTEXT:
        assert key.default is None or f"| `{key.name}` | `{key.default}` |" in text
    for word in (*filters.STAGES, *SOURCES):
        assert f"`{word}`" in text


# -- the ledger --------------------------------------------------------------------------------------


def ledger_lines():
    """Every type of line, with all the fields that it can have."""
    quota = Quota(per_second=1.0)
    account = Account("main", "role", "profile", "region", "id", "session", "url", quota, ("tag",))
    accounts = {"main": records.encode_account(account)}
    header = Header(
        run_id="id",
        command="run",
        name="n",
        manifest="m",
        manifest_sha256="sha",
        rows=1,
        accounts=accounts,
        endpoint="aws",
        started_at=NOW,
        discovered_sha256="sha",
        unrecorded_since=NOW,
        resumes=True,
    )
    error = RowError(ErrorKind.INVALID, "code", "message", "reason", 400)
    outcome = Outcome(
        request=Request(ROW, "token", 0),
        status=Status.FAILED,
        attempts=1,
        throttles=0,
        ambiguous=True,
        first_sent_at=NOW,
        started_at=NOW,
        finished_at=NOW,
        error=error,
        reconciled=True,
        clock_skew=1.0,
    )
    return {
        "run": records.encode_run(header, "1.0", vanished=0),
        "intent": records.encode_intent(NOW, [outcome.request], 1.0, "aws:123456789012"),
        "result": records.encode_result("id", outcome),
        "skip": records.encode_skip("id", NOW, Skip.UNCHANGED, [ROW]),
        "end": records.encode_end("id", End("completed", {}, NOW)),
    }


@pytest.mark.parametrize("kind", ["run", "intent", "result", "skip", "end"])
def test_ledger_page_has_every_field_and_no_other(kind):
    written = json.loads(ledger_lines()[kind])
    found, *of_error = tables(section("ledger.md", kind))
    assert sorted(found) == sorted(written.keys() - {"type"})
    if kind == "result":
        assert of_error == [[field.name for field in fields(RowError)]]


def test_ledger_page_names_what_an_account_and_a_row_hold():
    text = section("ledger.md", "run")
    account = json.loads(ledger_lines()["run"])["accounts"]["main"]
    assert all(f"`{name}`" in text for name in account)
    assert f"`[client_token, {', '.join(Row._fields)}, generation]`" in section("ledger.md", "intent")
    assert f"`[{', '.join(Row._fields)}]`" in section("ledger.md", "skip")


def test_ledger_page_has_every_state_outcome_and_error_kind():
    [states] = tables(section("ledger.md", "The states of a row"))
    assert states == [*Status, *Skip]
    [kinds] = tables(section("ledger.md", "Error kinds"))
    assert kinds == [*ErrorKind]
    assert set(re.findall(r"`(\w+)`", section("ledger.md", "end"))) >= set(records.OUTCOMES)


# -- exit codes and JSON -----------------------------------------------------------------------------


def error_classes(root=BatchSnapshotError):
    for one in root.__subclasses__():
        if one.__module__ == errors.__name__:
            yield one
            yield from error_classes(one)


def test_exit_codes_page_has_every_error_with_its_code():
    text = section("exit-codes.md", "Errors as JSON")
    for one in error_classes():
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", one.__name__.removesuffix("Error")).lower()
        assert f"| `{kind}` | {one.exit_code} |" in text


def test_exit_codes_are_those_of_the_code():
    codes = re.findall(r"^\| (\d+) \|", section("exit-codes.md", "Exit codes"), re.MULTILINE)
    ours = {0, 1, *(one.exit_code for one in error_classes()), 130, 143}
    assert sorted(map(int, codes)) == sorted(ours)


def test_exit_codes_page_has_every_field_of_the_summary():
    group = FailureGroup(Status.FAILED, ErrorKind.DENIED, "AccessDeniedException")
    counts = summary.Counts(1, 1, unchanged=1, active_job=1)
    account = summary.AccountSummary(1, 0, 1.0, None, {"succeeded": 1})
    whole = summary.as_json(
        summary.Summary(
            outcome="completed",
            counts=counts,
            failures={group: 1},
            ledger="x.ndjson",
            accounts={"main": account},
            reads={"ListOpportunities": 1},
            this_run=summary.ThisRun(
                rows=1, sent=1, looked_up=0, succeeded=1, failed=0, in_doubt=0, left_out=0, unattempted=0
            ),
        )
    )
    text = section("exit-codes.md", "The summary as JSON")
    [found] = tables(text)
    assert sorted(found) == sorted(whole)
    inner = [name for key in ("counts", "this_run") for name in whole[key]]
    inner += [*whole["failures"][0], *whole["accounts"]["main"]]
    assert [name for name in inner if f"`{name}`" not in text] == []


# -- environment variables ---------------------------------------------------------------------------

#: Words in capitals that are no variables: constants of the system, and values of the service.
_NO_VARIABLES = re.compile(
    r"OTEL_EXPORTER_OTLP$|O_|CLOCK_|INVALID_|REQUEST_|BUSINESS_|REQUIRED_|TOO_MANY_|VALUE_OUT_|LONGEST_|SHORTEST_"
)


def variables_of_the_source():
    found = set()
    for path in (ROOT / "batch_snapshot").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                found |= set(re.findall(r"\b[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b|\bTMPDIR\b", node.value))
    return {name for name in found if not _NO_VARIABLES.match(name)}


def test_environment_page_has_every_variable_of_the_source():
    text = (REFERENCE / "environment.md").read_text("utf-8")
    assert [name for name in sorted(variables_of_the_source()) if f"`{name}`" not in text] == []


def test_page_of_watching_has_every_event_of_the_log():
    text = (ROOT / "docs" / "how-to" / "watch-and-report.md").read_text("utf-8")
    events = set()
    for path in (ROOT / "batch_snapshot" / "cli").glob("*.py"):
        events |= set(re.findall(r'event(?:: str)? ?= ?"(\w+)"', path.read_text("utf-8")))
    assert len(events) > 8
    assert [name for name in sorted(events) if f"`{name}`" not in text] == []


# -- the simulator -----------------------------------------------------------------------------------


def test_simulator_page_has_every_option_and_fault():
    [options] = tables(section("simulator.md", "As an endpoint"))
    named = {word.split()[0] for word in options}
    flags = {
        flag for param in cli.commands["simulate"].params for flag in (*param.opts, *param.secondary_opts)
    }
    assert named == {flag for flag in flags if flag.startswith("--")} - {"--help", "--help-all"}
    [faults] = tables(section("simulator.md", "Faults"))
    assert faults == [*simulator.KINDS]


def test_environment_page_shows_variables_of_options():
    text = (REFERENCE / "environment.md").read_text("utf-8")
    shown = set(re.findall(r"BATCH_SNAPSHOT_(RUN|RETRY)_(\w+)=", text))
    assert len(shown) > 3
    for command, option in shown:
        flag = f"--{option.lower().replace('_', '-')}"
        assert any(flag in param.opts for param in cli.commands[command.lower()].params)


# -- the architecture --------------------------------------------------------------------------------


def test_architecture_page_has_every_package_at_its_level():
    text = (ROOT / "docs" / "explanation" / "architecture.md").read_text("utf-8")
    rows = re.findall(r"^\| ([1-9]) \| (.*?) \|", text, re.MULTILINE)
    assert {int(level): set(re.findall(r"`(\w+)`", names)) for level, names in rows} == dict(
        enumerate(LEVELS[1:], 1)
    )


def test_plan_of_many_days_is_as_shown(tmp_path, monkeypatch, capsys):
    move_in(monkeypatch, tmp_path)
    quota = {"per_second": 1, "per_day": 10_000, "reserve": 500}
    write_manifest(
        tmp_path / "backfill.yaml", pairs(23_400), name="backfill", accounts={"main": {"quota": quota}}
    )
    assert main(["plan", "backfill.yaml", "--wait"]) == 0
    shown = tuple(block("plan of many days").splitlines())
    assert has_shape(capsys.readouterr().out, shown)


def test_display_is_as_shown():
    parts = [
        DisplayPart(name="main", done=332, rows=450, allowed=47.3, waiting=Waiting("per_day", 86_368)),
        DisplayPart(name="acme", done=184, rows=225, rate=5.88, allowed=5.91),
        DisplayPart(name="globex", done=56, rows=225, allowed=4.92, waiting=Waiting("per_hour", 3_568)),
    ]
    frame = Frame(
        name="backfill",
        counts=summary.Counts(552, 20, 0, 328),
        elapsed=33.0,
        left=86_376.0,
        ends="Wed 17:31 UTC",
        calls=600,
        throttled=7,
        parts=parts,
        failures={FailureGroup(Status.FAILED, ErrorKind.DENIED, "AccessDeniedException"): 20},
        last_error="eng-0123456789abcd/O1000002 AccessDeniedException: not authorized",
    )
    assert [line.plain.rstrip() for line in display.block(frame, 80)] == block("display").splitlines()

"""Damaged ledgers: whatever was lost or edited, a repaired one goes on, and each row has one snapshot."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_snapshot import abridged, batch, cli, codec, history, ledger, locks, overview, places, plan
from batch_snapshot.errors import BatchSnapshotError, LedgerError, LockedError
from batch_snapshot.history import Header
from batch_snapshot.model import Row, Status
from batch_snapshot.options import Options
from batch_snapshot.repair import repair
from batch_snapshot.simulator import Settings, serve
from tests import anew
from tests.ledgers import Book, row
from tests.processes import assert_exactly_once, move_in, of_type, pairs, write_manifest

if TYPE_CHECKING:
    from batch_snapshot.history import History
    from batch_snapshot.simulator import Simulator

NOW = datetime(2026, 3, 2, tzinfo=UTC)
REFUSED = {"engagement": "eng-invalid0000001", "resource": "O9"}
ROWS = [*pairs(8), REFUSED]

#: Seconds by which a look-up may take a snapshot for older than it is.
MARGIN = 1.0


@dataclass(frozen=True, repr=False)
class Made:
    """A whole ledger, and what the service made of it."""

    lines: list[bytes]
    #: By row: the token of its snapshot, and when that was made.
    snapshots: dict[Row, tuple[str, float]]
    rows: list[Row]
    run_id: str


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    """A night that was deferred, its rest, and a retry of the row that was refused."""
    folder = tmp_path_factory.mktemp("repair")

    async def write() -> Made:
        manifest = write_manifest(folder / "trial.yaml", ROWS, accounts={"main": {"quota": {"per_day": 5}}})
        path = folder / "made.ndjson"
        async with serve() as (url, simulator):
            options = Options(ledger=str(path), endpoint_url=url)
            assert (await batch.run(manifest, options)).outcome == "deferred"
            places.usage_file(folder / "state").unlink()
            await batch.run(manifest, options)
            places.usage_file(folder / "state").unlink()
            await batch.retry(path, lambda _: plan.everything(), options)
            snapshots = {
                Row("main", "Sandbox", one.engagement, "Opportunity", one.resource, one.template): (
                    one.client_token,
                    one.created_at,
                )
                for one in simulator.snapshots
            }
        rows = [
            Row(
                "main",
                "Sandbox",
                each["engagement"],
                "Opportunity",
                each["resource"],
                "OpportunitySummaryView",
            )
            for each in ROWS
        ]
        lines = path.read_bytes().splitlines(keepends=True)
        return Made(lines, snapshots, rows, json.loads(lines[0])["run_id"])

    with pytest.MonkeyPatch.context() as patch:
        move_in(patch, folder)
        found = asyncio.run(write())
    types = [json.loads(line)["type"] for line in found.lines]
    assert types.count("run") == 3
    assert types.count("result") == 10
    assert len(found.snapshots) == 8
    return found


@pytest.fixture
def path(tmp_path) -> Path:
    return tmp_path / "trial.ndjson"


def past_of(path: Path) -> History:
    return ledger.history_of(path, checked=True)


def judge(made: Made, past: History, path: Path, *, forgotten: bool) -> None:
    """Whatever `run` and `retry` send of what the service has made is no second snapshot.

    Where the tokens are `forgotten`, a look has to come first, and has to find what was made.
    """
    retried = plan.retried(
        history.rows_of(ledger.read(path), past),
        plan.everything(),
        made.run_id,
        unrecorded_since=past.unrecorded_since,
    )
    for request in (*plan.resumed(made.rows, past, made.run_id), *retried):
        if request is None or request.row not in made.snapshots:
            continue
        token, created_at = made.snapshots[request.row]
        assert request.client_token == token
        if forgotten:
            assert request.ambiguous, request.row
            assert request.first_sent_at is not None
            assert request.first_sent_at.timestamp() <= created_at + MARGIN


def repaired(made: Made, path: Path, content: bytes, *, forgotten: bool = True) -> None:
    """Repair these contents, and hold the result to everything that a whole ledger is held to."""
    for old in path.parent.glob("*.original*"):
        old.unlink()
    anew.write(path, content)
    try:
        done = repair(path, NOW)
    except LedgerError as error:
        assert "no run line is left" in str(error) or "two ledgers" in str(error)
        assert path.read_bytes() == content
        return
    if done.original is None:
        assert path.read_bytes() == content
    else:
        assert done.original.read_bytes() == content
        assert done.original.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o600
    assert overview.check(path) >= 0
    assert repair(path, NOW).original is None
    past = past_of(path)
    judge(made, past, path, forgotten=forgotten)
    whole = {line for line in content.splitlines(keepends=True) if line in made.lines}
    gone = {line for line in whole if line not in path.read_bytes()}
    assert not [line for line in gone if b'"succeeded"' in line and b'"type":"result"' in line]
    assert not list(path.parent.glob("*.repairing"))


thorough = settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_a_whole_ledger_is_left_as_it_is(made, path, capsys):
    content = b"".join(made.lines)
    for spoiled in (content, b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content + b"\n \n"):
        anew.write(path, spoiled)
        assert repair(path, NOW).original is None
        assert path.read_bytes() == spoiled
        judge(made, past_of(path), path, forgotten=True)
        assert overview.check(path) == 9
    assert cli.main(["status", str(path), "--repair", "--check"]) == 0
    assert "is whole" in capsys.readouterr().out
    assert not list(path.parent.glob("*.original*"))


def test_every_line_that_is_lost_alone_is_missed_and_made_good(made, path):
    for number in range(len(made.lines)):
        repaired(made, path, b"".join(made.lines[:number] + made.lines[number + 1 :]))


def test_every_line_that_stands_twice_or_elsewhere_is_made_good(made, path):
    for number in range(len(made.lines) - 1):
        lines = list(made.lines)
        repaired(made, path, b"".join([*lines[:number], lines[number], *lines[number:]]))
        lines[number : number + 2] = reversed(lines[number : number + 2])
        repaired(made, path, b"".join(lines))


@given(
    st.floats(0, 1),
    st.floats(0, 1) | st.floats(0, 0.1),
    st.sampled_from([b"\0", b"#", b"\xff", b"\n", b"[", b'"']),
)
@example(0.0, 0.05, b"\0")
@example(0.5, 0.5, b"\0")
@thorough
def test_whatever_is_overwritten_is_made_good(made, path, begin, length, filling):
    content = b"".join(made.lines)
    start = int(begin * len(content))
    end = min(len(content), start + 1 + int(length * len(content)))
    # The beginning of a last line is what a crash leaves: it is taken for one, and nobody can tell.
    forgotten = end < len(content) or filling in b"\0\n"
    repaired(made, path, content[:start] + filling * (end - start) + content[end:], forgotten=forgotten)


@given(st.floats(0, 1), st.floats(0, 1) | st.floats(0, 0.1), st.binary(max_size=30))
@thorough
def test_whatever_is_cut_out_or_put_in_is_no_second_snapshot_under_remembered_tokens(
    made, path, begin, length, garbage
):
    content = b"".join(made.lines)
    start = int(begin * len(content))
    end = min(len(content), start + int(length * len(content)))
    repaired(made, path, content[:start] + garbage + content[end:], forgotten=False)
    repaired(made, path, content[:start] + garbage + content[start:], forgotten=False)

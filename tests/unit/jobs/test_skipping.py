"""Rows that are left out: how ledgers record them, and how the step is stopped."""

from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.config.options import Options
from batch_snapshot.engine.account import Stop, StopKind
from batch_snapshot.engine.reader import Page
from batch_snapshot.errors import LedgerError, ManifestError
from batch_snapshot.jobs import plan, skipping
from batch_snapshot.ledger import history, records
from batch_snapshot.ledger.records import End, IntendedRow, Intent, Record, Skipped
from batch_snapshot.ledger.snapshot_index import SnapshotIndex
from batch_snapshot.models import Row, Skip, client_token
from tests.support import strategies
from tests.support.engine_world import World, requests
from tests.support.strategies import POOL, RUN_ID, START, header, histories, lines_of, numbered, patient
from tests.support.virtual_time import in_virtual_time


@given(histories, st.sets(st.sampled_from(POOL)), st.sampled_from(Skip))
@patient
def test_a_row_that_was_left_out_is_not_sent_and_the_states_still_sum(past, rows, reason):
    lines = lines_of(past)
    before = history.fold(lines)
    named = set(before.keys()) | set(before.unfinished)
    chosen = tuple(row for row in sorted(rows) if row.key not in named)
    more: list[Record] = [header(), Skipped(START, reason, chosen, RUN_ID), End("completed", {}, START)]
    after = history.fold(numbered([*(line.record for line in lines), *more]))
    assert after.counts()[reason] == len(chosen)
    assert all(after.is_skipped(row.key) for row in chosen)
    assert set(after.keys()) == set(before.keys()) | {row.key for row in chosen}
    sent = {request.row for request in plan.resumed(POOL, after, RUN_ID) if request}
    assert sent == {request.row for request in plan.resumed(POOL, before, RUN_ID) if request} - set(chosen)
    assert not [request for request in plan.retried([], plan.all_unfinished(), RUN_ID) if request]


@given(st.lists(st.sampled_from(POOL), min_size=1, unique=True), st.sampled_from(Skip), strategies.texts)
@patient
def test_every_skip_line_decodes_back(rows, reason, run_id):
    line = records.encode_skip(run_id, START, reason, rows)
    assert line.count(b"\n") == 1
    assert records.decode(line) == Skipped(START, reason, tuple(rows), run_id)


@pytest.mark.parametrize("counts", [{}, {"unchanged": 1}, {"active_job": 2}])
def test_an_end_line_without_the_skipped_rows_fails_the_check(counts):
    rows = tuple(POOL[:2])
    four = {"succeeded": 0, "failed": 0, "in_doubt": 0, "unattempted": 0}

    def check(counted: dict[str, int]) -> None:
        end = End("completed", {**four, **counted}, START)
        lines: list[Record] = [header(rows=2), Skipped(START, Skip.UNCHANGED, rows, RUN_ID), end]
        history.fold(numbered(lines), complete=True)

    check({"unchanged": 2})
    with pytest.raises(LedgerError, match=r"line 3: counts .* but the lines before say"):
        check(counts)


def test_a_row_that_was_named_is_never_left_out():
    row = POOL[0]
    intent = Intent(START, (IntendedRow(client_token(RUN_ID, row, 0), *row, 0),))
    records: list[Record] = [header(), intent, Skipped(START, Skip.UNCHANGED, (row,), RUN_ID)]
    with pytest.raises(LedgerError, match="which was named before"):
        history.fold(numbered(records))


class Stopped:
    """An engine that notes why it is to stop."""

    def __init__(self) -> None:
        self.stop: Stop | None = None

    def request_stop(self, stop: Stop) -> None:
        self.stop = stop

    async def stop_in_time(self) -> None:
        """There is no time limit."""


class Choosing:
    """Leaves out no row."""

    def __init__(self, choose: Any) -> None:
        self.choose, self.errors, self.skipped = choose, dict[str, Any](), Counter[str]()


def test_a_manifest_that_changes_meanwhile_stops_the_run_gracefully():
    async def choose() -> None:
        raise ManifestError(["m.yaml: changed"])

    engine: Any = Stopped()
    chosen: Any = Choosing(choose)
    assert not in_virtual_time(lambda: skipping.skip_rows(engine, chosen))
    assert engine.stop == Stop(StopKind.STOPPED, "m.yaml: changed")


def test_skipping_is_cancelled_by_a_signal():
    engine: Any = Stopped()

    async def choose() -> None:
        engine.stop = Stop(StopKind.INTERRUPTED, "SIGINT received")
        await anyio.sleep_forever()
        raise AssertionError

    chosen: Any = Choosing(choose)
    assert not in_virtual_time(lambda: skipping.skip_rows(engine, chosen))


@pytest.mark.parametrize(("seconds", "sent"), [(60.0, 0), (20.0, 10)])
def test_the_time_of_a_run_counts_from_the_first_look_at_what_changed(seconds, sent):
    chosen: Any = Choosing(lambda: anyio.sleep(seconds))

    async def run() -> World:
        world = World(rate=1, max_duration=30.0)
        assert not await skipping.skip_rows(world.engine, chosen)
        await world.run(requests(100))
        return world

    world = in_virtual_time(run)
    assert world.ending() == Stop(StopKind.DEFERRED, "--max-duration is over (30 s)")
    assert len(world.sent) == pytest.approx(sent, abs=1)


class Place:
    """What a filter takes of a run's recorder, rows and reader; nothing is recorded in time."""

    name, header, calls = "main", header(), Counter[str]()
    options = Options(changed_since="last")

    def __init__(self, path: Path, engine: Stopped) -> None:
        self.path, self.job, self._engine = path, self, engine

    def now(self) -> datetime:
        return START

    def clock_skew(self, _: str) -> None:
        return None

    def candidates(self) -> Iterator[Row]:
        return (POOL[0]._replace(account="main", resource=f"O{number}") for number in range(200))

    def pages(self, *_: str, **__: Any) -> "Place":
        return self

    def __aiter__(self) -> "Place":
        return self

    async def __anext__(self) -> Page:
        modified = START - timedelta(days=2)
        return Page([{"Id": row.resource, "LastModifiedDate": modified} for row in self.candidates()], None)

    async def read(self, _: str, **parameters: Any) -> dict[str, Any]:
        if parameters["ResourceIdentifier"] == "O100":
            self._engine.stop = Stop(StopKind.INTERRUPTED, "SIGINT received")
            await anyio.sleep_forever()
        return {"CreatedAt": START - timedelta(days=1)}


def test_rows_that_no_line_leaves_out_are_left_to_do(tmp_path):
    engine: Any = Stopped()
    place: Any = Place(tmp_path / "l.ndjson", engine)
    with SnapshotIndex(tmp_path / "index") as index:
        chosen = skipping.SkipFilter(place, {"main": place}, index)
        assert not in_virtual_time(lambda: skipping.skip_rows(engine, chosen))
    assert engine.stop


def test_a_snapshot_of_a_time_to_come_is_asked_of_the_service(tmp_path):
    """The clock of the run that made it was wrong."""
    engine: Any = Stopped()
    place: Any = Place(tmp_path / "l.ndjson", engine)
    later = (START + timedelta(days=2)).timestamp()
    index: Any = SimpleNamespace(refresh=lambda _: [], last=lambda *_: later)
    chosen = skipping.SkipFilter(place, {"main": place}, index)
    assert not in_virtual_time(lambda: skipping.skip_rows(engine, chosen))
    assert engine.stop, "a row's last snapshot was read"

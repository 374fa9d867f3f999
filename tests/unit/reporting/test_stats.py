"""What outcomes and ledger lines add up to."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.ledger import history, reader, records
from batch_snapshot.ledger.records import Record
from batch_snapshot.models import ErrorKind, Status
from batch_snapshot.reporting import entries
from batch_snapshot.reporting.page import PageRows
from batch_snapshot.reporting.stats import LedgerStats, RunStats, percentile
from batch_snapshot.reporting.summary import count
from tests.support import rewriting
from tests.support.ledgers import BEGAN, LedgerBuilder, row
from tests.support.reports import A, B, C, D, ledgers, outcome, read
from tests.support.strategies import POOL, RUN_ID, header, histories, lines_of, numbered, patient, pool_rows


@given(histories, st.lists(st.tuples(pool_rows, st.sampled_from(Status)), unique_by=lambda one: one[0]))
@patient
def test_run_stats_agree_with_the_history_of_the_ledger(before, sent):
    past = history.fold(lines_of(before))
    seen = RunStats(past, len(POOL), {})
    recorded = [
        outcome(each_row, status)
        for each_row, status in sent
        if past.status(each_row.key) is not Status.SUCCEEDED
    ]
    for each in recorded:
        seen.add(each)
    written: list[Record | None] = [records.decode(records.encode_result(RUN_ID, each)) for each in recorded]
    whole: list[Record] = [line.record for line in lines_of(before)]
    whole.append(header())
    whole.extend(record for record in written if record)
    found = history.fold(numbered(whole), live=True)
    assert seen.counts == count(found.counts(), len(POOL))
    assert seen.rows.failures == found.failures()
    for group, examples in seen.examples.items():
        for example in examples:
            assert history.failure_group(found.unfinished[example.row.key]) == group
    assert seen.this_run.sent == seen.settled.total() == len(recorded)
    assert sum(rows.statuses.total() for rows in seen.accounts.values()) == len(recorded)


@given(ledgers())
@patient
def test_entries_and_stats_agree_with_the_history(tmp_path_factory, ledger):
    folder = tmp_path_factory.getbasetemp()
    stats, found = read(folder, ledger)
    past = history.fold(reader.lines(folder / "l.ndjson"))
    assert Counter(entry.status for entry in found if entry.status != entries.UNATTEMPTED) == +past.counts()
    assert (stats.rows.statuses, stats.rows.failures) == (past.counts(), past.failures())
    assert len({entry.row for entry in found}) == len(found)
    rows = PageRows()
    for entry in found:
        rows.add(entry)
    assert {group: made.rows for group, made in rows.groups.items()} == past.failures()
    for name, counts in stats.accounts.items():
        assert counts.statuses == Counter({status: rows.accounts[name][status] for status in Status})


@given(ledgers(), st.data())
@patient
def test_stats_of_a_ledger_read_in_pieces_are_the_same(tmp_path_factory, ledger, data):
    path = ledger.write(tmp_path_factory.getbasetemp() / "pieces.ndjson")
    content = path.read_bytes()
    whole, pieces = LedgerStats(), LedgerStats()
    for line in reader.lines(path):
        whole.add(line)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=4)))
    for cut in [*cuts, len(content)]:
        rewriting.write(path, content[:cut])
        for line in reader.lines(path, after=pieces.line):
            pieces.add(line)
    assert pieces.line == whole.line
    assert pieces.accounts == whole.accounts
    assert pieces.rows == whole.rows


def test_present_rate_of_a_ledger_is_that_of_the_last_minute(tmp_path):
    ledger = LedgerBuilder(200).begin()
    for second in range(120):
        ledger.result(row(second, ("main", "acme")[second % 2]), at=second + 1, throttles=1)
    stats = LedgerStats()
    for line in reader.lines(ledger.write(tmp_path / "l.ndjson")):
        stats.add(line)
    now = BEGAN.replace(minute=2)
    assert stats.rate(now) == pytest.approx(2, abs=0.05)
    assert stats.rate(now, "acme") == pytest.approx(1, abs=0.05)
    assert stats.rate(now.replace(minute=10)) == 0
    assert LedgerStats().rate(now) == 0


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.001, 1))
@patient
def test_percentile_covers_its_share_of_values(values, share):
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-6


def test_latency_counts_only_rows_settled_by_one_unthrottled_call(tmp_path):
    ledger = LedgerBuilder(5).begin().result(A, took=0.25).result(B, throttles=1).result(C, attempts=2)
    ledger.result(D, reconciled=True).result(row(9), first_sent_at=BEGAN.replace(year=2025))
    ledger.result(row(11), Status.IN_DOUBT, took=37.0, kind=ErrorKind.TRANSIENT)
    ledger.result(row(10), Status.FAILED, took=0.5, kind=ErrorKind.INVALID).end()
    stats, _ = read(tmp_path, ledger)
    assert list(stats.latencies) == [0.25, 0.5]

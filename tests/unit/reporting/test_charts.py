"""The charts of the HTML page."""

from collections import Counter

from hypothesis import given

from batch_snapshot.ledger import reader
from batch_snapshot.reporting import charts
from batch_snapshot.reporting.stats import LedgerStats
from tests.support.ledgers import LedgerBuilder, row
from tests.support.reports import ledgers, read
from tests.support.strategies import patient


@given(ledgers())
@patient
def test_chart_over_time_has_every_result_once_within_its_size(tmp_path_factory, ledger):
    stats, _ = read(tmp_path_factory.getbasetemp(), ledger)
    drawn = charts.over_time(stats.invocations)
    results = sum(invocation.results for invocation in stats.invocations)
    if not results:
        assert drawn == []
        return
    assert sum(int(cell) for line in drawn[0].rows for cell in line[1:]) == results
    assert len(drawn[0].rows) <= charts.BARS + len(stats.invocations)
    for chart in [*drawn, charts.attempts(stats.attempts), charts.latency(stats.latencies)]:
        for bar in chart.bars if chart else ():
            for piece in bar.pieces:
                assert piece.x >= charts.LEFT - 0.01
                assert piece.x + piece.width <= charts.WIDTH
                assert piece.y >= charts.TOP - len(bar.pieces)
                assert piece.y + piece.height <= charts.HEIGHT - charts.BOTTOM + 0.01


def test_chart_has_as_many_bars_for_a_minute_as_for_a_month(tmp_path):
    for seconds in (30, 3_000, 300_000, 3_000_000):
        ledger = LedgerBuilder().begin()
        stats = LedgerStats()
        for share in range(200):
            ledger.result(row(share), at=seconds * share / 200)
        for line in reader.lines(ledger.write(tmp_path / "l.ndjson"), whole=True):
            stats.add(line)
        step, found = charts.buckets(stats.invocations)
        assert 25 <= len(found) <= charts.BARS + 1, step


def test_no_chart_without_values():
    assert charts.latency([]) is None
    assert charts.attempts(Counter()) is None
    drawn = charts.attempts(Counter({0: 1, 1: 5, 12: 2}))
    assert drawn
    assert [bar.title for bar in drawn.bars] == [
        "no try, but a look: 1",
        "1 try: 5",
        "9 or more tries: 2",
    ]

"""The benchmarks work, and judge rightly."""

import asyncio
import json
from dataclasses import replace
from math import inf, nan

import pytest
from click.testing import CliRunner

from tests.bench import cluster, figures, quota, speed, stub
from tests.bench.__main__ import cli
from tests.bench.clients import OURS
from tests.bench.figures import Bound, Figure, Table
from tests.bench.quota import Run, judged
from tests.bench.scenarios import SCENARIOS, Scenario, Target

TINY = Scenario(
    name="tiny",
    rows=60,
    limit=100,
    burst=20,
    then=((60, 0.2),),
    latency=0.01,
    target=Target(ratio=Bound(100), throttled=Bound(0.99)),
)


@pytest.mark.long
def test_two_clients_complete_under_a_small_limit():
    table = quota.table(TINY, [OURS, "aioboto3-tenacity-8"], 1)
    assert not table.notes
    for line in table.lines.values():
        ratio, _, throttled, lost, doubled = filter(None, line.values())
        assert ratio.values[0] > 0.95
        assert [each.reached for each in (ratio, throttled, lost, doubled)] == [True] * 4
    assert "Python 3" in figures.as_markdown([table], 0.0)


def test_processes_that_refuse_their_flags_are_reported():
    scenario = replace(TINY, processes=2, flags=("--no-such-flag",))
    table = quota.table(scenario, [OURS], 1)
    (line,) = table.lines.values()
    *_, lost, doubled, share = filter(None, line.values())
    assert (lost.values, doubled.values, share.values) == ([120], [0], [0.0])
    assert not lost.reached
    assert "- ours: exit 2: error: No such option" in figures.as_markdown([table], 0.0)


@pytest.mark.parametrize(
    ("scenario", "ideal"),
    [
        (TINY, 20 / 100 * 1 + 20 / 60),
        (replace(TINY, rows=120, then=()), 1.0),
        (replace(TINY, rows=120, then=(), quota={"per_second": 100}), 1.2),
        (replace(TINY, rows=60, then=(), processes=2), 1.0),
        (Scenario(name="window", rows=250, window=(100, 60), latency=0), 120),
        (Scenario(name="window", rows=200, window=(100, 60), latency=0), 60),
        (next(one for one in SCENARIOS if one.name == "halves-and-recovers"), 20 + 20 + (1_180 - 600) / 20),
    ],
)
def test_the_ideal(scenario, ideal):
    assert scenario.ideal == pytest.approx(ideal)


def test_a_record_gives_elapsed_and_throttled_calls():
    times = [100.0, 100.5, 101.0, 101.5, 102.0, 104.0]
    rows = [0, 60, 1, 61, 1, 62]
    answers = ["ok", "ok", "ok", "ThrottlingException", "ok", "ok", "ok"]
    calls = [
        {"time": at, "operation": "CreateResourceSnapshot", "answer": answer}
        for at, answer in zip([*times[:3], 101.2, *times[3:]], answers, strict=True)
    ]
    made = [
        {"engagement": f"eng-{row:014d}", "resource": f"O{row + 1}", "created_at": at}
        for row, at in zip(rows, times, strict=True)
    ]
    look = {"time": 99.5, "operation": "GetOpportunity", "answer": "ok"}
    run = judged({"log": [look, *calls], "snapshots": made}, replace(TINY, processes=2))
    assert run.elapsed == pytest.approx(4.51)
    assert (run.calls, run.throttled, run.lost, run.duplicates) == (7, 1, 115, 1)
    assert run.shares == (0.5, 0.5)


@pytest.mark.parametrize(
    ("change", "missed"),
    [
        ({}, []),
        ({"elapsed": 10.9}, [0]),
        ({"elapsed": 14.0}, [0, 1]),
        ({"throttled": 4}, [2]),
        ({"lost": 1}, [3]),
        ({"duplicates": 1}, [4]),
        ({"shares": (0.29, 0.71)}, [5]),
    ],
)
def test_each_figure_of_a_run_has_its_target(change, missed):
    run = Run(10.8, 10.0, 100, 3, lost=0, duplicates=0, shares=(0.3, 0.7), trouble=())
    target = Target(Bound(1.08), Bound(3), Bound(0.03), Bound(0.3, at_least=True))
    shown = quota.figures([replace(run, **change)], target)
    assert [number for number, figure in enumerate(shown.values()) if figure and not figure.reached] == missed


@pytest.mark.long
def test_several_accounts_are_measured_together():
    table = speed.accounts(60, [1, 30], 1)
    assert [*table.lines] == ["1", "30"]
    assert table.notes == []


@pytest.mark.long
def test_the_throughput_of_two_clients():
    table = speed.throughput(300, 1, (OURS, "aioboto3"))
    assert not table.notes
    (read,) = json.loads(json.dumps(figures.as_json([table], 0.5)))["tables"]
    ours, theirs = (line["figures"] for line in read["lines"])
    assert ours["rows"]["values"] == theirs["rows"]["values"] == [300]
    assert "ours ÷ it" not in ours
    (ratio,) = theirs["ours ÷ it"]["values"]
    assert ratio == pytest.approx(ours["calls/s"]["values"][0] / theirs["calls/s"]["values"][0])
    assert theirs["ours ÷ it"]["bound"] == {"limit": 1.1, "at_least": True}
    text = figures.as_markdown([table], load=0.5)
    assert "; ≥ 1.1: " in text
    assert "Load before: 0.5." in text


@pytest.mark.long
def test_a_client_without_calls_is_reported_and_meets_no_target(tmp_path):
    with stub.serve(tmp_path) as url:
        run = speed.through("no such script", 3, url)
    assert run.trouble == "exit 1: KeyError: 'no such script'"
    assert not Figure([run.rate], bound=Bound(0, at_least=True)).reached


@pytest.mark.long
def test_a_cluster_is_measured_against_one_process():
    table = cluster.table(40, 1, [2], 0.01)
    assert not table.notes
    (read,) = json.loads(json.dumps(figures.as_json([table], 0.0)))["tables"]
    local, one, two = (line["figures"] for line in read["lines"])
    assert [line["what"] for line in read["lines"]] == ["2, local", "2, Dask, 1 worker", "2, Dask, 2 workers"]
    (gained,), (spent,) = two["÷ one worker"]["values"], one["elapsed ÷ local"]["values"]
    assert gained == pytest.approx(two["rows/s"]["values"][0] / one["rows/s"]["values"][0])
    assert spent == pytest.approx(one["run s"]["values"][0] / local["run s"]["values"][0])
    assert two["÷ one worker"]["bound"] == {"limit": 1.6, "at_least": True}
    assert one["elapsed ÷ local"]["bound"] == {"limit": 1.25, "at_least": False}
    # The start of a cluster is reported, and is no part of its run.
    assert one["start and end s"]["values"][0] > 0


def test_a_cluster_that_loses_rows_meets_no_target_and_there_is_none_where_cores_are_the_limit():
    runs = {kind: [cluster.Run(40, 1.0, 2.0, 0.1, "")] for kind in cluster.KINDS}
    shown = [cluster.figures(kind, runs, bounded=False).values() for kind in cluster.KINDS]
    assert {figure.bound for line in shown for figure in line if figure} == {None}
    runs[cluster.KINDS[2]] = [cluster.Run(40, nan, nan, 0.1, "40 rows, 39 calls, 39 tokens")]
    gained = cluster.figures(cluster.KINDS[2], runs, bounded=True)["÷ one worker"]
    assert gained
    assert gained.reached is False


@pytest.mark.long
@pytest.mark.parametrize(
    "bench",
    [
        lambda: speed.manifests([50], 1),
        lambda: speed.ledgers([200], 1),
        lambda: speed.resume([200], 1),
        lambda: speed.startup(1),
        lambda: speed.million([20, 40], 1),
    ],
)
def test_the_other_speed_benchmarks_run(bench):
    table = bench()
    assert not table.notes
    assert len({tuple(line) for line in table.lines.values()}) == 1, "each line has every column"
    shown = [figure for line in table.lines.values() for figure in line.values() if figure]
    values = [value for figure in shown for value in figure.values]
    assert all(0 < value < inf for value in values)


def test_the_stub_reads_requests_in_any_chunks():
    class Transport(asyncio.Transport):
        written = b""

        def write(self, data):
            self.written += data

    def asked(target, body, method=b"POST / "):
        head = b"%bHTTP/1.1\r\nX-Amz-Target: AWSPartnerCentralSelling.%b\r\nCONTENT-length:%d\r\n\r\n"
        return head % (method, target, len(body)) + body

    body = (
        b'{"Catalog":"Sandbox","EngagementIdentifier":"e","ResourceType":"Opportunity",'
        b'"ResourceIdentifier":"O1","ResourceSnapshotTemplateIdentifier":"T","ClientToken":"t"}'
    )
    requests = asked(b"CreateResourceSnapshot", body) * 2 + asked(b"GetResourceSnapshot", b"{}")
    requests += asked(b"", b"", b"GET /_stub/take ")
    for size in (1, 7, len(requests)):
        transport, connection = Transport(), stub.Connection(stub.World())
        connection.connection_made(transport)
        for begin in range(0, len(requests), size):
            connection.data_received(requests[begin : begin + size])
        *answers, record = transport.written.split(b"HTTP/1.1 ")[1:]
        assert [answer[:3] for answer in answers] == [b"200", b"200", b"400"]
        assert b'/engagement/e/resource/Opportunity/O1/template/T/snapshot/1","Revision":1}' in answers[0]
        seen = stub.Record(**json.loads(record.partition(b"\r\n\r\n")[2]))
        assert (seen.creates, seen.others, seen.tokens) == (2, 1, 1)


def test_a_figure_is_judged_by_its_median_and_by_every_repeat():
    bound = Bound(2, at_least=True)
    assert str(Figure([1.9, 2.5, 2.1], ".1f", bound)) == "1.9 · 2.1 · 2.5; ≥ 2: met (2 of 3)"
    assert str(Figure([1.9, 2.5, 1.8], ".1f", bound)) == "1.8 · 1.9 · 2.5; ≥ 2: **missed** (1 of 3)"
    assert str(Figure([3.0], ".1f", Bound(2))) == "3.0; ≤ 2: **missed** (0 of 1)"
    assert Figure([3.0]).reached is None
    assert not Figure([nan, 3.0, 3.0], bound=bound).reached
    assert not Figure(figures.ratios([3.0], [0.0]), bound=bound).reached


def test_repeats_are_interleaved_in_alternating_order():
    turns = iter(range(6))
    taken = figures.interleaved("trial", dict.fromkeys("ab", turns.__next__), 3)
    assert taken == {"a": [0, 3, 4], "b": [1, 2, 5]}


def test_notes_follow_their_table():
    table = Table("trial", "A trial", "what", {"it": {"s": None}}, ["it failed"])
    assert "| what | s |\n| --- | --- |\n| it | – |\n\n- it failed\n" in figures.as_markdown([table], 0.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["speed", "--only", "throughput,light"],
            "'light' is none of throughput, manifest, ledger, resume, startup",
        ),
        (["quota", "--clients", "ours,theirs"], "'theirs' is none of ours, boto3-defaults"),
    ],
)
def test_unknown_names_are_refused(words, said):
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 2
    assert said in result.output

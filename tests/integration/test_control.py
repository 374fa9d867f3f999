"""`control`: a run that is paused, resumed, slowed down and drained while it goes on."""

import asyncio
import json
import os
import re
import socket
import stat
from contextlib import suppress

import pytest

from batch_snapshot import cli, paths
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError
from batch_snapshot.jobs import control
from batch_snapshot.ledger import reader
from batch_snapshot.ledger.repair import repair
from tests.support.dask_cluster import cluster
from tests.support.ledgers import LedgerBuilder, row
from tests.support.processes import (
    Clustered,
    Place,
    ledger_lines,
    of_type,
    pairs,
    record,
    results,
    service,
    until,
)


@pytest.fixture
def place(cwd):
    """A folder to run in, which is this process's own, too."""
    return Place(cwd)


def sockets(place):
    return list((place.folder / "state" / "control").glob("*"))


def settled(place):
    return len(of_type(place.ledger, "result"))


def settled_since_the_pause(place):
    types = [line["type"] for line in ledger_lines(place.ledger)]
    return types[types.index("control") :].count("result")


def exactly_once(made, number):
    assert len(made["snapshots"]) == number
    assert len({(each["engagement"], each["resource"]) for each in made["snapshots"]}) == number


@pytest.mark.asyncio
async def test_run_is_paused_resumed_sped_up_and_drained_and_the_same_command_continues(place, called):
    place.manifest(pairs(300), accounts={"default": {"quota": {"per_second": 10}}})
    async with service(place, "--latency", "0.05") as url:
        run = ["run", "trial.yaml", "--endpoint-url", url, "--progress", "lines", "--progress-interval=0.1s"]
        async with place.started(*run) as child:
            await until(lambda: settled(place) >= 5, "the first rows")
            (listening,) = sockets(place)
            assert stat.S_IMODE(listening.stat().st_mode) == 0o600
            assert stat.S_IMODE(listening.parent.stat().st_mode) == 0o700

            paused = await called("control", place.ledger, "pause")
            assert (paused.code, paused.stdout[:7]) == (0, "paused:")
            flying = int((re.findall(r"(\d+) calls? in flight", paused.stdout) or ["0"])[0])
            await until(lambda: settled_since_the_pause(place) == flying, "the calls in flight")
            before = settled(place)
            watching = await called("status", place.ledger, "--format", "json")
            assert watching.json["outcome"] == "running"
            assert "paused by `control`" in watching.stdout
            assert watching.json["next_steps"] == [f"batch-snapshot control {place.ledger} resume"]
            locked = await called(*run)
            assert locked.code == 5, "a paused run keeps its locks"
            assert settled(place) == before

            faster = await called("control", place.ledger, "rate", "60", "--format", "json")
            assert (faster.json["action"], faster.json["value"]) == ("rate", 60)
            assert (await called("control", place.ledger, "concurrency", "4")).code == 0
            assert settled(place) == before
            assert (await called("control", place.ledger, "resume")).stdout == "resumed\n"
            await until(lambda: settled(place) >= before + 60, "rows after the pause", patience=6)
            assert (await called("control", place.ledger, "drain")).code == 0
            ended = await child.finished()
        assert ended.code == 4
        assert ":  batch-snapshot control ledgers/trial.ndjson resume\n" in ended.stderr
        assert "drained by `control`" in ended.stdout
        assert re.search(r"Z  0:00:\d\d .*/300 rows", ended.stderr)
        assert sockets(place) == []
        lines = of_type(place.ledger, "control")
        assert [line["action"] for line in lines] == ["pause", "rate", "concurrency", "resume", "drain"]
        assert {line["by"] for line in lines} == {os.getuid()}
        assert (lines[1]["value"], lines[2]["value"]) == (60, 4)
        assert (await called("status", place.ledger, "--check")).code == 0
        assert (await called(*run[:4], "--rate", "200")).code == 0
        made = await record(url)
    assert len(results(place.ledger)) == 300
    exactly_once(made, 300)


@pytest.mark.asyncio
async def test_commands_that_a_run_cannot_follow_change_nothing(place, called):
    place.manifest(pairs(300), accounts={"default": {"quota": {"per_second": 5}}})
    async with service(place) as url, place.started("run", "trial.yaml", "--endpoint-url", url) as child:
        await until(lambda: settled(place) >= 1, "the first row")
        other = await called("control", place.ledger, "rate", "3", "--account", "acme")
        assert other.code == 2
        assert "account 'acme': this run calls for default" in other.stderr
        elsewhere = await called("control", place.ledger, "pause", "--state-dir", "another")
        assert elsewhere.code == 2
        assert "name that with --state-dir" in elsewhere.stderr
        (listening,) = sockets(place)
        for request in (b"", b"\n", b"[]\n", b"{}\n", b'{"action":"stop"}\n', b"x" * 9000):
            with socket.socket(socket.AF_UNIX) as client:
                with control._short(listening) as short:
                    client.connect(short)
                with suppress(BrokenPipeError):
                    client.sendall(request)
                client.shutdown(socket.SHUT_WR)
                client.settimeout(10)
                answer = await asyncio.to_thread(client.recv, 4096)
            assert not answer or "refused" in json.loads(answer)
        assert of_type(place.ledger, "control") == []
        assert child.running
        assert (await called("control", place.ledger, "drain")).code == 0
        assert (await child.finished()).code == 4


@pytest.mark.long
@pytest.mark.asyncio
async def test_run_on_a_cluster_takes_only_drain(tmp_path):
    place = Clustered(tmp_path)
    place.manifest(pairs(400), accounts={"default": {"quota": {"per_second": 20}}})
    async with service(place) as url, cluster(place.folder, place.env) as dask:
        run = ["run", "trial.yaml", "--endpoint-url", url, "--engine", "dask", "--scheduler", dask.address]
        async with place.started(*run) as child:
            await until(lambda: settled(place) >= 1, "the first row")
            refused = await place.call("control", place.ledger, "pause")
            assert refused.code == 2
            assert "a run on a cluster takes only drain" in refused.stderr
            assert (await place.call("control", place.ledger, "drain")).code == 0
            assert (await child.finished()).code == 4


@pytest.mark.asyncio
async def test_state_folder_may_have_a_path_too_long_for_a_socket(tmp_path):
    place = Place(tmp_path)
    place.env["BATCH_SNAPSHOT_STATE_DIR"] = str(tmp_path / ("long" * 30))
    place.manifest(pairs(300), accounts={"default": {"quota": {"per_second": 5}}})
    async with service(place) as url, place.started("run", "trial.yaml", "--endpoint-url", url) as child:
        await until(lambda: settled(place) >= 1, "the first row")
        assert (await place.call("control", place.ledger, "drain")).code == 0
        assert (await child.finished()).code == 4


@pytest.mark.asyncio
async def test_run_without_a_usable_control_folder_goes_on_and_names_the_fix(place):
    place.manifest(pairs(1))
    folder = place.folder / "state" / "control"
    folder.parent.mkdir()
    folder.write_text("", "utf-8")
    done = await place.call("run", "trial.yaml", "--simulate")
    assert done.code == 0
    assert f"control is not possible in this run: {folder}: cannot be used (File exists); " in done.stderr
    assert "or name another folder with --state-dir\n" in done.stderr


@pytest.mark.asyncio
async def test_control_socket_that_cannot_be_removed_does_not_end_the_run(place):
    place.manifest(pairs(3))
    async with service(place, "--latency", "0.2") as url:
        async with place.started("run", "trial.yaml", "--endpoint-url", url, "--concurrency", "1") as run:
            await until(lambda: sockets(place) and settled(place), "the first row")
            (path,) = sockets(place)
            path.unlink()
            path.mkdir()
            assert (await run.finished()).code == 0
        exactly_once(await record(url), 3)
        assert of_type(place.ledger, "end")


def test_socket_of_a_run_that_was_killed_is_no_run(tmp_path):
    ledger = LedgerBuilder(rows=1).begin().write(tmp_path / "nightly.ndjson")
    path = paths.control_socket(tmp_path, ledger)
    path.parent.mkdir()
    with socket.socket(socket.AF_UNIX) as left, control._short(path) as short:
        left.bind(short)
    with pytest.raises(InputError, match="no run is writing it"):
        control.send(ledger, tmp_path, control.Command("pause"))


def test_control_lines_leave_the_history_and_a_repair_as_they_are(tmp_path):
    one, two = row(1), row(2)
    plain = LedgerBuilder(rows=2, counts={"succeeded": 2, "failed": 0, "in_doubt": 0, "unattempted": 0})
    plain.begin().intend(one, two).result(one).result(two).end()
    path = plain.write(tmp_path / "nightly.ndjson")
    before = reader.history_of(path, checked=True)
    lines = path.read_bytes().splitlines(keepends=True)
    told = b'{"type":"control","run_id":"%s","at":"2026-01-01T00:00:00.000Z","action":"pause","by":0}\n'
    run_id = json.loads(lines[0])["run_id"].encode()
    path.write_bytes(b"".join([lines[0], told % run_id, *lines[1:-1], told % run_id, lines[-1]]))
    assert reader.history_of(path, checked=True) == before
    assert cli.main(["status", str(path), "--check"]) == 0
    path.write_bytes(path.read_bytes().replace(lines[1], b"lost\n"))
    repair(path, utc_now())
    assert [line["type"] for line in ledger_lines(path)].count("control") == 2

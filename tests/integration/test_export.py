"""Exports of night after night: each snapshot is read once, whatever happens, and what changed is named."""

import asyncio
import csv
import errno
import json
import time
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest

from batch_snapshot import files
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options
from batch_snapshot.discovery import readers
from batch_snapshot.errors import InputError, LockedError, ServiceError, StorageError
from batch_snapshot.export import diff, fetch
from batch_snapshot.jobs import run
from batch_snapshot.simulator import Simulator, SimulatorSettings, serve
from tests.support.processes import Place, pairs, until, write_manifest, write_profiles

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("cwd")]

NIGHTS = [Path("ledgers/night-1.ndjson"), Path("ledgers/night-2.ndjson")]
ROWS = 40


def options(url: str, **given: Any) -> Options:
    return Options(endpoint_url=url, rate=1e5, read_rate=1e6, **given)


async def night(url: str, ledger: Path, rows: list[Any] | None = None, **manifest: Any) -> None:
    path = write_manifest(Path("night.yaml"), pairs(ROWS) if rows is None else rows, name="night", **manifest)
    await run.run(path, options(url, ledger=str(ledger)))


async def exported(
    url: str, output: str, *ledgers: Path, on_progress: Any = lambda _: None, **given: Any
) -> fetch.Exported:
    world = readers.Environment(now=utc_now, rng=Random(1), clock=time.monotonic, on_progress=on_progress)
    return await fetch.export(ledgers or NIGHTS[:1], Path(output), options(url), world, **given)


def records(path: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path).read_text("utf-8").splitlines()]


def content(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


def csv_rows(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return [*csv.DictReader(file)]


def reads(simulator: Simulator, before: Counter[str]) -> int:
    return (Counter(simulator.calls) - before)["GetResourceSnapshot"]


@pytest.mark.timeout(300)  # 8,000 calls to a server in the same process
@pytest.mark.parametrize("rows", [ROWS, pytest.param(2000, marks=pytest.mark.long)])
async def test_two_nights_cost_a_read_a_snapshot_and_their_difference_is_what_changed(rows):
    async with serve(SimulatorSettings()) as (url, simulator):
        await night(url, NIGHTS[0], pairs(rows))
        made = [snapshot.resource for snapshot in simulator.snapshots]
        touched = Random(7).sample(made, rows // 20)
        for resource in touched:
            simulator.touch(resource)
        await night(url, NIGHTS[1], pairs(rows))

        before = Counter(simulator.calls)
        done = await exported(url, "exports", *NIGHTS)
        assert (done.exit_code, done.fetched, reads(simulator, before)) == (0, 2 * rows, 2 * rows)
        assert dict(done.calls) == {"GetResourceSnapshot": 2 * rows}
        assert [*done.files.values()] == [rows, rows]

        before = Counter(simulator.calls)
        again = await exported(url, "exports", *NIGHTS)
        assert (again.fetched, again.calls, reads(simulator, before)) == (0, {}, 0)
        assert [*again.files.values()] == [rows, rows]

        files = [Path("exports") / path.name for path in NIGHTS]
        found = diff.diff(files[0], files[1])
        assert (found.rows_before, found.rows_after) == (rows, rows)
        assert (found.only_before, found.only_after) == (0, 0)
        assert sorted(change.row.resource for change in found.changes) == sorted(touched)
        assert found.rows_changed == found.fields["Lifecycle.NextSteps"] == len(touched)
        assert diff.diff(files[0], files[0]).changes == []
        assert {path.stat().st_mode & 0o777 for path in files} == {0o600}


async def test_an_export_that_ends_in_the_middle_fetches_only_the_rest():
    class Gone(Exception):  # noqa: N818 - a process that is killed, so to speak
        pass

    def killed(line: str) -> None:
        if ": 20 of" in line:
            raise Gone

    async with serve(SimulatorSettings()) as (url, simulator):
        await night(url, NIGHTS[0])
        with pytest.raises(BaseExceptionGroup):
            await exported(url, "x.ndjson", on_progress=killed)
        path = Path("x.ndjson")
        there = len(records("x.ndjson"))
        assert 20 <= there < ROWS
        whole = content(path)
        last = whole.splitlines(keepends=True)[-1]
        # A kill tears the last line, a power cut leaves zeros; the snapshots of these lines are read again.
        for torn in (last[:-1], last[:9], last[:300], b"\0" * 99 + last):
            path.write_bytes(whole + torn)
            before = Counter(simulator.calls)
            done = await exported(url, "x.ndjson")
            assert (done.fetched, reads(simulator, before)) == (ROWS - there, ROWS - there)
            assert len({one["arn"] for one in records("x.ndjson")}) == len(records("x.ndjson")) == ROWS


async def test_a_killed_export_is_continued_by_the_same_command(cwd):
    async with serve(SimulatorSettings()) as (url, simulator):
        await night(url, NIGHTS[0])
        shell, output = Place(cwd), cwd / "x.csv"
        line = ("export", NIGHTS[0], "--output", output, "--endpoint-url", url, "--read-rate", "100")
        source = output.with_suffix(".ndjson")
        async with shell.started(*line) as process:
            await until(lambda: content(source).count(b"\n") > 20, "some lines")
            process.signal(9)
            await process.finished()
        there = content(source).count(b"\n")
        before = Counter(simulator.calls)
        done = await shell.call(*line)
        assert done.code == 0, done.stderr
        assert reads(simulator, before) == ROWS - there > 0
        assert f"x.csv: {ROWS} snapshots\n{ROWS - there} fetched now, {there} before" in done.stdout
        assert len({row["arn"] for row in csv_rows(output)}) == ROWS


@pytest.mark.parametrize("output", ["x.csv", "x.parquet"])
async def test_a_table_has_the_models_columns_and_only_the_fields_that_were_asked_for(output):
    pytest.importorskip("pyarrow")
    async with serve(SimulatorSettings()) as (url, _):
        await night(url, NIGHTS[0], pairs(3))
        fields = ("Lifecycle.Stage", "Customer.Account", "Project.DeliveryModels", "OpportunityTeam")
        await exported(url, output, fields=fields)
        assert b"Contacts" not in content(Path("x.ndjson"))
        with pytest.raises(InputError, match="holds snapshots with --fields Lifecycle"):
            await exported(url, output, fields=("Lifecycle.Stage",))
    assert Path(output).stat().st_mode & 0o777 == 0o600
    if output == "x.csv":
        rows = csv_rows(Path(output))
        rows = [{**row, "Project.DeliveryModels": json.loads(row["Project.DeliveryModels"])} for row in rows]
        assert {row["revision"] for row in rows} == {"1"}
    else:
        import pyarrow.parquet

        table = pyarrow.parquet.read_table(output)
        rows = table.to_pylist()
        assert str(table.schema.field("created_at").type) == "timestamp[ms, tz=UTC]"
        assert str(table.schema.field("revision").type) == "int64"
    assert [row["Lifecycle.Stage"] for row in sorted(rows, key=lambda row: row["resource"])] == [
        record["payload"]["OpportunitySummary"]["Lifecycle"]["Stage"]
        for record in sorted(records("x.ndjson"), key=lambda one: one["resource"])
    ]
    assert rows[0]["Project.DeliveryModels"] == ["SaaS or PaaS"]
    assert json.loads(rows[0]["OpportunityTeam"])[0]["FirstName"] == "Alex"
    # A column of the model for which the service gave no value.
    assert not rows[0]["Customer.Account.Duns"]
    assert "Lifecycle.NextSteps" not in rows[0]


async def test_what_cannot_be_fetched_is_named_and_the_rest_is_fetched():
    async with serve(SimulatorSettings()) as (url, simulator):
        await night(url, NIGHTS[0], pairs(4))
        text = NIGHTS[0].read_text("utf-8")
        first, second, third, _ = simulator.snapshots
        # Another service stands there now: one is gone, one is another, one is denied.
        text = text.replace(first.arn, first.arn[:-1] + "9").replace(
            f'"arn":"{second.arn}","revision":1', f'"arn":"{second.arn}","revision":2'
        )
        NIGHTS[0].write_text(text.replace(third.engagement, "eng-denied00000001"), "utf-8")
        done = await exported(url, "x.ndjson")
        assert (done.exit_code, done.fetched) == (1, 1)
        assert Counter(one.what for one in done.findings) == {"mismatched": 1, "missing": 1, "unreadable": 1}
        assert "unreadable eng-denied00000001/" in fetch.as_text(done)


async def test_one_account_that_cannot_be_read_holds_up_no_other(cwd, monkeypatch):
    file = cwd / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    async with serve(SimulatorSettings()) as (url, _):
        others = [f"other-{number}" for number in range(12)]
        keys = {who: f"AKIAOTHER{number:011}" for number, who in enumerate(others)}
        write_profiles(file, first="AKIAFIRST00000000000", **keys)
        rows = pairs(fetch.DENIALS, 1000, account="first")
        rows += [row for number, who in enumerate(others) for row in pairs(2, 10 * number, account=who)]
        await night(url, NIGHTS[0], rows, accounts={who: {"profile": who} for who in ("first", *others)})
        write_profiles(file, first="AKIADENIED0000000000", **keys)
        with pytest.raises(ServiceError, match=r"account first: GetResourceSnapshot: AccessDenied"):
            await exported(url, "x.ndjson")
        assert Counter(one["account"] for one in records("x.ndjson")) == dict.fromkeys(others, 2)


class FullDisk(files.Disk):
    """Half of a line can be written at last, and later a little more again."""

    def __init__(self, room: int) -> None:
        self.room = room

    def write(self, fd: int, data: bytes) -> int:
        if self.room <= 0:
            self.room = 10_000
            raise OSError(errno.ENOSPC, "No space left on device")
        written = super().write(fd, data[: self.room])
        self.room -= written
        return written


async def test_a_full_disk_ends_the_export_and_leaves_whole_lines():
    async with serve(SimulatorSettings()) as (url, _):
        await night(url, NIGHTS[0])
        before = files.DISK.set(FullDisk(50_000))
        with pytest.raises(StorageError, match=r"x.ndjson: cannot be written .*free some space, then run"):
            await exported(url, "x.ndjson")
        files.DISK.reset(before)
        data = content(Path("x.ndjson"))
        assert data.endswith(b"}\n")
        assert 40_000 < len(data) <= 50_000
        there = len(records("x.ndjson"))
        done = await exported(url, "x.ndjson")
        assert (done.fetched, len(records("x.ndjson"))) == (ROWS - there, ROWS)


async def test_an_account_that_may_read_nothing_ends_after_a_few_denials(monkeypatch):
    async with serve(SimulatorSettings()) as (url, simulator):
        await night(url, NIGHTS[0], pairs(60))
        text = NIGHTS[0].read_text("utf-8")
        for number, snapshot in enumerate(simulator.snapshots):
            text = text.replace(snapshot.engagement, f"eng-denied{number:08}")
        NIGHTS[0].write_text(text, "utf-8")
        before = Counter(simulator.calls)
        with pytest.raises(ServiceError, match="allow partnercentral:GetResourceSnapshot"):
            await exported(url, "x.ndjson")
        assert reads(simulator, before) < 30


async def test_a_bad_file_of_any_ledger_is_found_before_the_first_call(cwd):
    async with serve(SimulatorSettings()) as (url, simulator):
        for ledger in NIGHTS:
            await night(url, ledger, pairs(2))
        (cwd / "exports").mkdir()
        (Path("exports") / NIGHTS[1].name).write_bytes(b"mine\n")
        before = Counter(simulator.calls)
        with pytest.raises(InputError, match=r"night-2.ndjson:1: is not a line of an NDJSON export"):
            await exported(url, "exports", *NIGHTS)
        assert reads(simulator, before) == 0


async def test_the_summary_is_an_object_if_asked_for_and_so_is_an_error(called):
    async with serve(SimulatorSettings()) as (url, simulator):
        await night(url, NIGHTS[0], pairs(3))
        text = NIGHTS[0].read_text("utf-8")
        gone = simulator.snapshots[0]
        NIGHTS[0].write_text(
            text.replace(f'"arn":"{gone.arn}","revision":1', f'"arn":"{gone.arn}","revision":2')
        )
        line = ("export", NIGHTS[0], "--output", "x.csv", "--endpoint-url", url, "--summary", "json")
        done = await called(*line)
        assert done.code == 1, done.stderr
        told = done.json
        assert told.pop("elapsed_s") > 0
        (unfetched,) = told.pop("unfetched")
        assert unfetched["ledger"] == str(NIGHTS[0])
        assert (unfetched["what"], unfetched["resource"], unfetched["revision"]) == (
            "missing",
            gone.resource,
            2,
        )
        assert told == {
            "outcome": "incomplete",
            "files": [{"path": "x.csv", "snapshots": 2}],
            "fetched": 2,
            "held_before": 0,
            "counts": {"missing": 1, "mismatched": 0, "unreadable": 0},
            "calls": 3,
            "calls_by_operation": {"GetResourceSnapshot": 3},
            "throttled_calls": 0,
        }
        refused = await called(*line[:3], "x.txt", *line[4:])
        assert (refused.code, refused.json["exit_code"]) == (2, 2)
        assert refused.json["error"]["message"].startswith("--output x.txt: name a folder")


async def test_ledgers_are_compared_by_exports_that_are_fetched_once(called):
    async with serve(SimulatorSettings()) as (url, simulator):
        await night(url, NIGHTS[0], pairs(20))
        touched = [snapshot.resource for snapshot in simulator.snapshots][:3]
        for resource in touched:
            simulator.touch(resource)
        await night(url, NIGHTS[1], pairs(20))
        before = Counter(simulator.calls)
        line = ["diff", "--payload", *map(str, NIGHTS), "--endpoint-url", url, "--read-rate", "500"]
        done = await called(*line, "--html", "changes.html", "--fields", "Lifecycle")
        assert done.code == 0, done.stderr
        assert reads(simulator, before) == 40
        assert "40 fetched now, 0 before" in done.stdout
        assert "      3 changed\n          3 Lifecycle.NextSteps" in done.stdout
        assert done.stdout.endswith("changes.html: open it in a browser\n")
        made = (Path("changes.html"), Path("exports/night-1.ndjson"))
        assert {path.stat().st_mode & 0o777 for path in made} == {0o600}
        assert b"Lifecycle.NextSteps" in content(Path("changes.html"))

        again = await called(*line, "--fields", "Lifecycle", "--format", "json")
        assert reads(simulator, before) == 40
        told = again.json
        assert (told["export"]["fetched"], told["export"]["held_before"]) == (0, 40)
        assert [one["resource"] for one in told["changes"]] == sorted(touched)
        other = await called(*line)
        assert other.code == 2
        assert "night-1.ndjson: holds snapshots with --fields Lifecycle; ask for the same" in other.stderr
        exports = [str(NIGHTS[0]), "exports/night-2.ndjson"]
        stages = await called("diff", "--payload", *exports, "--exports", "all", *line[4:])
        assert stages.code == 2
        assert "hold different fields; export both with the same --fields" in stages.stderr
        held = ("diff", "--payload", "all/night-1.ndjson", "exports/night-2.ndjson", "--fields")
        assert "3 changed" in (await called(*held, "Lifecycle.NextSteps")).stdout
        assert (await called(*held, "Customer")).code == 2
        assert "did you mean Lifecycle.Stage" in (await called(*held, "Lifecycle.Stag")).stderr


async def test_two_runs_are_never_mixed_in_silence(called):
    """Named in separate commands, two ledgers of one name would share a file of the folder."""
    async with serve(SimulatorSettings()) as (url, simulator):
        ledgers = [Path(folder, "night.ndjson") for folder in ("old", "new")]
        for ledger in ledgers:
            await night(url, ledger, pairs(2))
        await exported(url, "exports", ledgers[0])
        held, before = content(Path("exports/night.ndjson")), Counter(simulator.calls)
        line = ["diff", "--payload", str(ledgers[1]), "exports/night.ndjson", "--endpoint-url", url]
        done = await called(*line)
        assert done.code == 2
        assert "exports/night.ndjson: holds snapshots of the run " in done.stderr
        assert "; name another folder (--output, or --exports of diff), or remove" in done.stderr
        assert (content(Path("exports/night.ndjson")), Counter(simulator.calls)) == (held, before)
        assert (await called(*line, "--exports", "others")).code == 0
        # A file that is named may collect several runs. Comparing it says so.
        for ledger in ledgers:
            await exported(url, "both.ndjson", ledger)
        done = await called("diff", "--payload", "both.ndjson", "exports/night.ndjson")
        assert done.code == 0
        assert "warning: both.ndjson: holds snapshots of 2 runs; of a row the highest revision" in done.stderr
        for run_id in ("null", "[]"):  # an earlier version did not say which run it was
            records = [json.loads(line) | {"run_id": json.loads(run_id)} for line in held.splitlines()]
            lines = [json.dumps(record, separators=(",", ":")) for record in records]
            Path("mixed.ndjson").write_bytes("\n".join([*lines, ""]).encode())
            await exported(url, "mixed.ndjson", ledgers[1])
            done = await called("diff", "--payload", "mixed.ndjson", "exports/night.ndjson")
            assert (done.code, done.stderr) == (0, "")


async def test_snapshots_that_are_missing_are_named_once_with_their_ledgers_and_not_compared(called):
    async with serve(SimulatorSettings()) as (url, simulator):
        for ledger in NIGHTS:
            await night(url, ledger, pairs(3))
        gone, seen = (one.resource for one in simulator.snapshots[:2])
        text = NIGHTS[1].read_text("utf-8")
        # Both ledgers name a snapshot that the service lacks; for one row only the second does.
        NIGHTS[0].write_text(text.replace(gone, "O404"), "utf-8")
        NIGHTS[1].write_text(text.replace(gone, "O404").replace(seen, "O405"), "utf-8")
        line = ["diff", "--payload", *map(str, NIGHTS), "--endpoint-url", url, "--read-rate", "500"]
        done = await called(*line)
        assert done.code == 1
        (named,) = [one for one in done.stdout.splitlines() if "O404" in one]
        assert f" ({NIGHTS[0]} and {NIGHTS[1]}): ResourceNotFoundException" in named
        (named,) = [one for one in done.stdout.splitlines() if "O405" in one]
        assert f" ({NIGHTS[1]}): " in named
        summed = "      2 not compared: could not be fetched\n      1 only in the first\n      0 changed"
        assert summed in done.stdout
        told = (await called(*line, "--format", "json")).json
        assert [(one["resource"], one["ledger"]) for one in told["export"]["unfetched"]] == [
            ("O404", str(NIGHTS[0])),
            ("O404", str(NIGHTS[1])),
            ("O405", str(NIGHTS[1])),
        ]
        assert (told["rows_unfetched"], told["only_before"], told["rows_changed"]) == (2, 1, 0)
        for ledger in NIGHTS:
            ledger.write_text(text.replace("/resource/", "/none/").replace("O1000", "O404"), "utf-8")
        done = await called(*line, "--exports", "none")
        assert "no row is in both: nothing compared" in done.stdout


async def test_export_has_the_name_of_its_ledger_and_the_folders_that_tell_it_apart():
    def named(*ledgers: str) -> list[str]:
        return [path.name for path in fetch.export_files([Path(one) for one in ledgers], Path("x")).values()]

    assert named("/a/n.ndjson", "/a/m.ndjson") == ["n.ndjson", "m.ndjson"]
    assert named("/a/n.ndjson", "/b/n.ndjson", "/b/m.ndjson") == ["a-n.ndjson", "b-n.ndjson", "m.ndjson"]
    assert named("/y/a/n.x", "/z/a/n.x", "/b/n.x") == ["y-a-n.ndjson", "z-a-n.ndjson", "b-n.ndjson"]
    assert named("/a/n.ndjson", "/a/../a/n.ndjson") == ["a-n.ndjson", "a-n.ndjson"]


async def test_one_ledger_named_twice_and_two_exports_at_once_are_refused():
    async with serve(SimulatorSettings()) as (url, _):
        await night(url, NIGHTS[0], pairs(2))
        with pytest.raises(InputError, match="would both become"):
            await exported(url, "exports", NIGHTS[0], NIGHTS[0].absolute())
        with pytest.raises(InputError, match="no such file"):
            await exported(url, "exports", NIGHTS[1])
        both = await asyncio.gather(*(exported(url, "x.ndjson") for _ in range(2)), return_exceptions=True)
        assert [type(one) for one in both if isinstance(one, Exception)] == [LockedError]

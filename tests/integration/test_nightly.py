"""Nights: one ledger each, last night's failures first, old ledgers removed."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import cli
from batch_snapshot import paths as places
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options
from batch_snapshot.errors import InputError, StorageError
from batch_snapshot.jobs import resume, run
from batch_snapshot.ledger import locks, prune, records
from batch_snapshot.ledger.records import End
from batch_snapshot.models import Account, Status
from batch_snapshot.reporting import status
from batch_snapshot.reporting.summary import Summary
from batch_snapshot.simulator import SimulatorSettings, serve
from tests.support.ledgers import LedgerBuilder, row
from tests.support.processes import Json, of_type, pairs, results, write_manifest
from tests.support.strategies import header, patient

PATTERN = "ledgers/{name}-{date}.ndjson"
DAY = datetime(2026, 3, 1, tzinfo=UTC)

pytestmark = pytest.mark.usefixtures("cwd")


# -- two nights --------------------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone: no end line, no answer to what is in flight."""


class Clock:
    """Goes on a second with every outcome."""

    def __init__(self, at: datetime) -> None:
        self.at = at
        self.dies_at: datetime | None = None

    def __call__(self) -> datetime:
        return self.at

    def tick(self, _) -> None:
        self.at += timedelta(seconds=1)
        if self.dies_at and self.at >= self.dies_at:
            raise Killed


async def night(url: str, clock: Clock) -> list[Summary]:
    """What stands in every unit file: retry the newest ledger, then run."""
    hooks = run.Hooks(now=clock, outcome=clock.tick)
    options = Options(endpoint_url=url, rate=2000.0, ledger=PATTERN)
    newest, _ = resume.newest_ledger(PATTERN.replace("{name}", "trial"), options)
    if newest and resume.resumable(newest, clock()):
        newest = None
    before = [await run.retry(newest, None, options, hooks)] if newest else []
    return [*before, await run.run("trial.yaml", options, hooks)]


async def killed(url: str, clock: Clock, at: datetime) -> None:
    clock.dies_at = at
    with pytest.raises(BaseExceptionGroup) as caught:
        await night(url, clock)
    assert caught.group_contains(Killed, match=None)
    clock.dies_at = None


def made_by(path: Path) -> list[Json]:
    return of_type(path, "result")


def made(simulator) -> Counter[tuple[str, str]]:
    return Counter((one.engagement, one.resource) for one in simulator.snapshots)


@pytest.mark.asyncio
async def test_two_nights_one_killed_before_midnight_and_resumed_after_it():
    rows = pairs(24)
    write_manifest(Path("trial.yaml"), rows)
    first, second = Path("ledgers/trial-2026-03-01.ndjson"), Path("ledgers/trial-2026-03-02.ndjson")
    once = Counter((row["engagement"], row["resource"]) for row in rows)
    clock = Clock(DAY.replace(hour=23, minute=59, second=50))
    async with serve(SimulatorSettings(latency=0.01)) as (url, simulator):
        await killed(url, clock, DAY.replace(hour=23, minute=59, second=59))
        assert 0 < len(results(first)) < len(rows)
        assert not of_type(first, "end")

        clock.at = DAY + timedelta(days=1, minutes=5)
        [resumed] = await night(url, clock)
        assert resumed.ledger == str(first)
        assert resumed.exit_code == 0
        assert made(simulator) == once
        assert not made_by(second)

        clock.at = DAY + timedelta(days=1, hours=23, minutes=59, seconds=50)
        retried, tonight = await night(url, clock)
        assert (retried.ledger, retried.calls) == (str(first), 0)
        assert (tonight.ledger, tonight.exit_code) == (str(second), 0)
        assert made(simulator) == once + once
        assert simulator.pair_overlaps == 0
    assert [status.check_ledger(path) for path in (first, second)] == [24, 24]
    runs = [{line["run_id"] for line in of_type(path, "run")} for path in (first, second)]
    assert [len(one) for one in runs] == [1, 1]
    assert runs[0] != runs[1]
    arns = [{line["arn"] for line in results(path).values()} for path in (first, second)]
    assert arns[0].isdisjoint(arns[1])


@pytest.mark.asyncio
async def test_a_night_begins_with_what_can_be_cured_of_the_last():
    """Of ten rows one met a spent quota last night: it is tried again in last night's ledger."""
    refused_once = {"engagement": "eng-quota000000000", "resource": "O99"}
    write_manifest(Path("trial.yaml"), [*pairs(9), refused_once])
    clock = Clock(DAY.replace(hour=2))
    async with serve() as (url, simulator):
        [first] = await night(url, clock)
        assert (first.exit_code, first.counts.failed) == (1, 1)
        clock.at += timedelta(days=1)
        retried, tonight = await night(url, clock)
        tokens = Counter(call.client_token for call in simulator.log if "Create" in call.operation)
    assert (retried.command, retried.ledger) == ("retry", first.ledger)
    assert (tonight.command, tonight.ledger) == ("run", "ledgers/trial-2026-03-02.ndjson")
    refused = [line for line in of_type(Path(first.ledger), "result") if line["status"] == "failed"]
    assert [line["generation"] for line in refused] == [0, 1]
    assert set(tokens.values()) == {1}


# -- the newest ledger -------------------------------------------------------------------------------


def test_without_a_ledger_there_is_nothing_to_retry(capsys):
    assert cli.main(["retry", "ledgers/trial-{date}.ndjson", "--format", "json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["counts"] == {"succeeded": 0, "failed": 0, "in_doubt": 0, "unattempted": 0}
    assert "there is no such ledger yet: nothing to retry" in said.err
    assert not Path("ledgers").exists()


def test_the_newest_ledger_is_retried(capsys):
    for day in (1, 3, 2):
        written(Path("ledgers") / f"trial-2026-03-0{day}.ndjson", DAY)
    assert cli.main(["retry", "ledgers/trial-{date}.ndjson", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["ledger"] == "ledgers/trial-2026-03-03.ndjson"


@pytest.mark.parametrize("content", ["", '{"type":"ru'])
def test_a_newer_ledger_in_which_no_run_has_begun_is_passed_over(capsys, content):
    path = written(Path("ledgers") / "trial-2026-03-01.ndjson", DAY)
    path.with_name("trial-2026-03-02.ndjson").write_text(content, "utf-8")
    assert cli.main(["retry", "ledgers/trial-{date}.ndjson", "--format", "json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["ledger"] == str(path)
    assert "warning: ignored: ledgers/trial-2026-03-02.ndjson: no run has begun in it" in said.err


def test_a_young_ledger_that_is_not_finished_is_left_to_run(capsys):
    """Else this retry would finish it, and the run behind it begin the next night at once."""
    now = utc_now()
    path = written(Path("ledgers") / f"trial-{now:%Y-%m-%d}.ndjson", now, done=False)
    before = path.read_bytes()
    assert cli.main(["retry", "ledgers/trial-{date}.ndjson"]) == 0
    assert f"{path}: is not finished, and run resumes it" in capsys.readouterr().err
    assert path.read_bytes() == before


# -- pruning -----------------------------------------------------------------------------------------


def written(
    path: Path,
    at: datetime,
    *,
    name: str = "trial",
    endpoint: str = "aws",
    done: bool = True,
    ended: bool = True,
) -> Path:
    """A ledger of a row that has succeeded, or not."""
    path.parent.mkdir(exist_ok=True)
    accounts = {"main": records.encode_account(Account("main"))}
    rows = 0 if done else 1
    first = header(name=name, started_at=at, accounts=accounts, rows=rows, endpoint=endpoint)
    lines = [records.encode_run(first, "0")]
    if ended:
        lines.append(records.encode_end(first.run_id, End("completed", {"unattempted": rows}, at)))
    path.write_bytes(b"".join(lines))
    return path


def nights(number: int, **more) -> list[Path]:
    """So many, the oldest first."""
    days = [DAY + timedelta(days=day) for day in range(number)]
    return [written(Path("ledgers") / f"trial-{day:%Y-%m-%d}.ndjson", day, **more) for day in days]


def left() -> set[Path]:
    return {path for path in Path("ledgers").iterdir() if not path.name.endswith(".lock")}


def test_the_newest_are_kept_and_locks_and_found_pairs_go_with_their_ledgers():
    paths = nights(5)
    for path in paths:
        places.ledger_lock(path).touch()
    for path in paths[1:4]:
        places.discovered_file(path).touch()
    pruned = prune.prune(Path("ledgers"), 2, DAY)
    assert (pruned.removed, pruned.kept, pruned.newest) == (paths[:3], [], 2)
    assert left() == {*paths[3:], places.discovered_file(paths[3])}
    assert {path.name for path in Path("ledgers").glob("*.lock")} == {
        places.ledger_lock(path).name for path in paths[3:]
    }


def test_what_is_not_fully_succeeded_is_kept_however_old():
    failed, unfinished, crashed, torn, broken, fine, *newest = nights(8)
    refused = LedgerBuilder(1, name="trial", began=DAY).begin(endpoint="aws", accounts={"main": {}})
    refused.intend(row(1)).result(row(1), Status.FAILED).end().write(failed)
    written(unfinished, DAY, done=False)
    written(crashed, DAY + timedelta(days=1), ended=False)
    torn.write_bytes(torn.read_bytes() + b'{"type":"res')
    broken.write_bytes(broken.read_bytes() + b"nonsense\n")
    pruned = prune.prune(Path("ledgers"), 2, DAY)
    assert pruned.removed == [fine]
    reasons = dict(pruned.kept)
    assert reasons[failed] == "not fully succeeded: 1 failed"
    assert "1 unattempted" in reasons[unfinished]
    assert "did not come to an end" in reasons[crashed]
    assert "torn" in reasons[torn]
    assert f"{broken}:3" in reasons[broken]
    assert left() == {failed, unfinished, crashed, torn, broken, *newest}


def test_what_a_run_holds_is_kept():
    old, _ = nights(2)
    with locks.hold(places.ledger_lock(old), what=str(old), since="now"):
        pruned = prune.prune(Path("ledgers"), 1, DAY)
    assert pruned.removed == []
    assert "is in use by another run" in pruned.kept[0][1]
    assert old.exists()


def test_what_is_no_ledger_is_left_alone():
    old, new = nights(2)
    others = [Path("ledgers") / name for name in ("notes.txt", "empty", "pairs.ndjson", "report.html")]
    for path, content in zip(others, ["hello\n", "", '{"engagement": 1}\n', "<html>"], strict=True):
        path.write_text(content, "utf-8")
    Path("elsewhere.ndjson").write_bytes(old.read_bytes())
    link = Path("ledgers/link.ndjson")
    link.symlink_to(Path("elsewhere.ndjson").absolute())
    folder = Path("ledgers/older")
    folder.mkdir()
    within = written(folder / old.name, DAY)
    assert prune.prune(Path("ledgers"), 1, DAY).removed == [old]
    assert left() == {new, *others, link, folder}
    assert within.exists()
    assert Path("elsewhere.ndjson").exists()


def test_each_manifest_and_endpoint_has_ledgers_of_its_own():
    """A backfill's one ledger outlives any number of nights, and simulations displace none."""
    paths = nights(2)
    backfill = written(Path("ledgers/backfill.ndjson"), DAY - timedelta(days=400), name="backfill")
    tried = written(Path("ledgers/trial.simulated.ndjson"), DAY + timedelta(days=9), endpoint="simulator")
    assert prune.prune(Path("ledgers"), 1, DAY).removed == paths[:1]
    assert left() == {paths[1], backfill, tried}


def test_a_dry_run_removes_nothing(capsys):
    paths = nights(3)
    assert cli.main(["prune", "ledgers", "--keep", "1", "--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"{paths[0]}: would be removed",
        f"{paths[1]}: would be removed",
        "2 would be removed, 0 kept for a reason, 1 among the newest",
    ]
    assert left() == set(paths)
    assert not list(Path("ledgers").glob("*.lock"))


def test_prune_tells_what_it_kept_and_why(capsys):
    old, _ = nights(2)
    written(old, DAY, done=False)
    assert cli.main(["prune", "ledgers", "--keep", "1"]) == 0
    assert f"{old}: kept: not fully succeeded: 1 unattempted\n" in capsys.readouterr().out
    assert cli.main(["prune", "ledgers", "--keep", "1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "removed": [],
        "kept": [{"ledger": str(old), "reason": "not fully succeeded: 1 unattempted"}],
        "newest": 1,
        "dry_run": False,
    }


def test_prune_before_the_first_night_has_nothing_to_do(capsys):
    assert cli.main(["prune", "ledgers", "--keep", "30"]) == 0
    assert "no such folder yet" in capsys.readouterr().err


def test_what_cannot_be_pruned_is_told(capsys):
    with pytest.raises(InputError):
        prune.prune(Path("nowhere"), 1, DAY)


def test_a_ledger_that_cannot_be_removed_is_told(monkeypatch):
    old, _ = nights(2)
    (places.ledger_lock(old)).mkdir()
    with pytest.raises(StorageError, match="cannot lock here"):
        prune.prune(Path("ledgers"), 1, DAY)
    assert old.exists()


moments = st.integers(0, 5).map(lambda day: DAY + timedelta(days=day))
series = st.sampled_from([("a", "aws"), ("a", "simulator"), ("b", "aws")])
founds = st.lists(
    st.builds(prune.OldLedger, st.integers(0, 99).map(lambda n: Path(f"{n:02}")), series, moments),
    unique_by=lambda one: one.path,
)


@given(founds, st.integers(1, 4))
@patient
def test_whatever_there_is_the_newest_of_each_series_stay(found, keep):
    old = prune.beyond_newest(found, keep)
    for one in {one.series for one in found}:
        all_of_it = [each for each in found if each.series == one]
        gone = [each for each in old if each.series == one]
        kept = [each for each in all_of_it if each not in gone]
        assert len(kept) == min(keep, len(all_of_it))
        assert all(each.started_at <= other.started_at for each in gone for other in kept)

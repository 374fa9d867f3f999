"""Damaged ledgers are repaired and resumed, and each row has one snapshot."""

import asyncio
import json
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_snapshot import cli, manifest, paths
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.errors import LedgerError, LockedError
from batch_snapshot.jobs import plan, run
from batch_snapshot.ledger import history, locks, reader, records, writer
from batch_snapshot.ledger.history import History
from batch_snapshot.ledger.repair import Repaired, first_header, fragments, repair
from batch_snapshot.ledger.snapshot_index import SnapshotIndex, service_of
from batch_snapshot.models import Row, Status
from batch_snapshot.reporting import status
from batch_snapshot.simulator import SimulatorSettings, serve
from tests.support import rewriting
from tests.support.haste import Hasty, WallClock
from tests.support.ledgers import LedgerBuilder, row
from tests.support.processes import assert_exactly_once, move_in, pairs, results, write_manifest

NOW = datetime(2026, 3, 2, tzinfo=UTC)
REFUSED = {"engagement": "eng-invalid0000001", "resource": "O9"}
ROWS = [*pairs(8), REFUSED]

#: Seconds by which a look-up may take a snapshot for older than it is.
MARGIN = 1.0


@dataclass(frozen=True, repr=False)
class Made:
    """A whole ledger, and the snapshots that the service made."""

    lines: list[bytes]
    #: By row: the token of its snapshot, and when that was made.
    snapshots: dict[Row, tuple[str, float]]
    rows: list[Row]
    run_id: str


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Made:
    """A run that was deferred, its resume, and a retry of the refused row."""
    folder = tmp_path_factory.mktemp("repair")

    async def write() -> Made:
        listed = write_manifest(folder / "trial.yaml", ROWS, accounts={"main": {"quota": {"per_day": 5}}})
        path = folder / "made.ndjson"
        async with serve() as (url, simulator):
            options = Options(ledger=str(path), endpoint_url=url)
            assert (await run.run(listed, options)).outcome == "deferred"
            paths.call_log_file(folder / "state").unlink()
            await run.run(listed, options)
            paths.call_log_file(folder / "state").unlink()
            await run.retry(path, lambda _: plan.all_unfinished(), options)
            snapshots = {
                Row("main", "Sandbox", one.engagement, "Opportunity", one.resource, one.template): (
                    one.client_token,
                    one.created_at,
                )
                for one in simulator.snapshots
            }
        rows = [*manifest.rows(manifest.load(listed))]
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
    folder: Path = tmp_path
    return folder / "trial.ndjson"


def assert_no_second_snapshot(made: Made, past: History, path: Path, *, forgotten: bool) -> None:
    """`run` and `retry` send no made row under another token.

    Where the service has `forgotten` the tokens, they look the row up first, and early enough to find it.
    """
    retried = plan.retried(
        history.unfinished_rows(reader.lines(path), past),
        plan.all_unfinished(),
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


def repair_or_error(path: Path) -> Repaired | str:
    try:
        return repair(path, NOW)
    except LedgerError as error:
        return str(error)


def reads_like_a_record(line: bytes) -> bool:
    """Whether a line that was never written can be decoded: two lines that were cut and joined can."""
    with suppress(LedgerError):
        return records.decode(line.strip(b"\0")) is not None
    return False


def assert_repaired(made: Made, path: Path, content: bytes, *, forgotten: bool = True) -> None:
    """Repair this content: the result is whole, and leads to no second snapshot."""
    for old in path.parent.glob("*.original*"):
        old.unlink()
    rewriting.write(path, content)
    done = repair_or_error(path)
    if isinstance(done, str):
        assert "no run line is left" in done
        assert path.read_bytes() == content
        return
    if done.original is None:
        assert path.read_bytes() == content
    else:
        assert done.original.read_bytes() == content
        assert done.original.stat().st_mode & 0o777 == path.stat().st_mode & 0o777 == 0o600
    assert status.check_ledger(path) >= 0
    assert repair(path, NOW).original is None
    past = reader.history_of(path, checked=True)
    if not any(map(reads_like_a_record, set(content.splitlines(keepends=True)) - set(made.lines))):
        assert_no_second_snapshot(made, past, path, forgotten=forgotten)
    whole = {line for line in content.splitlines(keepends=True) if line in made.lines}
    gone = {line for line in whole if line not in path.read_bytes()}
    assert not [line for line in gone if b'"succeeded"' in line and b'"type":"result"' in line]
    assert not list(path.parent.glob("*.tmp"))


thorough = settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_a_whole_ledger_is_left_as_it_is(made, path, capsys):
    content = b"".join(made.lines)
    for whole in (content, b"\xef\xbb\xbf" + content, content.replace(b"\n", b"\r\n"), content + b"\n \n"):
        rewriting.write(path, whole)
        assert repair(path, NOW).original is None
        assert path.read_bytes() == whole
        assert_no_second_snapshot(made, reader.history_of(path, checked=True), path, forgotten=True)
        assert status.check_ledger(path) == 9
    assert cli.main(["status", str(path), "--repair", "--check"]) == 0
    assert "is whole" in capsys.readouterr().out
    assert not list(path.parent.glob("*.original*"))


def test_a_run_without_its_end_line_ended_with_its_last_result_whenever_it_is_repaired(made, path):
    rewriting.write(path, b"".join(made.lines[:-1]))
    last = datetime.fromisoformat(json.loads(made.lines[-2])["finished_at"])
    repair(path, last + timedelta(days=3))
    end = reader.history_of(path, checked=True).end
    assert end is not None
    assert end.finished_at == last


def test_a_ledger_without_any_one_line_is_repaired(made, path):
    for number in range(len(made.lines)):
        assert_repaired(made, path, b"".join(made.lines[:number] + made.lines[number + 1 :]))


def test_a_ledger_with_a_repeated_or_moved_line_is_repaired(made, path):
    for number in range(len(made.lines) - 1):
        lines = list(made.lines)
        assert_repaired(made, path, b"".join([*lines[:number], lines[number], *lines[number:]]))
        lines[number : number + 2] = reversed(lines[number : number + 2])
        assert_repaired(made, path, b"".join(lines))


@given(
    st.floats(0, 1),
    st.floats(0, 1) | st.floats(0, 0.1),
    st.sampled_from([b"\0", b"#", b"\xff", b"\n", b"[", b'"']),
)
@example(0.0, 0.05, b"\0")
@example(0.5, 0.5, b"\0")
@thorough
def test_a_ledger_with_overwritten_bytes_is_repaired(made, path, begin, length, filling):
    content = b"".join(made.lines)
    start = int(begin * len(content))
    end = min(len(content), start + 1 + int(length * len(content)))
    # The beginning of a last line looks like what a crash leaves.
    forgotten = end < len(content) or filling in b"\0\n"
    assert_repaired(
        made, path, content[:start] + filling * (end - start) + content[end:], forgotten=forgotten
    )


@given(st.floats(0, 1), st.floats(0, 1) | st.floats(0, 0.1), st.binary(max_size=30))
@thorough
def test_a_ledger_with_bytes_cut_out_or_inserted_leads_to_no_second_snapshot(
    made, path, begin, length, garbage
):
    content = b"".join(made.lines)
    start = int(begin * len(content))
    end = min(len(content), start + int(length * len(content)))
    assert_repaired(made, path, content[:start] + garbage + content[end:], forgotten=False)
    assert_repaired(made, path, content[:start] + garbage + content[start:], forgotten=False)


@pytest.mark.parametrize("status", [Status.IN_DOUBT, Status.SUCCEEDED])
def test_a_result_that_was_copied_behind_a_success_is_dropped(path, status):
    ledger = LedgerBuilder(rows=1).begin().intend(row(1)).result(row(1), status)
    copied = ledger.lines[-1]
    ledger.end("interrupted").begin().intend(row(1)).result(row(1))
    ledger.counts = {"succeeded": 1}
    lines = [*ledger.lines, copied, *ledger.end().lines[-1:]]
    rewriting.write(path, b"".join(lines))
    done = repair(path, NOW)
    assert done.dropped == 1
    assert reader.history_of(path, checked=True).status(row(1).key) is Status.SUCCEEDED


def test_the_rows_in_doubt_that_a_repair_counts_are_those_of_the_ledger(path):
    # The first run crashed, and then the result of its row was lost.
    ledger = LedgerBuilder(rows=2, counts={"succeeded": 2}).begin().intend(row(1))
    ledger.begin().intend(row(2)).result(row(2)).end().write(path)
    done = repair(path, NOW)
    again = repair(path, NOW)
    assert (
        done.in_doubt
        == again.in_doubt
        == reader.history_of(path, checked=True).counts()[Status.IN_DOUBT]
        == 1
    )


def test_more_rows_than_the_run_line_counts_are_counted_where_the_end_is_lost(path):
    rows = [row(1), row(2)]
    LedgerBuilder(rows=1).begin().intend(*rows).result(row(1)).result(row(2)).write(path)
    assert repair(path, NOW).added == 2
    past = reader.history_of(path, checked=True)
    assert past.last is not None
    assert (past.last.rows, past.counts()[Status.SUCCEEDED]) == (2, 2)


# -- by the simulator's record ------------------------------------------------------------------------


def lines_of(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True)


def garbled(lines: list[bytes]) -> list[bytes]:
    """An intent and the results of its rows are zeros, as far as the next whole line."""
    hole = b"\0" * sum(map(len, lines[1:4]))
    return [lines[0], hole + lines[4], *lines[5:]]


def torn_in_the_middle(lines: list[bytes]) -> list[bytes]:
    return [*lines[:3], lines[3][:70], *lines[4:]]


@pytest.mark.parametrize(("damage", "memory"), [(garbled, 60.0), (torn_in_the_middle, None)])
def test_a_repaired_ledger_is_resumed_to_one_snapshot_per_row(tmp_path, monkeypatch, capsys, damage, memory):
    move_in(monkeypatch, tmp_path)
    rows = pairs(6)
    manifest = write_manifest(Path("trial.yaml"), rows)
    ledger = Path("it is mine.ndjson")
    command = f"batch-snapshot status '{ledger}' --repair"

    async def damage_and_resume() -> None:
        clock = WallClock()
        async with serve(SimulatorSettings(forget_after=memory), now=clock.time) as (url, simulator):
            options = Options(ledger=str(ledger), endpoint_url=url, engine=Settings(read_lag=0.0))
            hooks = run.Hooks(now=clock.now, rng=Hasty(7))
            assert (await run.run(manifest, options, hooks)).exit_code == 0
            rewriting.write(ledger, b"".join(damage(lines_of(ledger))))
            clock.ahead += 3600.0
            for refused in (run.run(manifest, options, hooks), run.retry(ledger, None, options, hooks)):
                with pytest.raises(LedgerError) as caught:
                    await refused
                assert str(caught.value).endswith(command)
            assert cli.main(["status", str(ledger), "--repair"]) == 0
            assert status.check_ledger(ledger) == 6
            assert (await run.run(manifest, options, hooks)).exit_code == 0
            assert_exactly_once(simulator, ledger, rows)
            assert status.check_ledger(ledger) == 6

    asyncio.run(damage_and_resume())
    said = capsys.readouterr().out
    assert f"the ledger as it was: {tmp_path / ledger}.original" in said
    assert "in doubt\n" in said


@pytest.mark.parametrize("ended", [True, False], ids=["ended", "crashed"])
@pytest.mark.parametrize("left", [bytes, lambda _: b""], ids=["zeros", "cut off"])
def test_rows_of_a_lost_first_invocation_are_never_sent_again(tmp_path, monkeypatch, capsys, left, ended):
    """Nothing says when they were first sent: a snapshot of theirs may be older than every line left."""
    move_in(monkeypatch, tmp_path)
    rows = pairs(6)
    manifest, ledger = write_manifest(Path("trial.yaml"), rows), Path("ledger.ndjson")

    async def lose_and_resume() -> None:
        clock = WallClock()
        async with serve(SimulatorSettings(forget_after=60.0), now=clock.time) as (url, simulator):
            options = Options(ledger=str(ledger), endpoint_url=url, limit=3, engine=Settings(read_lag=0.0))
            hooks = run.Hooks(now=clock.now, rng=Hasty(7))
            await run.run(manifest, options, hooks)
            first = b"".join(lines_of(ledger))
            clock.ahead += 3600.0
            await run.run(manifest, replace(options, limit=2), hooks)
            content = b"".join(lines_of(ledger)[: None if ended else -1])
            rewriting.write(ledger, left(len(first)) + content[len(first) :])
            with pytest.raises(LedgerError, match="--repair"):
                await run.run(manifest, options, hooks)
            assert cli.main(["status", str(ledger), "--repair"]) == 0
            clock.ahead += 3600.0
            assert (await run.run(manifest, replace(options, limit=None), hooks)).exit_code == 1
            made = Counter((one.engagement, one.resource) for one in simulator.snapshots)
            assert made == Counter((row["engagement"], row["resource"]) for row in rows)
            # A crash after the last row was sent: its snapshot is not older than the intent of this run.
            written = lines_of(ledger)
            sent = max(n for n, line in enumerate(written) if b'"status":"succeeded"' in line)
            rewriting.write(ledger, b"".join([*written[:sent], *written[sent + 1 : -1]]))
            clock.ahead += 3600.0
            assert (await run.run(manifest, replace(options, limit=None), hooks)).exit_code == 1
            assert len(simulator.snapshots) == 6

    asyncio.run(lose_and_resume())
    assert sum(line.get("reconciled", False) for line in results(ledger).values()) == 1
    codes = Counter(line["error"] and line["error"]["code"] for line in results(ledger).values())
    assert codes == {None: 3, "FirstTryLost": 3}
    assert "send such a row if it has no snapshot, and else leave it in doubt" in capsys.readouterr().out


@pytest.mark.parametrize("place", ["ledger.ndjson", "copy.ndjson"])
def test_an_older_copy_of_a_ledger_makes_no_row_twice(tmp_path, monkeypatch, place):
    """Restored in its place, or run beside it; then the newer one again."""
    move_in(monkeypatch, tmp_path)
    rows = pairs(6)
    manifest, ledger = write_manifest(Path("trial.yaml"), rows), Path("ledger.ndjson")

    async def copy_and_resume() -> None:
        clock = WallClock()
        async with serve(SimulatorSettings(forget_after=60.0), now=clock.time) as (url, simulator):
            options = Options(ledger=str(ledger), endpoint_url=url, limit=2, engine=Settings(read_lag=0.0))
            hooks = run.Hooks(now=clock.now, rng=Hasty(7))
            await run.run(manifest, options, hooks)
            older = b"".join(lines_of(ledger))
            clock.ahead += 3600.0
            await run.run(manifest, options, hooks)
            newer = b"".join(lines_of(ledger))
            rewriting.write(Path(place), older)
            clock.ahead += 3600.0
            copied = replace(options, ledger=place, limit=None)
            done = await run.run(manifest, copied, hooks)
            assert done.counts == (6, 0, 0, 0)
            assert any("shorter than this machine left it" in text for text in done.warnings)
            rewriting.write(ledger, newer)
            clock.ahead += 3600.0
            assert (await run.run(manifest, replace(options, limit=None), hooks)).exit_code == 0
            assert_exactly_once(simulator, ledger, rows)

    asyncio.run(copy_and_resume())


def test_a_repair_says_what_it_did_as_an_object(made, path, capsys):
    lines = list(made.lines)
    del lines[3]
    lines.insert(5, b"%PDF-1.7\n")
    rewriting.write(path, b"".join(lines))
    assert cli.main(["status", str(path), "--repair", "--format", "json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["repair"] == {
        # All but the garbage and two ends, which count the row that is in doubt; a run line makes it so.
        "kept": len(lines) - 1 - 3,
        "dropped": 1,
        "dropped_as": {"damaged": 1},
        "added": 4,
        "in_doubt": 1,
        "unrecorded_since": None,
        "original": f"{path}.original",
    }
    assert said["counts"]["in_doubt"] == 1
    assert said["next_steps"] == [f"batch-snapshot retry {path}"]


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (b'{"type":"resu', "1 dropped (1 torn)"),
        pytest.param(b"\0" * 40, "1 dropped (1 zeros)", id="zeros"),
        (b'{"type":"end"\n', "1 dropped (1 damaged)"),
        (b"", "0 dropped"),
    ],
)
def test_a_repair_counts_what_stood_at_the_end_and_says_what_it_was(made, path, capsys, end, said):
    rewriting.write(path, b"".join(made.lines[:-1]) + end)
    assert cli.main(["status", str(path), "--repair"]) == 0
    assert f" lines kept, {said}, " in capsys.readouterr().out


def test_a_repair_overwrites_no_earlier_original(made, path):
    for number in range(3):
        content = b"".join(made.lines[: -1 - number])
        rewriting.write(path, content)
        done = repair(path, NOW)
        assert done.original is not None
        assert done.original == paths.original_file(path, number)
        assert done.original.read_bytes() == content


def test_a_locked_ledger_is_not_repaired(made, path):
    content = b"".join(made.lines[:-1])
    rewriting.write(path, content)
    with (
        locks.hold(paths.ledger_lock(path), what=str(path), since="now"),
        pytest.raises(LockedError, match="in use"),
    ):
        repair(path, NOW)
    assert path.read_bytes() == content


@pytest.mark.parametrize(
    "content", [b"", b"hello\n", b'{"type":"end"}\n', b'{"type":"run","schema":2}\n', None]
)
def test_a_file_that_is_no_ledger_is_not_repaired(path, content, capsys):
    if content is not None:
        rewriting.write(path, content)
    assert cli.main(["status", str(path), "--repair"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {path}")
    assert [one for one in path.parent.iterdir() if not one.name.endswith(".lock")] == [path] * (
        content is not None
    )


def test_a_later_run_line_replaces_a_lost_first_one(made, path):
    lines = list(made.lines)
    lines[0] = lines[0][:50] + b"\n"
    assert_repaired(made, path, b"".join(lines))
    head = reader.head(path)
    assert head is not None
    assert head.run_id == made.run_id


def test_prune_ignores_the_originals_that_repairs_keep(made, path):
    rewriting.write(path, b"".join(made.lines[:-1]))
    repair(path, NOW)
    from batch_snapshot.ledger import prune

    assert prune.prune(path.parent, 1, NOW) == prune.Pruned(newest=1)


# -- what run and retry check while reading -----------------------------------------------------------


def test_every_line_that_is_missing_is_refused_with_its_number(made, path):
    for number, line in enumerate(made.lines):
        rewriting.write(path, b"".join(made.lines[:number] + made.lines[number + 1 :]))
        if json.loads(line)["type"] == "end" or line == made.lines[-2]:
            # As if it had crashed there, or as if the retry had not sent its row.
            reader.history_of(path, checked=True)
            continue
        with pytest.raises(LedgerError) as caught:
            reader.history_of(path, checked=True)
        assert number == 0 or str(caught.value).endswith(f"batch-snapshot status {path} --repair")


def test_a_result_under_another_token_is_refused_with_its_number(made, path):
    for number, line in enumerate(made.lines):
        if b'"succeeded","arn' in line:
            other = json.dumps(json.loads(line) | {"client_token": "another"}, separators=(",", ":"))
            lines = [*made.lines[:number], other.encode() + b"\n", *made.lines[number + 1 :]]
            rewriting.write(path, b"".join(lines))
            with pytest.raises(LedgerError, match="under another token") as caught:
                reader.history_of(path, checked=True)
            assert f"{path}:{number + 1}: a result of" in str(caught.value)


def test_a_byte_order_mark_and_blank_lines_are_skipped(made, path):
    rewriting.write(path, b"".join(made.lines))
    expected = reader.history_of(path, checked=True)
    head, *lines = made.lines
    rest = (line[:-1] + b"\r\n" for line in lines[5:])
    content = b"".join([b"\xef\xbb\xbf" + head, b"\n", *lines[:5], b"  \r\n", *rest, b"\n"])
    rewriting.write(path, content)
    found = reader.history_of(path, checked=True)
    assert (found.counts(), found.succeeded, set(found.unfinished)) == (
        expected.counts(), expected.succeeded, set(expected.unfinished),
    )  # fmt: skip
    assert reader.head(path) == expected.first
    rewriting.write(path, content + b"   ")
    writer.repair_last_line(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("damage", [b"%PDF\n", b'{"type":"result"}\n'])
def test_status_names_the_command_that_repairs(made, path, damage, capsys):
    rewriting.write(path, b"".join([*made.lines[:3], damage, *made.lines[3:]]))
    for more in ([], ["--check"]):
        assert cli.main(["status", str(path), *more]) == 2
        said = capsys.readouterr().err.strip()
        assert said.startswith(f"error: {path}:4: ")
        assert said.endswith(f"batch-snapshot status {path} --repair")


def test_the_index_reads_a_repaired_ledger_anew(made, path, tmp_path):
    lines = [*made.lines[:2], *made.lines[3:]]
    rewriting.write(path, b"".join(lines[:8]))
    with SnapshotIndex(tmp_path / "snapshots.sqlite") as known:
        assert known.refresh(tmp_path) == []
        rewriting.write(path, b"".join(lines))
        repair(path, NOW)
        assert known.refresh(tmp_path) == []
        world = service_of(reader.head(path) or pytest.fail("no head"))
        found = [known.last(world or "", each) for each in made.rows]
    assert sum(one is not None for one in found) == 7


@pytest.mark.parametrize(("skew", "earlier"), [(None, 0.0), (-7200.0, 7200.0), (7200.0, 0.0)])
def test_the_index_takes_a_snapshot_for_older_if_the_clock_was_ahead(path, tmp_path, skew, earlier):
    """For younger than it is would be for older than a change that it does not show."""
    ledger = LedgerBuilder(rows=1).begin().intend(row(1), skew=skew).result(row(1)).end()
    ledger.write(path)
    with SnapshotIndex(tmp_path / "snapshots.sqlite") as known:
        known.refresh(tmp_path)
        at = known.last(service_of(reader.head(path) or pytest.fail("no head")) or "", row(1))
    sent = json.loads(ledger.lines[2])["first_sent_at"]
    assert at == datetime.fromisoformat(sent).timestamp() - earlier


def test_a_crash_keeps_the_time_from_which_rows_may_have_been_sent_unrecorded(path):
    """A row that was named after that is looked up as if it had been sent then."""
    since = NOW - timedelta(days=2)
    ledger = LedgerBuilder(rows=2).begin(unrecorded_since=since).begin().intend(row(1), at=500.0)
    rewriting.write(path, b"".join(ledger.lines))
    past = reader.history_of(path, checked=True)
    assert past.unfinished[row(1).key].first_sent_at == since
    named, fresh = plan.resumed([row(1), row(2)], past, "night-1")
    assert named
    assert fresh
    assert (named.ambiguous, named.first_sent_at) == (fresh.ambiguous, fresh.first_sent_at) == (True, since)


# -- damaged files: each whole record is found, and each place where something else stood is a gap

RUN, INTENT, RESULT, END = (
    LedgerBuilder(rows=1).begin().intend(row(1)).result(row(1), Status.SUCCEEDED).end().lines
)


def found(path, content: bytes) -> list[bytes]:
    path.write_bytes(content)
    return [fragment.raw for fragment in fragments(path)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (RUN + INTENT + RESULT + END, [RUN, INTENT, RESULT, END]),
        (RUN + INTENT[:40] + RESULT, [RUN, b"", RESULT]),
        (RUN + INTENT[:-1] + RESULT, [RUN, INTENT, RESULT]),
        (RUN + RESULT[:-1] + b"x\n" + END, [RUN, RESULT, b"", END]),
        (RUN + b"\0\0\n" + END, [RUN, b"", END]),
        (RUN + b" \r\n" + END, [RUN, END]),
        (RUN + b"[]\n" + END, [RUN, b"", END]),
        (RUN + END[:-1], [RUN, END]),
        (RUN + END[:20], [RUN, b""]),
        (RUN + END[:20] + b"\0", [RUN, b""]),
        (RUN + b"no ledger", [RUN, b""]),
        (b"\xef\xbb\xbf" + RUN, [RUN]),
        (b"", []),
    ],
)  # fmt: skip
def test_whole_records_and_gaps_are_found_in_order(tmp_path, content, expected):
    assert found(tmp_path / "l.ndjson", content) == expected


def test_a_record_of_a_later_schema_is_refused_with_its_line(tmp_path):
    path = tmp_path / "l.ndjson"
    with pytest.raises(LedgerError, match=r"l.ndjson:2: schema 2 is not 1"):
        found(path, RUN + RUN.replace(b'"schema":1', b'"schema":2'))


def test_the_first_header_is_of_the_run_that_most_lines_belong_to(tmp_path):
    path = tmp_path / "l.ndjson"
    path.write_bytes(RUN.replace(b'"run_id":"', b'"run_id":"x') + RUN + RESULT + END)
    assert first_header(path) == records.decode(RUN)


def test_the_first_header_gets_the_run_id_of_most_lines(tmp_path):
    path = tmp_path / "l.ndjson"
    path.write_bytes(RUN.replace(b'"run_id":"', b'"run_id":"x') + RESULT + END)
    assert first_header(path) == records.decode(RUN)

"""Night after night against the simulator: discover, run, only what changed, verify; and what each costs."""

import json
import re
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest

from batch_snapshot import manifest, operations, verify
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options, Settings
from batch_snapshot.discovery import discover, readers
from batch_snapshot.discovery.search import Discovery, Search
from batch_snapshot.errors import InputError, LedgerError
from batch_snapshot.jobs import run
from batch_snapshot.ledger.diff import diff
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.reporting import status
from batch_snapshot.reporting.summary import Summary, as_text
from batch_snapshot.simulator import Faults, Simulator, SimulatorSettings, serve
from batch_snapshot.simulator.world import Series
from batch_snapshot.verify import Verification
from tests.support.haste import WallClock
from tests.support.processes import TEMPLATE, of_type, results, write_manifest, write_profiles
from tests.support.simulator_client import Service

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures("cwd")]

FOUND = Path("found.yaml")
ALL = Filters(account="", catalog="Sandbox", resource_type="Opportunity", template=TEMPLATE)


def environment(**given: Any) -> readers.Environment:
    return readers.Environment(now=utc_now, rng=Random(1), clock=time.monotonic, **given)


def options(url: str, **given: Any) -> Options:
    return Options(endpoint_url=url, rate=1e5, read_rate=1e6, **given)


async def night(url: str, number: int, path: Path = FOUND, **given: Any) -> Summary:
    return await run.run(path, options(url, ledger=f"ledgers/night-{number}.ndjson", **given))


async def verified(url: str, number: int, sample: int | None = None) -> Verification:
    return await verify.verify(Path(f"ledgers/night-{number}.ndjson"), options(url), environment(), sample)


async def discovered(url: str, output: Path = FOUND, search: Filters = ALL, **given: Any) -> Discovery:
    return await discover.discover(output, search, options(url), environment(), **given)


def names() -> set[str]:
    """The files of the working folder."""
    return {path.name for path in Path().iterdir()}


def spent(simulator: Simulator, before: Mapping[str, int]) -> dict[str, int]:
    """What the simulator was asked since `before`, by operation."""
    return dict(Counter(simulator.calls) - Counter(before))


@pytest.mark.long
@pytest.mark.timeout(240)  # 6,300 calls to a server in the same process
async def test_a_night_of_only_what_changed_costs_pages_and_not_rows():
    world = SimulatorSettings(engagements=2000, opportunities_per_engagement=3)
    async with serve(world) as (url, simulator):
        found = await discovered(url)
        assert found.counts.pairs == 6000
        assert found.calls == spent(simulator, {})
        # Only newer SDKs know that list.
        assert {**found.calls, "ListOpportunityFromEngagementTasks": 1} == {
            "ListOpportunityFromEngagementTasks": 1,
            "ListEngagementByAcceptingInvitationTasks": 1,
            "ListEngagementFromOpportunityTasks": 6,
            "ListEngagementResourceAssociations": 1,
            "ListResourceSnapshotJobs": 3,
        }
        first = await night(url, 1)
        assert (first.exit_code, first.counts.succeeded) == (0, 6000)

        touched = Random(7).sample(range(1_000_001, 1_006_001), 300)
        for number in touched:
            simulator.touch(f"O{number}")
        before = Counter(simulator.calls)
        second = await night(url, 2, changed_since="last")
        assert (second.exit_code, second.counts.succeeded, second.counts.unchanged) == (0, 300, 5700)
        assert {key[2] for key in results(Path("ledgers/night-2.ndjson"))} == {f"O{n}" for n in touched}
        assert len(simulator.snapshots) == 6300
        assert second.reads == {"ListOpportunities": 60}
        # A read before the first write is every run's.
        cost = {"ListOpportunities": 60, "CreateResourceSnapshot": 300, "GetResourceSnapshot": 1}
        assert spent(simulator, before) == cost

        engagements = len({(number - 1_000_001) // 3 for number in touched})
        verification = await verified(url, 2)
        assert (verification.exit_code, verification.checked, verification.findings) == (0, 300, [])
        assert verification.calls == {"ListResourceSnapshots": engagements}

        behind = next(snapshot for snapshot in simulator.snapshots if snapshot.resource == f"O{touched[0]}")
        await Service(url, simulator).create(
            "behind-its-back", EngagementIdentifier=behind.engagement, ResourceIdentifier=behind.resource
        )
        verification = await verified(url, 2)
        assert verification.exit_code == 1
        [extra] = verification.findings
        assert (extra.what, extra.row.resource, extra.revision) == ("extra", behind.resource, 3)
        assert verification.calls == {"ListResourceSnapshots": engagements, "GetResourceSnapshot": 1}

        difference = diff(Path("ledgers/night-1.ndjson"), Path("ledgers/night-2.ndjson"))
        assert difference.exit_code == 0
        assert not any(difference.counts.values())


# -- discover ----------------------------------------------------------------------------------------

SMALL = SimulatorSettings(engagements=20, opportunities_per_engagement=3)


async def test_pairs_with_and_without_a_snapshot_are_found_in_one_order_and_run():
    async with serve(SMALL) as (url, simulator):
        api = Service(url, simulator)
        await api.create("t1", EngagementIdentifier="eng-0123456789abcd", ResourceIdentifier="O7")
        await api.create("t2", EngagementIdentifier="eng-00000000000002", ResourceIdentifier="O1000004")
        found = await discovered(url)
        assert (found.counts.pairs, found.counts.engagements) == (61, 21)
        assert found.counts.listed == found.counts.taken == {"tasks": 60, "associations": 2, "invitations": 0}
        text = FOUND.read_text("utf-8")
        assert text.index("O1000004") < text.index("O1000005") < text.index("eng-0123456789abcd")
        assert found.counts.active_jobs == text.count("# a snapshot job") == 30
        listed = manifest.load(FOUND)
        assert (listed.rows, listed.catalogs, listed.name) == (61, frozenset({"Sandbox"}), "found")
        assert "found.yaml.partial" not in names()

        by_line = await discovered(url, Path("again.ndjson"), skip_active=True)
        lines = [json.loads(line) for line in Path("again.ndjson").read_text("utf-8").splitlines()]
        assert (by_line.counts.pairs, len(lines)) == (61, 31)
        with pytest.raises(InputError, match="already exists"):
            await discovered(url)


@pytest.mark.parametrize(
    ("filters", "pairs", "operation"),
    [
        ({"stages": ("Launched",)}, 20, "ListOpportunities"),
        ({"stages": ("Launched", "Committed")}, 40, "ListOpportunities"),
        ({"changed_since": "1h"}, 1, "ListOpportunities"),
        ({"changed_since": "2024-12-31"}, 60, "ListOpportunities"),
        ({"created_by": ("123456789012",)}, 0, "ListEngagements"),
        ({"context_types": ("CustomerProject",)}, 54, ""),
        ({"context_types": ("Document",)}, 0, "GetEngagement"),
        ({"engagements": ("eng-00000000000003", "eng-00000000000004")}, 6, ""),
        ({"engagements": tuple(f"eng-{n:014d}" for n in range(1, 13))}, 36, ""),
        ({"sources": ("associations",)}, 0, ""),
    ],
)
async def test_filters(filters, pairs, operation):
    async with serve(SMALL) as (url, simulator):
        simulator.touch("O1000001")
        found = await discovered(url, search=replace(ALL, **filters))
        assert found.counts.pairs == pairs
        assert not operation or found.calls[operation]
        assert found.calls == spent(simulator, {})


async def test_listing_pairs_takes_steps_linear_in_their_number():
    def steps(size: int) -> int:
        """Those of SQLite's machine, in hundreds, for so many pairs with a job each."""
        taken = 0

        def count() -> int:
            nonlocal taken
            taken += 1
            return 0

        with Search(None, [ALL], "", datetime(2026, 3, 2, tzinfo=UTC)) as search:
            pairs = [(f"eng-{n:014d}", f"O{n}") for n in range(size)]
            search._db.executemany("INSERT INTO pairs VALUES (0, ?, ?, 1)", pairs)
            jobs = [(f"job-{n}", *pair, TEMPLATE) for n, pair in enumerate(pairs)]
            search._db.executemany("INSERT INTO jobs VALUES (0, ?, ?, ?, ?, 1)", jobs)
            search._db.set_progress_handler(count, 100)
            assert all(found.active_job for found in search.pairs())
        return taken

    assert steps(2000) < 3 * steps(1000)


@pytest.fixture
def pages_of_25(monkeypatch):
    of_25 = operations.LISTS["ListEngagementFromOpportunityTasks"]._replace(page_size=25)
    monkeypatch.setitem(operations.LISTS, of_25.name, of_25)


async def cut_short(url: str, output: Path = FOUND) -> None:
    """A search that is interrupted after two pages."""

    def interrupt(line: str) -> None:
        if line.endswith(": 50"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await discover.discover(output, ALL, options(url), environment(on_progress=interrupt))


async def test_an_interrupted_search_continues_with_its_next_page(pages_of_25):
    async with serve(SMALL) as (url, simulator):
        await cut_short(url)
        assert FOUND.name not in names()
        before = Counter(simulator.calls)
        found = await discovered(url)
        assert (found.resumed, found.counts.pairs) == (True, 60)
        assert spent(simulator, before)["ListEngagementFromOpportunityTasks"] == 1

        # Pages of another search, or from another world, are no use.
        await cut_short(url, Path("b.yaml"))
        other = await discovered(url, Path("b.yaml"), replace(ALL, stages=("Launched",)))
        assert (other.resumed, other.counts.pairs) == (False, 20)


async def test_pages_whose_tokens_were_forgotten_are_read_from_the_start(pages_of_25):
    async with serve(SMALL) as (url, _):
        port = int(url.rpartition(":")[2])
        await cut_short(url)
    async with serve(SMALL, port=port) as (url, simulator):
        found = await discovered(url)
        assert (found.resumed, found.counts.pairs) == (True, 60)
        assert simulator.calls["ListEngagementFromOpportunityTasks"] == 4


async def test_a_manifest_is_brought_up_to_date_and_keeps_its_comments():
    async with serve(SMALL) as (url, _):
        FOUND.write_text(
            "# Mine.\nversion: 1\nname: mine\ndefaults: {catalog: Sandbox}\npairs:\n"
            "  - engagement: eng-00000000000001\n    resources: [O1000001, O5]  # two\n"
            "  - {engagement: eng-00000000000002, resource: O6}\n"
            "# The end of them.\n",
            "utf-8",
        )
        done = await discover.update(FOUND, ALL, options(url), environment())
        assert (done.added, done.gone) == (59, 2)
        text = FOUND.read_text("utf-8")
        lines = text.splitlines()
        assert lines[0] == "# Mine."
        assert re.fullmatch(
            r"    resources: \[O1000001, O5\]  # two  # gone: no list names O5 any more \(.*\)", lines[6]
        )
        assert "resource: O6}  # gone: no list names it any more" in lines[7]
        assert lines[-1] == "# The end of them."
        assert manifest.load(FOUND).rows == 62
        again = await discover.update(FOUND, ALL, options(url), environment())
        assert (again.added, again.gone) == (0, 2)
        assert FOUND.read_text("utf-8") == text

        FOUND.write_text(
            "version: 1\nname: mine\ndefaults: {catalog: Sandbox}\n"
            "pairs: [{engagement: eng-00000000000001, resource: O1}]\n",
            "utf-8",
        )
        with pytest.raises(InputError, match=r"found.yaml:4: its pairs are in \[brackets\]"):
            await discover.update(FOUND, ALL, options(url), environment())


async def test_pairs_of_a_file_with_columns_of_its_own_are_known_and_the_file_is_left_alone():
    async with serve(SMALL) as (url, _):
        export = "Stage;Eng Id;Opp\nWon;eng-00000000000001;O1000001\n"
        Path("crm.csv").write_text(export, "utf-8")
        include = 'include: [{file: crm.csv, columns: {engagement: "Eng Id", resource: Opp}}]'
        FOUND.write_text(f"version: 1\nname: mine\ndefaults: {{catalog: Sandbox}}\n{include}\n", "utf-8")
        done = await discover.update(FOUND, ALL, options(url), environment())
        assert (done.added, manifest.load(FOUND).rows) == (59, 60)
        assert include in FOUND.read_text("utf-8")
        assert Path("crm.csv").read_text("utf-8") == export


async def test_botocores_paginators_walk_to_the_same_lists():
    async with serve(SMALL) as (url, simulator):
        api = Service(url, simulator)
        for number in range(7):
            await api.create(f"t{number}", ResourceIdentifier=f"O{number}")
        await discovered(url, Path("all.ndjson"))
        tasks = await api.pages("list_engagement_from_opportunity_tasks", 7, Catalog="Sandbox")
        pairs = {(one["EngagementId"], one["OpportunityId"]) for page in tasks for one in page}
        associations = await api.pages("list_engagement_resource_associations", 3, Catalog="Sandbox")
        pairs |= {(one["EngagementId"], one["ResourceId"]) for page in associations for one in page}
        lines = map(json.loads, Path("all.ndjson").read_text("utf-8").splitlines())
        assert {(line["engagement"], line["resource"]) for line in lines} == pairs
        assert len(pairs) == 67


# -- live sources ------------------------------------------------------------------------------------

LIVE = """\
version: 1
name: live
defaults: {catalog: Sandbox}
discover: {stages: [Launched]}
pairs:
- {engagement: eng-0123456789abcd, resource: O7}
- {engagement: eng-00000000000001, resource: O1000001}
"""


async def test_discovered_pairs_are_kept_for_a_resume_and_searched_anew_the_next_night():
    path = Path("live.yaml")
    path.write_text(LIVE, "utf-8")
    kept = Path("ledgers/night-1.ndjson.discovered.ndjson")
    async with serve(SMALL) as (url, simulator):
        first = await night(url, 1, path)
        # 20 are launched, one of which the manifest lists too.
        assert (first.exit_code, first.counts.total) == (0, 21)
        [head] = of_type(Path("ledgers/night-1.ndjson"), "run")
        assert head["discovered_sha256"] == sha256(kept.read_text("utf-8").encode()).hexdigest()
        assert kept.stat().st_mode & 0o777 == 0o600
        asked = simulator.calls["ListEngagementFromOpportunityTasks"]

    grown = SimulatorSettings(engagements=25, opportunities_per_engagement=3)
    async with serve(grown) as (other, simulator):
        again = await run.run(path, options(url, ledger="ledgers/night-1.ndjson"))
        assert (again.counts.total, again.vanished) == (21, 0)
        assert asked == 1
        assert not simulator.calls
        second = await night(other, 2, path)
        assert (second.exit_code, second.counts.total) == (0, 26)

    kept.write_text(kept.read_text("utf-8")[:-1] + " \n", "utf-8")
    with pytest.raises(LedgerError, match="was changed"):
        await night(url, 1, path)
    kept.unlink()
    with pytest.raises(LedgerError, match="is missing"):
        await night(url, 1, path)


async def test_a_ledger_that_does_not_fit_is_refused_before_anything_is_searched():
    path, kept = Path("live.yaml"), Path("ledgers/night-1.ndjson.discovered.ndjson")
    path.write_text(LIVE.replace("discover:", "# discover:"), "utf-8")
    async with serve(SMALL) as (url, simulator):
        assert (await night(url, 1, path)).exit_code == 0
        path.write_text(LIVE, "utf-8")
        before = dict(simulator.calls)
        with pytest.raises(LedgerError, match="has run id"):
            await night(url, 1, path, run_id="another")
        assert (simulator.calls, kept.exists()) == (before, False)
        assert (await night(url, 1, path)).counts.succeeded == 21


async def test_each_account_is_searched_and_a_resume_keeps_all():
    path = Path("live.yaml")
    path.write_text(
        "version: 1\nname: live\ndefaults: {catalog: Sandbox}\naccounts: {a: {}, b: {}}\ndiscover:\n"
        "- {account: a, stages: Launched}\n- {account: b, stages: [Committed]}\n",
        "utf-8",
    )
    async with serve(SMALL) as (url, _):
        both = await night(url, 1, path)
        rows = results(Path("ledgers/night-1.ndjson"))
        assert (both.exit_code, Counter(key[0] for key in rows)) == (0, {"a": 20, "b": 20})
        one = await night(url, 2, path, accounts=("a",))
        assert (one.exit_code, one.counts.total) == (0, 20)
        with pytest.raises(LedgerError, match="was begun without account 'b'"):
            await night(url, 2, path)


async def test_rows_that_are_found_are_on_disk_before_the_first_call_and_a_crash_keeps_them():
    path = Path("live.yaml")
    path.write_text(LIVE, "utf-8")
    async with serve(SMALL) as (url, simulator):

        def refuse(_: object) -> bool:
            assert Path("ledgers/night-1.ndjson.discovered.ndjson").read_text("utf-8")
            assert not simulator.calls["CreateResourceSnapshot"]
            return False

        with pytest.raises(InputError, match="not confirmed"):
            await run.run(path, options(url, ledger="ledgers/night-1.ndjson"), run.Hooks(confirm=refuse))
        preview = run.dry_run(path, options(url, ledger="ledgers/other.ndjson"))
        assert preview.rows == 2
        assert "known only when it is run" in preview.notes[0]


# -- only what changed -------------------------------------------------------------------------------


async def test_without_a_ledger_dates_are_read_row_by_row_and_unknown_dates_are_sent():
    rows = [("eng-0123456789abcd", f"O{number}") for number in range(1, 6)]
    pairs = [{"engagement": engagement, "resource": resource} for engagement, resource in rows]
    write_manifest(FOUND, pairs)
    clock = WallClock()
    async with serve(SimulatorSettings(), now=clock.time) as (url, simulator):
        api = Service(url, simulator)
        for number in (1, 2, 3):
            await api.create(f"t{number}", ResourceIdentifier=f"O{number}")
        simulator.world.opportunities["Sandbox"]["O4"] = 1_735_689_600.0
        clock.ahead = 0.01
        simulator.touch("O2")
        simulator.world.opportunities["Sandbox"]["O3"] = 3e9  # an impossible date
        summary = await night(url, 1, changed_since="last")
        taken = {key[2] for key in results(Path("ledgers/night-1.ndjson"))}
        # O1 is as it was; O2 was modified, O3 has no date, O4 no snapshot, O5 is in no list.
        assert taken == {"O2", "O3", "O4", "O5"}
        assert summary.reads == {"GetResourceSnapshot": 3, "ListOpportunities": 1}
        assert (summary.exit_code, summary.counts.as_dict()["unchanged"]) == (0, 1)


async def test_a_skipped_row_stays_skipped_and_its_ledger_is_complete():
    write_manifest(
        FOUND, [{"engagement": "eng-00000000000001", "resource": f"O{1_000_001 + n}"} for n in range(3)]
    )
    path = Path("ledgers/night-1.ndjson")
    async with serve(SMALL) as (url, simulator):
        simulator.touch("O1000002")
        first = await night(url, 1, changed_since="1h")
        assert (first.counts, first.counts.unchanged) == ((1, 0, 0, 0), 2)
        simulator.touch("O1000001")
        again = await night(url, 1)
        assert (again.exit_code, again.counts, again.counts.unchanged) == (0, (1, 0, 0, 0), 2)
        assert "was left out" in again.warnings[0]
        assert len(simulator.snapshots) == 1
        # A row that is added later runs, and nothing else.
        write_manifest(
            FOUND,
            [{"engagement": "eng-00000000000001", "resource": f"O{1_000_001 + n}"} for n in range(2, 5)],
        )
        more = await night(url, 1)
        assert (more.counts.succeeded, more.counts.unchanged, more.vanished) == (3, 2, 2)
    assert status.check_ledger(path) == 5
    assert status.read_status(path).counts.unchanged == 2
    text = as_text(status.read_status(path))
    assert "2 unchanged" in text
    skips = of_type(path, "skip")
    assert [(line["reason"], [row[4] for row in line["rows"]]) for line in skips] == [
        ("unchanged", ["O1000001", "O1000003"])
    ]


async def test_a_row_in_doubt_is_settled_and_not_left_out():
    rows = [{"engagement": "eng-00000000000001", "resource": f"O{1_000_001 + n}"} for n in range(2)]
    write_manifest(FOUND, rows[:1])
    broken = Faults(plan=lambda ordinal, _: None if ordinal else "internal-after")
    async with serve(replace(SMALL, faults=broken)) as (url, simulator):
        first = await night(url, 1, engine=Settings(max_attempts=1))
        assert first.counts == (0, 0, 1, 0)
        write_manifest(FOUND, rows)
        again = await night(url, 1, changed_since="1h")
        assert (again.exit_code, again.counts, again.counts.unchanged) == (0, (1, 0, 0, 0), 1)
        assert len(simulator.snapshots) == 1
    assert status.check_ledger(Path("ledgers/night-1.ndjson")) == 2


async def test_pairs_of_running_jobs_are_left_out_and_what_a_job_does_is_asked_once():
    async with serve(SMALL) as (url, simulator):
        await discovered(url)
        first = await night(url, 1, skip_active_jobs=True)
        assert (first.exit_code, first.counts.succeeded, first.counts.active_job) == (0, 30, 30)
        assert first.reads == {"GetResourceSnapshotJob": 30, "ListResourceSnapshotJobs": 1}
        running = {job.opportunity for job in simulator.world.jobs if job.status == "Running"}
        assert running.isdisjoint(snapshot.resource for snapshot in simulator.snapshots)
        second = await night(url, 2, skip_active_jobs=True, changed_since="last")
        assert second.reads == {"ListOpportunities": 1, "ListResourceSnapshotJobs": 1}
        assert (second.counts.unchanged, second.counts.active_job) == (30, 30)


async def test_a_night_that_may_not_read_the_dates_sends_nothing(monkeypatch):
    write_manifest(FOUND, [{"engagement": "eng-00000000000001", "resource": "O1000001"}])
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIADENIED0000000000")
    async with serve(SMALL) as (url, simulator):
        summary = await night(url, 1, changed_since="last")
        assert (summary.outcome, summary.exit_code) == ("stopped", 3)
        assert summary.counts.unattempted == 1
        [reason] = summary.reasons
        assert "ListOpportunities: AccessDeniedException" in reason
        assert "allow partnercentral:ListOpportunities" in reason
        assert not simulator.calls["CreateResourceSnapshot"]
    assert status.check_ledger(Path("ledgers/night-1.ndjson")) == 1


async def test_an_account_whose_dates_cannot_be_read_stops_no_other(cwd, monkeypatch):
    keys = {"good": "AKIAEXAMPLE000000001", "bad": "AKIADENIED0000000000"}
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", write_profiles(cwd / "credentials", **keys))
    rows = [
        {"engagement": f"eng-{n:014d}", "resource": "O1", "account": ("good", "bad")[n % 2]} for n in range(6)
    ]
    write_manifest(FOUND, rows, accounts={name: {"profile": name} for name in keys})
    async with serve(SMALL) as (url, simulator):
        summary = await night(url, 1, changed_since="last", skip_active_jobs=True)
        assert (summary.exit_code, summary.counts) == (3, (3, 0, 0, 3))
        assert "bad: ListResourceSnapshotJobs: AccessDenied" in str(summary.accounts["bad"].stopped)
        assert summary.accounts["good"].stopped is None
        assert {snapshot.access_key for snapshot in simulator.snapshots} == {keys["good"]}


async def test_a_missing_or_damaged_index_is_rebuilt_from_the_ledgers(cwd):
    async with serve(SMALL) as (url, _):
        await discovered(url)
        await night(url, 1)
        file = cwd / "state" / "snapshots.sqlite"
        for number, content in enumerate((None, b"no database", b"")):
            if content is not None:
                file.write_bytes(content)
            summary = await night(url, 2 + number, changed_since="last")
            assert (summary.counts.unchanged, dict(summary.reads)) == (60, {"ListOpportunities": 1})


# -- verify and diff ---------------------------------------------------------------------------------


async def test_missing_mismatched_extra_and_unreadable_snapshots_are_reported():
    names = ("eng-0123456789abc1", "eng-0123456789abc2", "eng-0123456789abc3", "eng-0123456789abc4")
    write_manifest(FOUND, [{"engagement": name, "resource": "O1"} for name in names])
    path = Path("ledgers/night-1.ndjson")
    async with serve(SimulatorSettings()) as (url, simulator):
        api = Service(url, simulator)
        await api.create("long-ago", EngagementIdentifier=names[2], ResourceIdentifier="O1")
        old = simulator.world.by_engagement["Sandbox", names[2]]
        old[0] = replace(old[0], created_at=old[0].created_at - 3600)
        simulator.world.series[Series("Sandbox", names[2], "Opportunity", "O1", TEMPLATE)][0] = old[0]
        await night(url, 1)
        verification = await verified(url, 1)
        assert (verification.exit_code, verification.calls["GetResourceSnapshot"]) == (
            0,
            1,
        )  # it asked how old it is

        await api.create("twice", EngagementIdentifier=names[2], ResourceIdentifier="O1")
        for index in (0, 1):
            snapshots = simulator.world.by_engagement["Sandbox", names[index]]
            series = simulator.world.series[Series("Sandbox", names[index], "Opportunity", "O1", TEMPLATE)]
            if index == 0:
                snapshots.clear()
                series.clear()
            else:
                snapshots[0] = series[0] = replace(snapshots[0], arn=snapshots[0].arn + "x")
        verification = await verified(url, 1)
        assert [(one.what, one.row.engagement, one.revision) for one in verification.findings] == [
            ("missing", names[0], 1),
            ("mismatched", names[1], 1),
            ("extra", names[2], 3),
        ]
        as_json = verify.as_json(verification)
        assert as_json["counts"] == {"missing": 1, "mismatched": 1, "extra": 1, "unreadable": 0}
        shown = verify.as_text(verification).splitlines()
        assert [line.split()[0] for line in shown[1:4]] == ["missing", "mismatched", "extra"]
        assert shown[4].startswith("calls ")
        # One of the four is drawn, and always the same.
        draws = [await verified(url, 1, sample=1) for _ in range(2)]
        assert [(one.checked, one.engagements, one.succeeded) for one in draws] == [(1, 1, 4)] * 2
        assert draws[0].findings == draws[1].findings

    text = path.read_text("utf-8").replace(names[3], "eng-denied0000000")
    path.write_text(text, "utf-8")
    async with serve(SimulatorSettings(), port=int(url.rpartition(":")[2])) as (url, _):
        verification = await verified(url, 1)
        assert [one.what for one in verification.findings] == ["missing", "missing", "missing", "unreadable"]
    with pytest.raises(LedgerError, match="was written against"):
        await verified("http://127.0.0.1:1", 1)

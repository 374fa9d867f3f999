"""`discover`, `verify`, `diff` and `run --changed-since` as a shell sees them, against a simulated world."""

import json
import re
from pathlib import Path

import pytest

from tests.support.processes import of_type
from tests.support.service_models import data_path

WORLD = ["--simulate=rate=500,burst=50", "--state", "world.ndjson", "--read-rate=500", "--progress=none"]


@pytest.fixture(autouse=True)
def place(cwd, monkeypatch):
    # What `discover` finds does not depend on the SDK that is installed.
    monkeypatch.setenv("AWS_DATA_PATH", data_path("older"))


def test_a_simulator_state_file_lasts_from_one_command_to_the_next(call):
    code, out, _ = call(
        "discover", "--catalog", "Sandbox", "--output", "found.yaml", "--stage", "Launched", *WORLD
    )
    assert code == 0
    assert out.startswith("found.yaml: 21 pairs of 21 engagements\n")
    assert "tasks                20 pairs, never snapshotted ones too, 40 filtered out" in out
    assert re.search(r"^calls +6 in ", out, re.MULTILINE)
    assert "ListOpportunities 1" in out
    assert "not covered" in out

    ledgers = [f"ledgers/{night}.simulated.ndjson" for night in (1, 2)]
    assert call("run", "found.yaml", "--ledger", ledgers[0], *WORLD)[0] == 0
    changed = ["--changed-since", "last", "--format", "json"]
    code, out, _ = call("run", "found.yaml", "--ledger", ledgers[1], *WORLD, *changed)
    printed = json.loads(out)
    assert (code, printed["outcome"]) == (0, "completed")
    none = dict.fromkeys(("succeeded", "failed", "in_doubt", "unattempted"), 0)
    assert printed["counts"] == {**none, "unchanged": 21}
    assert (printed["reads"], printed["calls"]) == ({"ListOpportunities": 1}, 0)

    code, out, _ = call("status", ledgers[1], "--check")
    assert code == 0
    assert "whole: 21 rows" in out
    assert "0 succeeded, 21 unchanged" in out

    code, out, _ = call("verify", ledgers[0], *WORLD, "--format", "json")
    printed = json.loads(out)
    assert (code, printed["outcome"], printed["checked"]) == (0, "verified", 21)
    assert printed["calls_by_operation"] == {"ListResourceSnapshots": 21}
    # Without the state file the simulator has none of the snapshots: every snapshot is missing.
    code, out, err = call("verify", ledgers[0], "--simulate", "--sample", "2", "--progress", "none")
    assert f"warning: {ledgers[0]}: this simulator is new and has no snapshots" in err
    assert code == 1
    assert "2 of 21 succeeded rows in 2 engagements: 2 missing" in out

    code, out, _ = call("diff", *ledgers)
    assert (code, out) == (0, f"{ledgers[0]} (21 rows) → {ledgers[1]} (21 rows)\nno difference\n")
    code, out, _ = call("diff", *ledgers, "--format", "json")
    assert json.loads(out)["counts"]["newly_failing"] == 0
    # None of these has written to the state folder of real runs; the simulator keeps its own next to it.
    assert not Path("state").exists()
    assert {"usage.sqlite", "snapshots.sqlite"} <= {
        path.name for path in Path("world.ndjson.state").iterdir()
    }


def test_an_engagement_of_two_accounts_is_counted_once(call):
    Path("two.yaml").write_text(
        "version: 1\nname: two\ndefaults: {catalog: Sandbox}\naccounts: {a: {}, b: {}}\npairs:\n"
        "- {engagement: eng-0123456789abcd, resource: O1, account: a}\n"
        "- {engagement: eng-0123456789abcd, resource: O2, account: b}\n",
        "utf-8",
    )
    assert call("run", "two.yaml", "--ledger", "two.simulated.ndjson", *WORLD)[0] == 0
    code, out, _ = call("verify", "two.simulated.ndjson", *WORLD)
    assert code == 0
    assert out.startswith("two.simulated.ndjson: 2 succeeded rows in 1 engagement: ")


def test_a_manifest_with_discover_says_which_rows_are_not_known_yet(call):
    Path("live.yaml").write_text(
        "version: 1\nname: live\ndefaults: {catalog: Sandbox}\ndiscover: {stages: [Launched]}\n", "utf-8"
    )
    code, out, _ = call("validate", "live.yaml")
    assert (code, out) == (
        0,
        "live.yaml: valid: 0 rows, and those that discover: finds when it is run, catalog Sandbox\n",
    )
    code, out, _ = call("validate", "live.yaml", "--format", "json")
    [search] = json.loads(out)["discover"]
    assert (search["catalog"], search["stages"]) == ("Sandbox", ["Launched"])
    code, out, _ = call("plan", "live.yaml", "--simulate")
    assert code == 0
    assert "note      the rows of discover: are known only when it is run" in out
    assert not Path("ledgers").exists()
    code, out, _ = call("schedule", "eventbridge", "live.yaml")
    assert code == 0
    assert '"partnercentral:ListEngagementInvitations"' in out
    assert call("run", "live.yaml", *WORLD)[0] == 0
    [head] = of_type(Path("ledgers/live.simulated.ndjson"), "run")
    assert head["rows"] == 21
    # What was found counts for a forecast too.
    assert "0 of 21 rows to send" in call("plan", "live.yaml", "--simulate")[1]


def test_an_invalid_state_file_is_reported(call):
    Path("world.ndjson").write_text("version: 1\n", "utf-8")
    code, _, err = call("discover", "--catalog", "Sandbox", "--output", "x.yaml", *WORLD)
    assert code == 2
    assert "--state: world.ndjson:1: not a simulator's state file" in err
    assert not Path("x.yaml").exists()

"""`discover`, `verify`, `diff` and `run --changed-since` as a shell sees them, against a simulated world."""

import json
import re
from pathlib import Path

import pytest

from batch_snapshot import cli
from tests.support.processes import of_type
from tests.support.service_models import data_path

WORLD = ["--simulate", "--state", "world.ndjson", "--progress", "none"]


@pytest.fixture(autouse=True)
def place(cwd, monkeypatch):
    # What `discover` finds does not depend on the SDK that is installed.
    monkeypatch.setenv("AWS_DATA_PATH", data_path("older"))


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_simulator_state_file_lasts_from_one_command_to_the_next(capsys):
    code, out, _ = call(
        capsys, "discover", "--catalog", "Sandbox", "--output", "found.yaml", "--stage", "Launched", *WORLD
    )
    assert code == 0
    assert out.startswith("found.yaml: 21 pairs of 21 engagements\n")
    assert "tasks                20 pairs, never snapshotted ones too, 40 filtered out" in out
    assert re.search(r"^calls +6 in ", out, re.MULTILINE)
    assert "ListOpportunities 1" in out
    assert "cannot see" in out

    ledgers = [f"ledgers/{night}.simulated.ndjson" for night in (1, 2)]
    assert call(capsys, "run", "found.yaml", "--ledger", ledgers[0], *WORLD)[0] == 0
    code, out, _ = call(
        capsys,
        "run",
        "found.yaml",
        "--ledger",
        ledgers[1],
        "--changed-since",
        "last",
        *WORLD,
        "--format",
        "json",
    )
    printed = json.loads(out)
    assert (code, printed["outcome"]) == (0, "completed")
    assert printed["counts"] == {
        "succeeded": 0,
        "failed": 0,
        "in_doubt": 0,
        "unattempted": 0,
        "unchanged": 21,
    }
    assert (printed["reads"], printed["calls"]) == ({"ListOpportunities": 1}, 0)

    code, out, _ = call(capsys, "status", ledgers[1], "--check")
    assert code == 0
    assert "whole: 21 rows" in out
    assert "0 succeeded, 21 unchanged" in out

    code, out, _ = call(capsys, "verify", ledgers[0], *WORLD, "--format", "json")
    printed = json.loads(out)
    assert (code, printed["outcome"], printed["checked"]) == (0, "verified", 21)
    assert printed["calls_by_operation"] == {"ListResourceSnapshots": 21}
    # Without the state file the simulator has none of the snapshots: every snapshot is missing.
    code, out, err = call(capsys, "verify", ledgers[0], "--simulate", "--sample", "2", "--progress", "none")
    assert f"warning: {ledgers[0]}: this simulator is new and has no snapshots" in err
    assert code == 1
    assert "2 of 21 succeeded rows in 2 engagements: 2 missing" in out

    code, out, _ = call(capsys, "diff", *ledgers)
    assert (code, out) == (0, f"{ledgers[0]} (21 rows) → {ledgers[1]} (21 rows)\nno difference\n")
    code, out, _ = call(capsys, "diff", *ledgers, "--format", "json")
    assert json.loads(out)["counts"]["newly_failing"] == 0
    # None of these has written to the state folder of real runs; the simulator keeps its own next to it.
    assert not Path("state").exists()
    assert {"usage.sqlite", "snapshots.sqlite"} <= {
        path.name for path in Path("world.ndjson.state").iterdir()
    }


def test_a_manifest_with_discover_says_which_rows_are_not_known_yet(capsys):
    Path("live.yaml").write_text(
        "version: 1\nname: live\ndefaults: {catalog: Sandbox}\ndiscover: {stages: [Launched]}\n", "utf-8"
    )
    code, out, _ = call(capsys, "validate", "live.yaml")
    assert (code, out) == (
        0,
        "live.yaml: valid: 0 rows, and those that discover: finds when it is run, catalog Sandbox\n",
    )
    code, out, _ = call(capsys, "validate", "live.yaml", "--format", "json")
    [search] = json.loads(out)["discover"]
    assert (search["catalog"], search["stages"]) == ("Sandbox", ["Launched"])
    code, out, _ = call(capsys, "plan", "live.yaml", "--simulate")
    assert code == 0
    assert "note      the rows of discover: are known only when it is run" in out
    assert not Path("ledgers").exists()
    code, out, _ = call(capsys, "schedule", "eventbridge", "live.yaml")
    assert code == 0
    assert '"partnercentral:ListEngagementInvitations"' in out
    assert call(capsys, "run", "live.yaml", *WORLD)[0] == 0
    [head] = of_type(Path("ledgers/live.simulated.ndjson"), "run")
    assert head["rows"] == 21
    # What was found counts for a forecast too.
    assert "0 of 21 rows to send" in call(capsys, "plan", "live.yaml", "--simulate")[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["discover", "--catalog", "AWS"], "discover: give either --output FILE, or --update MANIFEST"),
        (["discover", "--catalog", "AWS", "--output", "x.csv"], "x.csv: unknown ending"),
        (
            ["discover", "--catalog", "AWS", "--output", "x.yaml", "--stage", "Lunched"],
            "did you mean Launched",
        ),
        (["discover", "--catalog", "AWS", "--output", "x.yaml", "--engagement", "e1"], "does not match eng-"),
        (
            ["discover", "--catalog", "AWS", "--output", "x.yaml", "--changed-since", "soon"],
            "is not a time: write",
        ),
        (
            ["discover", "--catalog", "AWS", "--output", "x.yaml", "--name", "a b"],
            'name "a b" does not match',
        ),
        (["discover", "--catalog", "AWS", "--output", "x.yaml", "--template", "?"], 'template "?"'),
        (["discover", "--catalog", "AWS", "--output", "x.yaml", "--state", "w"], "use it with --simulate"),
        (["discover", "--catalog", "AWS", "--output", "x.yaml", "--accounts", "a"], "no such account"),
        (["discover", "--catalog", "AWS", "--update", "pairs.ndjson"], "only a YAML manifest"),
        (["discover", "--catalog", "AWS", "--update", "none.yaml"], "does not exist"),
        (["verify", "none.ndjson"], "none.ndjson: there is no such file"),
        (["diff", "none.ndjson", "none.ndjson"], "none.ndjson: there is no such file"),
        (["run", "x.yaml", "--changed-since", "soon"], "--changed-since: 'soon' is not a time"),
        (
            ["run", "x.yaml", "--changed-since", "9999-01-01"],
            "--changed-since: '9999-01-01' is in the future",
        ),
        (
            ["discover", "--catalog", "AWS", "--output", "x.yaml", "--changed-since", "9999-01-01"],
            "discover: changed_since: '9999-01-01' is in the future",
        ),
        (["diff", "--payload", "none.ndjson", "none.ndjson"], "none.ndjson: there is no such file"),
        (["export", "none.ndjson", "--output", "x.csv"], "none.ndjson: there is no such file"),
        (
            ["export", "none.ndjson", "--output", "x.csv", "--fields", ","],
            "--fields: name at least one field",
        ),
    ],
)
def test_invalid_flags_are_one_line_and_nothing_is_called(arguments, message, capsys):
    code, out, err = call(capsys, *arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) == 1
    assert not list(Path().glob("*.partial"))


def test_an_invalid_state_file_is_reported(capsys):
    Path("world.ndjson").write_text("version: 1\n", "utf-8")
    code, _, err = call(capsys, "discover", "--catalog", "Sandbox", "--output", "x.yaml", *WORLD)
    assert code == 2
    assert "--state: world.ndjson:1: not a simulator's state file" in err
    assert not Path("x.yaml").exists()

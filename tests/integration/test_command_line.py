"""What people type: CSV files as manifests, trials, settings of the simulator, variables, lists."""

import csv
import json
import os
import re
import shlex
import sys
from collections import Counter

import pytest
from click.testing import CliRunner

from batch_snapshot import cli, manifest
from batch_snapshot.cli.invocation import shareable
from batch_snapshot.cli.params import short_duration, simulator_settings
from batch_snapshot.cli.simulate import parse_settings
from batch_snapshot.models import Status
from batch_snapshot.simulator import DEMO
from tests.support.ledgers import LedgerBuilder, row
from tests.support.processes import of_type, pairs, results, write_manifest

PAIRS = "engagement,resource\n" + "".join(f"eng-{n:014d},O{n}\n" for n in range(1, 13))
QUIET = ["--progress", "none"]
UNDONE = "snapshots cannot be undone, and they notify partners"


# -- help ----------------------------------------------------------------------------------------------


def test_short_help_shows_common_options_and_help_all_every_one(call):
    _, short, _ = call("run", "--help")
    _, everything, _ = call("run", "--help-all")
    assert "--limit" in short
    assert "--token-ttl" not in short
    assert "more options: batch-snapshot run --help-all" in short
    assert "BATCH_SNAPSHOT_RUN_LEDGER is --ledger" in everything
    headings = re.findall(r"^(\w+):$", everything, re.MULTILINE)
    assert headings == [
        *("Common", "Filters", "Ledger", "Limits", "Retry", "Output", "Notifications", "AWS", "Cluster"),
        *("Simulator", "Help", "Examples"),
    ]
    for command in cli.cli.commands.values():
        flags = {flag for param in command.params for flag in param.opts if flag.startswith("--")}
        told = CliRunner().invoke(cli.cli, [command.name or "", "--help-all"]).output
        assert flags - {"--help-all"} <= set(re.findall(r"--[a-z-]*[a-z]", told))


def test_help_lists_commands_in_their_sections(call):
    for words in (["--help"], ["help"], []):
        code, told, _ = call(*words)
        assert code == 0
        places = [
            told.index(f"\n{title}:") for title in ("Prepare", "Run", "Inspect", "Maintain", "Exit codes")
        ]
        assert places == sorted(places)
    assert len(call("--help-all")[1]) > 5 * len(told)


@pytest.mark.parametrize("columns", [60, 80, 97, 200])
def test_no_line_of_help_but_examples_is_wider_than_the_terminal(monkeypatch, call, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    told = call("--help-all")[1]
    prose = re.sub(r"(?m)^ *(Usage:|batch-snapshot ).*$", "", told)
    assert max(map(len, prose.splitlines())) <= min(columns - 1, 100)
    assert not re.findall(r"(?m)^.*\w-$", told), "no line ends within an option or a name"
    assert "\N{NON-BREAKING HYPHEN}" not in told


# -- values from the environment -----------------------------------------------------------------------


def test_variable_stands_for_an_option_and_the_command_line_wins(cwd, monkeypatch, call):
    write_manifest(cwd / "trial.yaml", pairs(3))
    monkeypatch.setenv("BATCH_SNAPSHOT_RUN_SIMULATE", "rate=500,burst=50")
    monkeypatch.setenv("BATCH_SNAPSHOT_RUN_FORMAT", "json")
    monkeypatch.setenv("BATCH_SNAPSHOT_RUN_LIMIT", "1")
    code, out, err = call("run", "trial.yaml")
    assert (code, json.loads(out)["counts"]["succeeded"]) == (4, 1)
    assert "simulated: 500/s in bursts of 50" in err
    code, out, _ = call("run", "trial.yaml", "--limit", "2", "--format", "text")
    assert code == 0
    assert "3 rows: 3 succeeded" in out


def test_misspelt_variable_is_a_warning(cwd, monkeypatch, call):
    write_manifest(cwd / "trial.yaml", pairs(1))
    monkeypatch.setenv("BATCH_SNAPSHOT_VALIDATE_FROMAT", "json")
    code, _, err = call("validate", "trial.yaml")
    assert code == 0
    assert err == "warning: $BATCH_SNAPSHOT_VALIDATE_FROMAT: batch-snapshot validate has no such option\n"


def test_variables_of_other_meanings_stay_as_they_are(cwd, monkeypatch, call):
    for name in ("VERSION", "HELP", "DEBUG", "RUN_HELP", "NOTIFY_WEBHOOK"):
        monkeypatch.setenv(f"BATCH_SNAPSHOT_{name}", "https://hooks.example/T0/secretsecretsecret")
    write_manifest(cwd / "trial.yaml", pairs(1))
    code, out, err = call("validate", "trial.yaml")
    assert code == 0
    assert out.startswith("trial.yaml: valid")
    assert err == ""


def test_next_command_names_ledger_and_simulator_of_the_environment(cwd, monkeypatch, call):
    """Typed where the variables are not set, it must not open another ledger or call AWS."""
    write_manifest(cwd / "trial.yaml", pairs(2))
    monkeypatch.setenv("BATCH_SNAPSHOT_RUN_SIMULATE", "rate=500")
    monkeypatch.setenv("BATCH_SNAPSHOT_RUN_LEDGER", "ledgers/{name}-{date}.ndjson")
    monkeypatch.setattr(sys, "argv", ["batch-snapshot", "run", "trial.yaml", "--limit", "1"])
    code, out, _ = call(*sys.argv[1:])
    assert code == 4
    ledger, command = (re.findall(rf"^{word} +(.+)$", out, re.MULTILINE)[0] for word in ("ledger", "next"))
    assert f"--ledger={ledger}" in command
    assert "--simulate=rate=500" in command
    for name in ("SIMULATE", "LEDGER"):
        monkeypatch.delenv(f"BATCH_SNAPSHOT_RUN_{name}")
    code, out, _ = call(*shlex.split(command)[1:])
    assert code == 0
    assert "2 rows: 2 succeeded" in out


def test_format_of_the_environment_holds_for_errors_too(cwd, monkeypatch, call):
    monkeypatch.setenv("BATCH_SNAPSHOT_RUN_FORMAT", "json")
    code, out, _ = call("run", "nowhere.yaml", "--no-such-flag")
    assert (code, json.loads(out)["error"]["kind"]) == (2, "usage")


# -- messages ------------------------------------------------------------------------------------------


def test_every_problem_is_a_line_that_begins_with_error_and_all_problems_shows_the_rest(cwd, call):
    lines = "".join(f"  - {{engagement: wrong{n}, resource: O1}}\n" for n in range(70))
    (cwd / "wrong.yaml").write_text(
        f"version: 1\nname: wrong\ndefaults: {{catalog: Sandbox}}\npairs:\n{lines}"
    )
    for command in ("validate", "plan", "run"):
        _, _, err = call(command, "wrong.yaml")
        assert [line[:18] for line in err.splitlines()] == ["error: wrong.yaml:"] * 50 + [
            "error: … and 20 mo"
        ]
        code, _, err = call(command, "wrong.yaml", "--all-problems")
        assert code == 2
        assert [line[:18] for line in err.splitlines()] == ["error: wrong.yaml:"] * 70
    found = json.loads(call("validate", "wrong.yaml", "--format", "json", "--all-problems")[1])
    assert found["problem_count"] == len(found["problems"]) == 70
    assert found["problems"][69]["line"] == 74


def test_words_are_coloured_on_a_terminal_alone(cwd, monkeypatch, call):
    assert "\x1b" not in call("run", "nowhere.yaml")[2]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert call("run", "nowhere.yaml")[2].startswith("\x1b[31m\x1b[1merror: \x1b[0mnowhere.yaml")
    monkeypatch.setenv("NO_COLOR", "1")
    assert call("run", "nowhere.yaml")[2].startswith("error: nowhere.yaml")


def test_run_for_catalog_aws_that_does_not_ask_warns_in_one_line(cwd, call):
    write_manifest(cwd / "real.yaml", pairs(2), catalog="AWS", name="real")
    where = ["--endpoint-url", "http://127.0.0.1:9", "--max-duration", "0.1s"]
    _, _, err = call("run", "real.yaml", *where, *QUIET)
    told = [line for line in err.splitlines() if "undone" in line]
    assert told == [f"warning: 2 rows will be sent to catalog AWS for account default: {UNDONE}"]
    _, _, err = call("run", "real.yaml", "--simulate", *QUIET)
    assert "undone" not in err


# -- init, and files of pairs as manifests --------------------------------------------------------------


def test_init_writes_a_file_once_and_names_the_manifest_after_it(cwd, call):
    assert call("init", "my pairs.yaml")[0] == 0
    loaded = manifest.load(cwd / "my pairs.yaml")
    assert (loaded.name, loaded.rows) == ("my-pairs", 3)
    assert "\nname: other\n" in call("init", "--name", "other")[1]


def test_init_from_a_csv_includes_it(cwd, call):
    (cwd / "pairs.csv").write_text(PAIRS)
    assert call("init", "backfill.yaml", "--from", "pairs.csv")[0] == 0
    loaded = manifest.load(cwd / "backfill.yaml")
    assert (loaded.name, loaded.rows) == ("backfill", 12)


def test_init_recognises_columns_of_a_crm_by_their_values(cwd, call):
    export = "Account;Engagement Id;Opportunity: Id\nACME;eng-0123456789abcd;O1\n;eng-0123456789abce;O2\n"
    (cwd / "CRM export.csv").write_text(f"\ufeff{export}", "utf-8")
    assert call("init", "crm.yaml", "--from", "CRM export.csv")[0] == 0
    assert manifest.load(cwd / "crm.yaml").rows == 2


@pytest.mark.parametrize("file", ["nightly.csv", "nightly.ndjson"])
def test_file_of_pairs_runs_as_a_manifest(cwd, call, file):
    lines = [line.split(",") for line in PAIRS.splitlines()[1:]]
    objects = "".join(json.dumps({"engagement": e, "resource": r}) + "\n" for e, r in lines)
    (cwd / file).write_text(PAIRS if file.endswith(".csv") else objects)
    assert call("plan", file, "--catalog", "Sandbox", "--name", "n2")[1].startswith("n2: 12 of 12 rows")
    simulate = ["--simulate=rate=500,burst=50,latency=1ms", *QUIET]
    code, out, _ = call("run", file, "--catalog", "Sandbox", "--limit", "5", *simulate)
    assert code == 4
    code, out, _ = call("run", file, "--catalog", "Sandbox", "--format", "json", *simulate)
    assert (code, json.loads(out)["counts"]["succeeded"]) == (0, 12)
    head = of_type(cwd / "ledgers/nightly.simulated.ndjson", "run")[0]
    assert (head["name"], head["rows"], head["settings"]["catalog"]) == ("nightly", 12, "Sandbox")


def test_commands_to_run_next_name_the_catalog_of_a_file_of_pairs(cwd, call):
    (cwd / "pairs.csv").write_text(PAIRS)
    call("run", "pairs.csv", "--catalog", "Sandbox", "--name", "mine", "--simulate", "--limit", "2", *QUIET)
    told = call("status", "ledgers/mine.simulated.ndjson")[1]
    assert " --simulate --name mine --catalog Sandbox" in told


def test_commands_to_run_next_are_short_and_keep_the_settings_of_the_simulator(cwd, monkeypatch, call):
    write_manifest(cwd / "trial.yaml", pairs(3))
    settings, ledger = "--simulate=rate=500,internal=1", "ledgers/trial.simulated.ndjson"
    line = ["run", "trial.yaml", settings, "--max-attempts", "1", "--limit", "2", *QUIET]
    assert call(*line)[0] == 4
    doubt = f"batch-snapshot retry {ledger} --only in_doubt {settings}\n"
    assert doubt in (told := call("status", ledger)[1])
    # Typed in this folder, neither the folder nor the default ledger need be said.
    assert f"\nnext    batch-snapshot run trial.yaml {settings}\n" in told
    monkeypatch.setenv("BATCH_SNAPSHOT_RUN_LEDGER", "other.ndjson")
    assert f"run trial.yaml --ledger {ledger} {settings}\n" in call("status", ledger)[1]
    told = call("status", str(cwd / ledger))[1]
    assert f"run {cwd / 'trial.yaml'} --ledger {cwd / ledger} {settings}\n" in told
    # A retry without them keeps them for the next command.
    assert call("retry", ledger, "--limit", "1", *QUIET)[0] == 4
    assert doubt in call("status", ledger)[1]


def test_retry_that_takes_no_row_says_whether_any_failed(cwd, call):
    write_manifest(cwd / "trial.yaml", [{"engagement": "eng-denied00000001", "resource": "O1"}])
    assert call("run", "trial.yaml", "--simulate", *QUIET)[0] == 1
    code, _, err = call("retry", "ledgers/trial.simulated.ndjson", *QUIET)
    assert code == 1
    assert "nothing to retry: no failed row is of the kinds that this retry takes; fix the cause" in err
    err = call("retry", "ledgers/trial.simulated.ndjson", "--accounts", "default", *QUIET)[2]
    assert "no failed row of these accounts is of the kinds" in err
    write_manifest(cwd / "trial.yaml", pairs(1))
    assert call("run", "trial.yaml", "--simulate", "--ledger", "good.ndjson", *QUIET)[0] == 0
    err = call("retry", "good.simulated.ndjson", *QUIET)[2]
    assert "nothing to retry: no row failed or is in doubt" in err


# -- the simulator's settings -----------------------------------------------------------------------------


def test_settings_of_the_simulator_are_the_options_of_its_command():
    assert simulator_settings("") == ""
    assert simulator_settings("false") is None
    found = parse_settings("rate=500,latency=80ms,window=100/1m,no-retry-hint,faults=internal=0.05,late=0.1")
    faults = found.pop("faults")
    assert found == {"rate": 500.0, "latency": 0.08, "windows": ((100, 60.0),), "retry_after": False}
    assert dict(faults.rates) == {"internal": 0.05, "late": 0.1}
    assert short_duration("80ms") == 0.08


def test_simulate_does_not_swallow_the_manifest_and_says_what_it_simulates(cwd, call):
    write_manifest(cwd / "trial.yaml", pairs(2))
    code, _, err = call("run", "--simulate", "trial.yaml")
    assert code == 0
    assert err.startswith(f"simulated: {DEMO.describe()}; AWS is not called\n")
    code, _, err = call(
        "run", "trial.yaml", "--simulate=internal=1", "--max-attempts", "1", "--ledger", "x.ndjson"
    )
    assert code == 1
    assert "faults: 1 internal" in err


# -- a trial of a few rows --------------------------------------------------------------------------------


def test_limit_sends_exactly_so_many_rows_over_all_accounts_and_the_next_run_the_rest(cwd, call):
    rows = [*pairs(5, account="a"), *pairs(20, account="b")[5:]]
    write_manifest(cwd / "trial.yaml", rows, accounts={"a": {}, "b": {}})
    run = ["run", "trial.yaml", "--simulate", "--concurrency", "8", *QUIET]
    ledger = cwd / "ledgers/trial.simulated.ndjson"
    code, out, _ = call(*run, "--limit", "7")
    assert code == 4
    assert "--limit 7: 7 rows sent, 13 left for the next run" in out
    assert len(results(ledger)) == 7
    [end] = of_type(ledger, "end")
    assert (end["outcome"], end["counts"]["succeeded"], end["counts"]["unattempted"]) == ("deferred", 7, 13)
    code, out, _ = call(*run, "--limit=7", "--format", "json")
    assert (code, json.loads(out)["counts"]["succeeded"]) == (4, 14)
    # A limit that is not reached completes the run.
    code, out, _ = call(*run, "--limit", "6")
    assert (code, "--limit" in out, of_type(ledger, "end")[-1]["counts"]["succeeded"]) == (0, False, 20)
    sent = Counter((line["engagement"], line["resource"]) for line in of_type(ledger, "result"))
    assert set(sent.values()) == {1}
    assert len(sent) == 20


def test_next_command_names_neither_the_limit_nor_the_webhook():
    words = "run x.yaml --limit 5 --limit=5 --notify-webhook https://h --ledger l --yes"
    assert shareable(words.split()) == ["run", "x.yaml", "--ledger", "l", "--yes"]


def test_limit_of_a_plan_and_of_a_retry(cwd, call):
    write_manifest(
        cwd / "trial.yaml",
        [*pairs(3), *({"engagement": f"eng-denied{n:08d}", "resource": "O1"} for n in range(4))],
    )
    assert "2 of 7 rows to send" in call("run", "trial.yaml", "--simulate", "--limit", "2", "--dry-run")[1]
    assert "2 of 7 rows to send" in call("plan", "trial.yaml", "--limit", "2")[1]
    call("run", "trial.yaml", "--simulate", *QUIET)
    ledger = "ledgers/trial.simulated.ndjson"
    code, out, _ = call("retry", ledger, "--all", "--simulate", "--limit", "3", "--format", "json", *QUIET)
    assert (code, json.loads(out)["calls"]) == (4, 3)


# -- lists --------------------------------------------------------------------------------------------------


def test_ls_shows_outcome_counts_and_age_of_each_ledger(cwd, call):
    assert call("ls")[2].startswith("warning: ledgers: there is no such folder yet")
    (cwd / "ledgers").mkdir()
    done, failed = row(1), row(2)
    LedgerBuilder(2, name="night").begin().intend(done, failed).result(done).result(
        failed, Status.FAILED
    ).end().write(cwd / "ledgers/night.ndjson")
    LedgerBuilder(2, name="killed").begin().intend(done, failed).result(done).write(
        cwd / "ledgers/killed.ndjson"
    )
    (cwd / "ledgers/notes.txt").write_text("no ledger")
    (cwd / "ledgers/broken.ndjson").write_bytes((cwd / "ledgers/killed.ndjson").read_bytes() + b"{}\n")
    code, out, _ = call("ls")
    head, *lines = [re.split(r" {2,}", line.strip()) for line in out.splitlines()]
    assert code == 0
    assert head == ["AGE", "OUTCOME", "ROWS", "SUCCEEDED", "FAILED", "IN DOUBT", "LEFT", "NAME", "LEDGER"]
    assert [line[1:] for line in sorted(lines, key=lambda line: line[-1])] == [
        ["damaged", "?", "?", "?", "?", "?", "killed", "ledgers/broken.ndjson"],
        ["crashed", "2", "1", "0", "1", "0", "killed", "ledgers/killed.ndjson"],
        ["completed with failures", "2", "1", "1", "0", "0", "night", "ledgers/night.ndjson"],
    ]
    found = json.loads(call("ls", "ledgers", "--format", "json")[1])["ledgers"]
    assert {one["name"]: one["counts"].get("failed") for one in found} == {"night": 1, "killed": 0}
    assert all(one["age_s"] >= 0 for one in found)


def test_a_current_folder_that_was_removed_is_named(cwd, call, monkeypatch):
    write_manifest(cwd / "trial.yaml", pairs(1))
    (cwd / "gone").mkdir()
    monkeypatch.chdir(cwd / "gone")
    (cwd / "gone").rmdir()
    code, out, err = call("plan", str(cwd / "trial.yaml"), "--simulate")
    assert (code, out) == (2, "")
    assert err == "error: the current folder was removed: change into one that exists\n"


def test_ls_says_which_files_it_cannot_read(cwd, call, monkeypatch):
    (cwd / "ledgers").mkdir()
    (cwd / "ledgers/other.ndjson").write_text("", "utf-8")
    # Tests may run as root, who can read everything.
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "warning: ledgers: 1 file cannot be read; list them as" in call("ls")[2]


def test_rows_prints_each_row_once_with_its_last_state(cwd, call):
    one, two, three = row(1), row(2), row(3)
    book = LedgerBuilder(3).begin().intend(one, two).result(one).result(two, Status.FAILED).end()
    book.begin().intend(two, three).result(two).write(cwd / "l.ndjson")
    code, out, _ = call("rows", "l.ndjson")
    table = list(csv.DictReader(out.splitlines()))
    assert code == 0
    assert sorted((line["resource"], line["status"]) for line in table) == [
        (one.resource, "succeeded"),
        (two.resource, "succeeded"),
        (three.resource, "in_doubt"),
    ]
    _, out, _ = call("rows", "l.ndjson", "--status", "in_doubt,failed", "--format", "ndjson")
    [line] = map(json.loads, out.splitlines())
    assert (line["resource"], line["status"], line["kind"]) == (three.resource, "in_doubt", "transient")


def test_diff_says_that_a_ledger_is_compared_with_itself(cwd, call):
    for name in ("one", "two"):
        LedgerBuilder(1).begin().intend(row(1)).result(row(1)).end().write(cwd / f"{name}.ndjson")
    assert "itself" not in call("diff", "one.ndjson", "two.ndjson")[2]
    code, _, err = call("diff", "one.ndjson", str(cwd / "one.ndjson"))
    assert (code, err) == (
        0,
        "warning: one.ndjson: is compared with itself; name the ledgers of two nights\n",
    )

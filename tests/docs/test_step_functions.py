"""The state machine of the documentation, in a local interpreter: what it does for each exit code."""

import json
import re
from collections import Counter

import pytest
from click.testing import CliRunner

from batch_snapshot.cli import cli
from tests.docs.pages import block
from tests.docs.test_orchestrators import taken_by, understood
from tests.support.processes import move_in, pairs, results, write_manifest
from tests.support.state_machine import StatesError, run

MACHINE = json.loads(block("step functions"))
TASK = json.loads(block("step functions task"))

#: Seconds that the machine waits after exit code 4 or 5, and before the second try of what was stopped.
HALF_AN_HOUR, FIVE_MINUTES = 1800, 300


def stopped(code: int | None) -> StatesError:
    """What Step Functions says of a task whose container ended in this way, or never began (None)."""
    container: dict[str, object] = {"Name": "batch-snapshot", "LastStatus": "STOPPED"}
    if code is not None:
        container["ExitCode"] = code
    return StatesError("States.TaskFailed", json.dumps({"Containers": [container], "LaunchType": "FARGATE"}))


class Tasks:
    """Tasks that end as listed for each account; the last end is repeated."""

    def __init__(self, **ends) -> None:
        self.ends, self.runs = ends, Counter[str]()

    def __call__(self, arguments):
        words = arguments["Overrides"]["ContainerOverrides"][0]["Command"]
        account = words[words.index("--accounts") + 1]
        ends = self.ends[account]
        end = ends[min(self.runs[account], len(ends) - 1)]
        self.runs[account] += 1
        if isinstance(end, StatesError):
            raise end
        if end != 0:
            raise stopped(end)
        return {"Containers": [{"Name": "batch-snapshot", "ExitCode": 0}]}


def executed(**ends):
    tasks = Tasks(**ends)
    return run(MACHINE, {"accounts": [*ends]}, tasks), tasks.runs


@pytest.mark.parametrize(
    ("ends", "seconds"),
    [
        ([0], 0),
        ([1], 0),
        ([4, 0], HALF_AN_HOUR),
        ([*[4] * 30, 1], 30 * HALF_AN_HOUR),
        ([*[5] * 5, 0], 5 * HALF_AN_HOUR),
        *(([code, 0], FIVE_MINUTES) for code in (130, 137, 143, None)),
        ([*[143] * 5, 4, *[143] * 5, 0], HALF_AN_HOUR + 2 * (1 + 2 + 3 + 4 + 5) * FIVE_MINUTES),
        ([StatesError("AmazonECS.Unknown", "Capacity is unavailable at this time."), 0], FIVE_MINUTES),
    ],
    ids=repr,
)
def test_an_account_that_comes_to_a_good_end_is_a_success(ends, seconds):
    ended, runs = executed(main=ends)
    assert ended.failed is None
    assert ended.seconds == seconds
    assert runs == {"main": len(ends)}


@pytest.mark.parametrize(
    ("ends", "told", "tries"),
    [
        ([2], 2, 1),
        ([3], 3, 1),
        ([5], 5, 6),
        ([137], 137, 6),
        ([None], -1, 6),
        ([StatesError("ECS.AccessDeniedException", "User: x is not authorized")], -1, 6),
        ([StatesError("ECS.ServerException")], -1, 6),
    ],
    ids=repr,
)
def test_an_account_that_needs_a_person_is_named_and_the_others_go_on(ends, told, tries):
    ended, runs = executed(acme=ends, main=[4, 0], emea=[1])
    assert ended.failed
    assert ended.failed.args == (f"BatchSnapshot: these accounts stopped: acme ({told})",)
    assert runs == {"acme": tries, "main": 2, "emea": 1}


def test_all_accounts_that_need_a_person_are_named():
    ended, _ = executed(acme=[3], main=[0], emea=[2])
    assert ended.failed
    assert ended.failed.cause == "these accounts stopped: acme (3), emea (2)"


def test_a_quota_that_stays_spent_ends_with_the_time_limit():
    ended, _ = executed(main=[4])
    assert ended.failed
    assert ended.failed.error == "States.Timeout"
    assert ended.seconds >= 20 * 3600


def test_the_machine_runs_the_program(tmp_path, monkeypatch, endpoint):
    """With the commands that the example makes, in this process, for two accounts of one manifest."""
    move_in(monkeypatch, tmp_path)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    rows = [{**pair, "account": ("main", "acme")[n % 2]} for n, pair in enumerate(pairs(6))]
    write_manifest(tmp_path / "nightly.yaml", rows, name="nightly", accounts={"main": {}, "acme": {}})

    def task(arguments):
        [override] = arguments["Overrides"]["ContainerOverrides"]
        words = [re.sub("^/(data|manifests)", str(tmp_path), word) for word in override["Command"]]
        done = CliRunner().invoke(cli, words)
        assert json.loads(done.stdout)["outcome"] == "completed"
        if done.exit_code != 0:
            raise stopped(done.exit_code)
        return {}

    ended = run(MACHINE, {"accounts": ["main", "acme"]}, task)
    assert ended.failed is None
    for account in ("main", "acme"):
        [ledger] = (tmp_path / "ledgers").glob(f"nightly-{account}-*.ndjson")
        assert [line["status"] for line in results(ledger).values()] == ["succeeded"] * 3
        assert {key[0] for key in results(ledger)} == {account}
        assert (tmp_path / "state" / account).is_dir()


# -- the services' own models ------------------------------------------------------------------------------


# The language is checked beside the other templates: see `test_schedule`.


def native(value):
    """Parameters as ECS writes them: Step Functions wants all of them with a capital."""
    if isinstance(value, dict):
        return {key[0].lower() + key[1:]: native(inner) for key, inner in value.items()}
    return [*map(native, value)] if isinstance(value, list) else value


def test_ecs_takes_the_task_and_its_run():
    taken_by("ecs", "RegisterTaskDefinition")(TASK)
    arguments = MACHINE["States"]["Accounts"]["ItemProcessor"]["States"]["Run"]["Arguments"]
    taken_by("ecs", "RunTask")(native(arguments))
    [override] = arguments["Overrides"]["ContainerOverrides"]
    [container] = TASK["containerDefinitions"]
    assert (arguments["TaskDefinition"], override["Name"]) == (TASK["family"], container["name"])
    assert {mount["containerPath"] for mount in container["mountPoints"]} == {"/data"}
    understood(override["Command"])


def test_a_task_that_is_stopped_has_time_to_drain():
    from batch_snapshot.config.options import DEFAULT_SETTINGS

    assert DEFAULT_SETTINGS.drain_timeout < TASK["containerDefinitions"][0]["stopTimeout"] <= 120


def test_the_machine_may_start_its_task_and_pass_its_roles():
    statements = json.loads(block("step functions policy"))["Statement"]
    allowed = {
        action: statement["Resource"]
        for statement in statements
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    }
    assert allowed["ecs:RunTask"].endswith(f":task-definition/{TASK['family']}:*")
    assert allowed["iam:PassRole"] == [TASK["taskRoleArn"], TASK["executionRoleArn"]]
    assert {"ecs:StopTask", "ecs:DescribeTasks"} <= allowed.keys()
    assert {"events:PutRule", "events:PutTargets", "events:DescribeRule"} <= allowed.keys()

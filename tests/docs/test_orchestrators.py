"""Examples for clusters and orchestrators, as their own tools read them, and as they act.

Step Functions has a file of its own, and `tests.e2e.airflow_example` runs the DAGs in a real Airflow.
"""

import importlib
import importlib.util
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from types import ModuleType, SimpleNamespace

import botocore.session
import kubernetes_validate
import pytest
import yaml
from botocore.validate import validate_parameters
from click.testing import CliRunner

from batch_snapshot.cli import cli
from batch_snapshot.config.options import BUDGET, DEFAULT_SETTINGS, silent_after
from tests import ROOT
from tests.docs.pages import block

#: What each exit code asks for (see the README): to be run again, or a human; the rest went through.
AGAIN, HUMAN, THROUGH = {4, 5, 130, 137, 143}, {2, 3}, {0, 1}


def taken_by(service, operation):
    """Check a call's parameters by the service's own model."""
    model = botocore.session.get_session().get_service_model(service).operation_model(operation)
    return lambda parameters: validate_parameters(parameters, model.input_shape)


def understood(words):
    """The flags of a command line of ours exist."""
    told = CliRunner().invoke(cli, [words[0], "--help-all"]).output
    flags = {word for word in words if word.startswith("--")}
    assert flags
    assert flags <= set(re.findall(r"--[a-z-]*[a-z]", told))


def understood_by_dask(words):
    """The flags of a `dask` command exist."""
    if importlib.util.find_spec("distributed") is None:
        pytest.skip("needs Dask")
    command = importlib.import_module(f"distributed.cli.dask_{words[1]}")
    told = CliRunner().invoke(command.main, ["--help"])
    assert told.exit_code == 0
    options = set(re.findall(r"--[a-z-]+", told.output))
    assert {word for word in words if word.startswith("--")} <= options


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Puts a script in the place of the program."""

    def write(script):
        path = tmp_path / "batch-snapshot"
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path}:{os.defpath}")
    return write


# -- a cluster ---------------------------------------------------------------------------------------


def cluster():
    return {
        (made["kind"], made["metadata"]["name"]): made
        for made in yaml.safe_load_all(block("cluster on kubernetes"))
    }


def command(deployment):
    [container] = deployment["spec"]["template"]["spec"]["containers"]
    return [*container["command"], *container.get("args", [])]


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_kubernetes_takes_the_cluster(version):
    for made in cluster().values():
        kubernetes_validate.validate(made, version, strict=True)


def test_the_cluster_s_parts_find_each_other_and_nobody_else_the_scheduler():
    made = cluster()
    scheduler, worker = (made["Deployment", f"batch-snapshot-{name}"] for name in ("scheduler", "worker"))
    service, policy = (
        made["Service", "batch-snapshot-scheduler"],
        made["NetworkPolicy", "batch-snapshot-scheduler"],
    )
    labels = scheduler["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    [inside] = [
        peer["podSelector"]["matchLabels"] for rule in policy["spec"]["ingress"] for peer in rule["from"]
    ]
    assert inside.items() <= worker["spec"]["template"]["metadata"]["labels"].items()
    for one in (scheduler, worker):
        assert (
            one["spec"]["selector"]["matchLabels"].items()
            <= one["spec"]["template"]["metadata"]["labels"].items()
        )
    assert command(worker)[2] == "tcp://batch-snapshot-scheduler:8786"
    assert ("ServiceAccount", worker["spec"]["template"]["spec"]["serviceAccountName"]) in made


def test_dask_understands_the_commands_of_its_parts():
    made = cluster()
    understood_by_dask(command(made["Deployment", "batch-snapshot-scheduler"]))
    understood_by_dask(command(made["Deployment", "batch-snapshot-worker"]))


def test_ecs_takes_the_worker_and_it_is_the_one_of_kubernetes():
    task = json.loads(block("worker on ecs"))
    taken_by("ecs", "RegisterTaskDefinition")(task)
    [container] = task["containerDefinitions"]
    theirs = command(cluster()["Deployment", "batch-snapshot-worker"])
    assert [*container["entryPoint"][:2], *container["command"]] == [*theirs[:2], *theirs[3:]]


def test_the_page_says_when_a_lost_workers_rows_are_sent_again():
    seconds = silent_after(BUDGET, DEFAULT_SETTINGS.drain_timeout)
    assert f"{seconds:.0f} seconds by default" in (ROOT / "docs/how-to/dask.md").read_text("utf-8")


# -- Batch -------------------------------------------------------------------------------------------


def test_batch_takes_the_job():
    taken_by("batch", "RegisterJobDefinition")(json.loads(block("batch job")))


def test_batch_heeds_the_exit_codes():
    """As its API says: all conditions of a rule are met, or the attempt is made again."""
    strategy = json.loads(block("batch job"))["retryStrategy"]
    assert len(strategy["evaluateOnExit"]) <= 5
    assert 1 < strategy["attempts"] <= 10

    def is_tried_again(code: int | None) -> bool:
        for rule in strategy["evaluateOnExit"]:
            pattern = rule["onExitCode"].replace("*", ".*")
            if code is not None and re.fullmatch(pattern, str(code)):
                return bool(rule["action"] == "RETRY")
        return True

    assert {code for code in {*range(1, 256), None} if not is_tried_again(code)} == HUMAN | THROUGH - {0}


def test_an_index_is_an_account(tmp_path, program, monkeypatch):
    """The entry point as a shell runs it, in another root."""
    (tmp_path / "accounts.txt").write_text("main\nacme\n", "utf-8")
    program('printf "%s\\n" "$@"\nexit 4')
    monkeypatch.setenv("AWS_BATCH_JOB_ARRAY_INDEX", "1")
    script = block("batch entry point").replace("/manifests/accounts.txt", str(tmp_path / "accounts.txt"))
    words = ["/bin/sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, timeout=10, check=False)
    words = done.stdout.splitlines()
    assert (done.returncode, done.stderr) == (4, "")
    assert words[:4] == ["run", "/manifests/acme.yaml", "--ledger", "/data/ledgers/{name}-acme-{date}.ndjson"]
    understood(words)
    # Batch kills a container 30 seconds after it has told it to stop.
    assert int(words[words.index("--drain-timeout") + 1].removesuffix("s")) < 30


# -- Airflow -----------------------------------------------------------------------------------------


class FailForGoodError(Exception):
    """Stands for `AirflowFailException`."""


@pytest.fixture
def mapped(monkeypatch):
    """The task of the example, and what it is mapped over, by stand-ins for Airflow's decorators."""
    found = SimpleNamespace()

    def task(**settings):
        def made(function):
            found.task, found.settings = function, settings
            return SimpleNamespace(expand=lambda **over: vars(found).update(over=over))

        return made

    sdk, exceptions = ModuleType("airflow.sdk"), ModuleType("airflow.sdk.exceptions")
    vars(sdk).update(dag=lambda **_: lambda function: function, task=task)
    vars(exceptions).update(AirflowFailException=FailForGoodError)
    for module in (ModuleType("airflow"), sdk, exceptions):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(block("airflow accounts"), "the example", "exec"), {"__name__": "example"})
    # A signal that the task does not pass on must not end the tests.
    before = signal.signal(signal.SIGTERM, lambda *_: None)
    yield found
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(
    ("code", "kind", "raised"),
    [
        *((str(code), None, None) for code in sorted(THROUGH)),
        *((str(code), None, RuntimeError) for code in sorted(AGAIN - {5})),
        ("5", "locked", RuntimeError),
        ("5", "ledger_write", FailForGoodError),
        ("5", None, FailForGoodError),
        *((str(code), None, FailForGoodError) for code in sorted(HUMAN)),
    ],
)
def test_airflow_heeds_the_exit_codes(code, kind, raised, mapped, tmp_path, program):
    words = shlex.quote(str(tmp_path / "words"))
    answer = json.dumps({"error": {"kind": kind}} if kind else {"outcome": "completed"})
    program(f"printf '%s\\n' \"$@\" > {words}\necho '{answer}'\nexit {code}")
    assert mapped.over == {"account": ["main", "acme"]}
    assert mapped.settings["retries"]
    if raised is None:
        mapped.task("acme")
    else:
        with pytest.raises(raised, match=f"exit code {code}:"):
            mapped.task("acme")
    words = (tmp_path / "words").read_text("utf-8").splitlines()
    assert words[2:8] == [
        *("--accounts", "acme"),
        *("--ledger", "/srv/snapshots/ledgers/{name}-acme-{date}.ndjson"),
        *("--state-dir", "/srv/snapshots/state/acme"),
    ]
    understood(words)


def test_a_task_that_is_stopped_lets_its_run_end(mapped, tmp_path, program):
    """SIGTERM is passed on; a signal to the task's process group does not reach the run a second time."""
    # The first signal may come before the task handles it.
    again = "for n in $(seq 50); do kill -TERM $PPID; sleep 0.1; done"
    program(f"trap 'exit 143' TERM\nps -o pgid= -p $$ > {tmp_path}/group\n{again}")
    with pytest.raises(RuntimeError, match="exit code 143"):
        mapped.task("acme")
    assert int((tmp_path / "group").read_text("utf-8")) != os.getpgrp()


def test_a_task_whose_program_was_killed_is_tried_again(mapped, program):
    program("kill -KILL $$")
    with pytest.raises(RuntimeError, match="exit code -9"):
        mapped.task("acme")

"""Unit files, each judged by the tool that will read it."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import crontab
import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import cli, schedule
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import DEFAULT_SETTINGS
from batch_snapshot.errors import InputError
from tests import ROOT
from tests.docs.pages import block
from tests.docs.test_orchestrators import taken_by
from tests.support.strategies import patient

ARN = "arn:aws:iam::123456789012:role/Snapshot"
TOPIC = "arn:aws:sns:us-east-1:123456789012:nights"


def night(**given_) -> schedule.NightlyJob:
    settings = {
        "name": "nightly",
        "manifest": "/srv/nightly.yaml",
        "program": sys.executable,
        "folder": "/srv",
        "reads": ("/usr", "/srv"),
        "hour": 2,
        "minute": 17,
        "keep": 30,
        "image": "batch-snapshot:1",
        "catalogs": ("Sandbox",),
    }
    return schedule.NightlyJob(**{**settings, **given_})


PLAIN = night()
#: All that a file can hold at once.
RICH = night(
    name="Nightly_2.b",
    manifest="/home/me/my pairs/100%.yaml",
    folder="/srv/my $HOME",
    reads=("/home/me/venv", "/home/me/my pairs", "/home/me/venv/lib", "/usr"),
    flags=("--max-duration", "6h", "--max-failures", "5%", "--profile", 'a "b" $c', "--notify-sns", TOPIC),
    catalogs=("AWS", "Sandbox"),
    list_actions=("partnercentral:ListEngagementInvitations", "partnercentral:ListEngagements"),
    role_arns=(ARN,),
    topic=TOPIC,
    metrics_folder="/var/lib/node exporter",
    hour=23,
    minute=5,
)
NIGHTS = pytest.mark.parametrize("one", [PLAIN, RICH], ids=["plain", "rich"])


def ran(*words: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **more)


def text(kind: str, one: schedule.NightlyJob) -> str:
    if kind == "kubernetes":
        one = replace(one, manifest=one.manifest.replace("%", ""))
    return schedule.files(kind, one)[0].text


# -- systemd -----------------------------------------------------------------------------------------


@NIGHTS
def test_systemd_accepts_the_units(tmp_path, one):
    tool = shutil.which("systemd-analyze") or pytest.fail("systemd-analyze is missing: install systemd")
    made = [*schedule.files("systemd", one), *schedule.files("systemd", night(profiles=("partner",)))]
    for file in made:
        (tmp_path / file.name).write_text(file.text, "utf-8")
    paths = [tmp_path / file.name for file in made]
    done = ran(tool, "verify", "--man=no", *paths)
    assert (done.returncode, done.stdout) == (0, "")
    # It tells of mistakes in the units of the machine, too.
    assert not [line for line in done.stderr.splitlines() if "batch-snapshot" in line]


def test_systemd_restarts_a_run_that_another_try_may_help():
    settings = dict(re.findall(r"^(\w+)=(.*)$", text("systemd", PLAIN), re.MULTILINE))
    assert settings["Restart"] == "on-failure"
    final, success = (
        {int(code) for code in settings[name].split()}
        for name in ("RestartPreventExitStatus", "SuccessExitStatus")
    )
    # A deferred night is continued by the next one.
    assert (final, success) == ({1, 2, 3}, {4})
    assert int(settings["TimeoutStopSec"]) > DEFAULT_SETTINGS.drain_timeout


def test_systemd_hardens_the_service(tmp_path):
    path = tmp_path / "night.service"
    path.write_text(text("systemd", PLAIN), "utf-8")
    done = ran("systemd-analyze", "security", "--offline=yes", "--threshold=20", path)
    assert done.returncode == 0, done.stdout


def expanded(word: str) -> str:
    """What systemd makes of a word: a sign that stands alone would begin a variable or a specifier."""
    for sign in "%$":
        assert sign not in word.replace(sign * 2, "")
        word = word.replace(sign * 2, sign)
    return word


def test_systemd_reads_the_commands_as_intended():
    """Undone as systemd.service(5) says: quotes, backslashes, %% and $$."""
    started = [line for line in text("systemd", RICH).splitlines() if line.startswith("ExecStart=")]
    read = [shlex.split(line.removeprefix("ExecStart=").removeprefix("-")) for line in started]
    read = [[expanded(word) for word in words] for words in read]
    assert read == list(schedule.steps(RICH, program=RICH.program, manifest=RICH.manifest, ledgers="ledgers"))
    assert [line[10] == "-" for line in started] == [True, True, False]


def test_systemd_service_sees_only_the_folders_it_reads():
    assert RICH.hidden == ["/home/me/my pairs", "/home/me/venv"]
    assert 'BindReadOnlyPaths="/home/me/my pairs"\n' in text("systemd", RICH)
    assert "BindReadOnlyPaths" not in text("systemd", PLAIN)


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1), min_size=1))
@patient
def test_systemd_reads_back_any_word(words):
    line = " ".join(map(schedule._systemd, words))
    assert [expanded(word) for word in shlex.split(line)] == words


# -- cron --------------------------------------------------------------------------------------------


@NIGHTS
def test_crontab_line_is_parsed_by_cron_and_shell(one):
    made = text("cron", one)
    # crontab(5): a percent sign ends the command, unless it is escaped.
    assert not re.search(r"(?<!\\)%", made.splitlines()[-1])
    [job] = list(crontab.CronTab(tab=made))
    assert job.is_valid()
    assert (str(job.minute), str(job.hour)) == (str(one.minute), str(one.hour))
    assert job.frequency_per_day() == 1
    assert ran("/bin/sh", "-n", "-c", str(job.command)).returncode == 0
    steps = schedule.steps(one, program=one.program, manifest=one.manifest, ledgers="ledgers")
    assert job.command == f"cd {shlex.quote(one.folder)} && {{ {'; '.join(map(shlex.join, steps))}; }}"


def test_too_long_cron_line_is_refused():
    with pytest.raises(InputError, match="use systemd"):
        schedule.files("cron", night(folder="/" + "x" * 900))


# -- Kubernetes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["1.31", "1.37"])
@pytest.mark.parametrize("one", [PLAIN, RICH, night(profiles=("partner",))], ids=["plain", "rich", "profile"])
def test_kubernetes_accepts_the_objects(one, version):
    objects = list(yaml.safe_load_all(text("kubernetes", one)))
    assert [made["kind"] for made in objects] == ["ServiceAccount", "PersistentVolumeClaim", "CronJob"]
    for made in objects:
        kubernetes_validate.validate(made, version, strict=True)
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", made["metadata"]["name"])
        assert len(made["metadata"]["name"]) <= 52


def test_cron_job_never_overlaps_and_keeps_ledgers_and_state():
    job = list(yaml.safe_load_all(text("kubernetes", RICH)))[2]["spec"]
    assert (job["concurrencyPolicy"], job["schedule"], job["timeZone"]) == ("Forbid", "5 23 * * *", "Etc/UTC")
    pod = job["jobTemplate"]["spec"]["template"]["spec"]
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] > DEFAULT_SETTINGS.drain_timeout
    assert {"name": "data", "persistentVolumeClaim": {"claimName": f"batch-snapshot-{RICH.slug}"}} in pod[
        "volumes"
    ]
    [before], [tonight] = pod["initContainers"], pod["containers"]
    for container in (before, tonight):
        assert {"name": "data", "mountPath": "/data"} in container["volumeMounts"]
        assert {"name": "BATCH_SNAPSHOT_STATE_DIR", "value": "/data/state"} in container["env"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
    steps = schedule.steps(
        RICH, program="batch-snapshot", manifest="/manifests/100.yaml", ledgers="/data/ledgers"
    )
    assert ["batch-snapshot", *tonight["args"]] == steps.run
    script = before["args"][0]
    assert f"{shlex.join(steps.retry)} & child=$!\n" in script
    assert f"\n{shlex.join(steps.prune)}\n" in script


def test_failed_retry_does_not_prevent_the_run(tmp_path):
    """The script as a shell runs it, with a program that always fails."""
    script = list(yaml.safe_load_all(text("kubernetes", PLAIN)))[2]
    pod = script["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    failing = tmp_path / "batch-snapshot"
    failing.write_text('#!/bin/sh\necho "$1"\nexit 3\n', "utf-8")
    failing.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.defpath}"}
    done = ran("/bin/sh", "-c", *pod["initContainers"][0]["args"], env=path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "retry\nprune\n", "")


@given(st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True))
@patient
def test_slug_of_any_name_is_valid_in_kubernetes(name):
    slug = night(name=name).slug
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", slug)
    assert len(f"batch-snapshot-{slug}") <= 52


def test_different_names_have_different_slugs():
    names = ["nightly", "Nightly", "nightly.", "NIGHTLY", "night_ly", "night.ly", "n" * 60, "n" * 61]
    assert len({night(name=name).slug for name in names}) == len(names)


# -- EventBridge -------------------------------------------------------------------------------------


def loaded(template: str) -> dict[str, Any]:
    """The template with its short forms of functions as plain values."""

    class Loader(yaml.SafeLoader):
        pass

    def plain(loader, _, node):
        if isinstance(node, yaml.SequenceNode):
            return loader.construct_sequence(node, deep=True)
        return loader.construct_scalar(node)

    Loader.add_multi_constructor("!", plain)
    made: dict[str, Any] = yaml.load(template, Loader)
    return made


def state_machine() -> str:
    """The README's example for Step Functions, as a template's resource."""
    settings = {
        "RoleArn": "arn:aws:iam::123456789012:role/Night",
        "Definition": json.loads(block("step functions")),
    }
    machine = {"Type": "AWS::StepFunctions::StateMachine", "Properties": settings}
    return json.dumps({"Resources": {"Night": machine}})


def test_cloudformation_and_step_functions_accept_the_templates(tmp_path):
    """One linter for all of them: to start takes it longer than to judge."""
    templates = {
        "plain.yaml": text("eventbridge", PLAIN),
        "rich.yaml": text("eventbridge", RICH),
        "machine.json": state_machine(),
    }
    for name, template in templates.items():
        (tmp_path / name).write_text(template, "utf-8")
    tool = Path(sys.executable).parent / "cfn-lint"
    done = ran(tool, *templates, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def lower_first(value: Any) -> Any:
    """Properties of a template with the keys that ECS's own API has."""
    if isinstance(value, list):
        return [lower_first(inner) for inner in value]
    if not isinstance(value, dict):
        return value
    keys = {"EFSVolumeConfiguration": "efsVolumeConfiguration", "FilesystemId": "fileSystemId", "IAM": "iam"}
    return {
        keys.get(key, key[0].lower() + key[1:]): inner if key == "Options" else lower_first(inner)
        for key, inner in value.items()
    }


@NIGHTS
def test_ecs_and_scheduler_accept_what_the_template_makes(one):
    """By the models of their APIs; references stand for themselves."""
    made = {
        name: resource["Properties"]
        for name, resource in loaded(text("eventbridge", one))["Resources"].items()
        if name in {"TaskDefinition", "Schedule"}
    }
    task = made["TaskDefinition"]
    for container in task["ContainerDefinitions"]:
        # A condition: the second value is the one if it holds.
        container["Secrets"] = container["Secrets"][1]
    taken_by("ecs", "RegisterTaskDefinition")(lower_first(task))
    target = made["Schedule"]["Target"]["EcsParameters"]
    network = target["NetworkConfiguration"]
    network["awsvpcConfiguration"] = network.pop("AwsvpcConfiguration")
    taken_by("scheduler", "CreateSchedule")({**made["Schedule"], "Name": one.name})


@NIGHTS
def test_cloudformation_template_has_no_yaml_anchors(one):
    """Its tools that read templates locally do; the service does not."""
    events = yaml.parse(text("eventbridge", one), yaml.SafeLoader)
    assert not any(getattr(event, "anchor", None) for event in events)


def test_task_role_allows_only_what_the_manifest_needs():
    def actions(one: schedule.NightlyJob) -> dict[str, object]:
        role = loaded(text("eventbridge", one))["Resources"]["TaskRole"]["Properties"]
        documents = [policy["PolicyDocument"] for policy in role["Policies"]]
        named: dict[str, object] = {}
        for stated in chain.from_iterable(document["Statement"] for document in documents):
            each = stated["Action"] if isinstance(stated["Action"], list) else [stated["Action"]]
            named |= dict.fromkeys(each, stated["Resource"])
        return named

    plain = actions(PLAIN)
    assert set(plain) == {
        "partnercentral:CreateResourceSnapshot",
        "partnercentral:GetResourceSnapshot",
        "partnercentral:GetOpportunity",
        "partnercentral:GetAwsOpportunitySummary",
        "elasticfilesystem:ClientMount",
        "elasticfilesystem:ClientWrite",
    }
    for action in ("CreateResourceSnapshot", "GetOpportunity"):
        assert ":partnercentral:*:*:catalog/" in json.dumps(plain[f"partnercentral:{action}"])
    assert "catalog/AWS" not in json.dumps(plain)
    rich = actions(RICH)
    assert set(rich) - set(plain) == {"sts:AssumeRole", "sns:Publish", *RICH.list_actions}
    assert (rich["sts:AssumeRole"], rich["sns:Publish"]) == ([ARN], TOPIC)
    assert "catalog/AWS" in json.dumps(rich)


def test_task_keeps_ledgers_and_state_on_efs():
    made = loaded(text("eventbridge", PLAIN))["Resources"]
    containers = made["TaskDefinition"]["Properties"]["ContainerDefinitions"]
    assert [one["Name"] for one in containers] == ["last-night", "old-ledgers", "tonight"]
    assert [one["Essential"] for one in containers] == [False, False, True]
    for before, one in pairwise(containers):
        assert one["DependsOn"] == [{"ContainerName": before["Name"], "Condition": "COMPLETE"}]
    for one in containers:
        assert one["MountPoints"] == [{"SourceVolume": "data", "ContainerPath": "/data"}]
        assert one["ReadonlyRootFilesystem"] is True
        assert DEFAULT_SETTINGS.drain_timeout < one["StopTimeout"] <= 120
    assert made["FileSystem"]["DeletionPolicy"] == "Retain"
    assert made["Schedule"]["Properties"]["ScheduleExpression"] == "cron(17 2 * * ? *)"


def test_a_manifest_that_is_no_key_of_a_config_map_is_refused():
    with pytest.raises(InputError, match=r"^my night\.yaml: a config map takes"):
        schedule.files("kubernetes", night(manifest="/home/me/my night.yaml"))


def test_eventbridge_refuses_profiles():
    with pytest.raises(InputError, match="names the profile 'partner'"):
        schedule.files("eventbridge", night(profiles=("partner",)))


# -- the image ---------------------------------------------------------------------------------------


def test_dockerfile_passes_hadolint():
    tool = Path(sys.executable).parent / "hadolint"
    done = ran(tool, ROOT / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, ""), done.stdout


def test_image_matches_the_unit_files():
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    instructions = dict(line.split(" ", 1) for line in dockerfile.splitlines() if re.match("[A-Z]+ ", line))
    assert instructions["USER"] == "10001:10001"
    assert instructions["WORKDIR"] == "/data"
    assert json.loads(instructions["ENTRYPOINT"]) == ["batch-snapshot"]
    assert "--require-hashes" in dockerfile
    assert "runAsUser: 10001" in text("kubernetes", PLAIN)
    assert 'User: "10001:10001"' in text("eventbridge", PLAIN)
    kept = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE)
    assert {f"!{name}" for names in copied for name in names.split()} <= set(kept)


# -- the command -------------------------------------------------------------------------------------


@pytest.fixture
def manifest(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "manifests" / "demo.yaml", tmp_path)
    return "demo.yaml"


def test_the_command_prints_all_files_with_their_names(manifest, tmp_path, capsys):
    assert cli.main(["schedule", "systemd", manifest, "--at", "3:05", "--keep", "7"]) == 0
    said = capsys.readouterr().out
    assert re.findall(r"^# ---- (.*)$", said, re.MULTILINE) == [
        "batch-snapshot-demo.service",
        "batch-snapshot-demo.timer",
    ]
    assert "OnCalendar=*-*-* 03:05:00 UTC" in said
    assert "prune ledgers --keep 7" in said
    assert str(tmp_path / "demo.yaml") in said


@pytest.mark.parametrize("kind", schedule.KINDS)
def test_the_command_writes_files_and_overwrites_none(manifest, tmp_path, capsys, kind):
    arguments = ["schedule", kind, manifest, "--output", "units", "--", "--max-duration", "6h"]
    assert cli.main(arguments) == 0
    names = [Path(line).name for line in capsys.readouterr().out.splitlines()]
    assert sorted(names) == sorted(path.name for path in (tmp_path / "units").iterdir())
    assert "max-duration" in (tmp_path / "units" / names[0]).read_text("utf-8")
    assert cli.main(arguments) == 2
    assert "already exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--at", "25:00"], "25:00"),
        (["--keep", "0"], "--keep"),
        (["--", "--fly"], "--fly"),
        (["--", "--ledger", "x.ndjson"], "--ledger"),
        (["--", "--only", "denied"], "--only"),
        (["--", "--notify-webhook", "https://example.invalid/secret"], "BATCH_SNAPSHOT_NOTIFY_WEBHOOK"),
        (["--", "--notify-webhook=https://example.invalid/secret"], "BATCH_SNAPSHOT_NOTIFY_WEBHOOK"),
        (["--", "--notify-sns", "nights"], "--notify-sns nights"),
    ],
)
def test_invalid_schedule_options_are_refused(manifest, capsys, arguments, word):
    assert cli.main(["schedule", "cron", manifest, *arguments]) == 2
    said = capsys.readouterr()
    assert word in said.err
    assert "secret" not in said.err.replace("is a secret", "")
    assert said.out == ""


def test_todays_date_is_not_in_the_files(manifest, capsys):
    """They are for every night: the run fills the date in."""
    assert cli.main(["schedule", "cron", manifest]) == 0
    said = capsys.readouterr().out
    assert f"{utc_now():%Y-%m-%d}" not in said
    assert said.count("demo-{date}.ndjson") == 2

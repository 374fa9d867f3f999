"""The main command of the README, and examples that have a name (see `pages.block`)."""

import json
import shlex
import shutil
import subprocess
import sys
from fnmatch import fnmatchcase

import pytest

from batch_snapshot import manifest, operations
from batch_snapshot.models import ErrorKind
from batch_snapshot.reporting.summary import ADVICE
from tests import ROOT
from tests.docs.pages import block, pages


def steps(marker):
    return [step.strip() for step in block(marker).replace("\\\n", "").split("&&")]


def test_the_main_command_runs_the_demo_and_shows_its_ledger(tmp_path):
    """The set-up before it is what made the environment of this very test (see .ci/run)."""
    shutil.copytree(ROOT / "manifests", tmp_path / "manifests")
    setup, (run, show) = steps("demo")[:-2], steps("demo")[-2:]
    assert [step.split()[0] for step in setup] == ["python3", ".venv/bin/pip", ".venv/bin/pip"]
    command = [sys.executable, "-m", "batch_snapshot", *shlex.split(run)[1:]]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    shown = subprocess.run(shlex.split(show), cwd=tmp_path, capture_output=True, text=True, check=True)
    results = [json.loads(line) for line in shown.stdout.splitlines() if '"type":"result"' in line]
    assert len(results) == manifest.load(ROOT / "manifests/demo.yaml").rows
    assert {result["status"] for result in results} == {"succeeded"}


def test_the_readme_has_at_most_220_lines():
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 220


def test_each_command_installs_from_its_lock_file():
    users, developers = steps("demo"), steps("tests")
    assert users[0] == developers[0]
    assert users[1].endswith("--require-hashes -r requirements.lock")
    assert developers[1].endswith("--require-hashes -r requirements-dev.lock")
    assert developers[-1] == ".venv/bin/pytest"


@pytest.mark.parametrize("name", ["policy", "sandbox policy"])
def test_the_policies_are_json_and_name_no_more_than_is_called(name):
    policy = json.loads(block(name))
    actions = {action for statement in policy["Statement"] for action in statement["Action"]}
    assert actions == {
        "partnercentral:CreateResourceSnapshot",
        "partnercentral:GetResourceSnapshot",
        "partnercentral:GetOpportunity",
        "partnercentral:GetAwsOpportunitySummary",
    }
    resources = [one for statement in policy["Statement"] for one in statement["Resource"]]
    for account in ("", "123456789012"):
        for kind in ("engagement/eng-0123456789abcd", "opportunity/O1"):
            arn = f"arn:aws:partnercentral:us-east-1:{account}:catalog/Sandbox/{kind}"
            assert any(fnmatchcase(arn, one) for one in resources)
    if name.startswith("sandbox"):
        assert "catalog/AWS" not in block(name)


def test_the_live_manifest_shown_is_valid(tmp_path):
    path = tmp_path / "live.yaml"
    path.write_text(block("live"), "utf-8")
    [search] = manifest.load(path).discover
    assert (search.catalog, search.stages) == ("AWS", ("Committed", "Launched"))


def test_the_policy_for_reading_names_every_read_and_nothing_else():
    actions = json.loads(block("reading policy"))["Statement"][0]["Action"]
    assert actions == sorted(map(operations.iam_action, operations.READS))


def test_every_error_kind_is_explained():
    text = "".join(page.read_text("utf-8") for page in pages())
    for kind in ErrorKind:
        assert f"| `{kind}` |" in text
        assert kind in ADVICE

"""GitHub's workflows: valid by its schemas, pinned, with few rights, and made of the pieces of `.ci/run`."""

import itertools
import os
import re
import subprocess
import tomllib

import pytest
import yaml
from click.testing import CliRunner

from tests import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text("utf-8")) for path in GITHUB.glob("workflows/*.yml")}
JOBS = {(file, name): job for file, flow in WORKFLOWS.items() for name, job in flow["jobs"].items()}
STEPS = [(*key, step) for key, job in JOBS.items() for step in job.get("steps", ())]
USED = [step["uses"] for *_, step in STEPS if "uses" in step] + [
    job["uses"] for job in JOBS.values() if "uses" in job
]

#: What may sign, or write outside the repository: jobs of the release alone.
RIGHTS = {
    ("release.yml", "build"): {"id-token", "attestations"},
    ("release.yml", "publish"): {"id-token"},
    ("release.yml", "image"): {"id-token", "attestations", "packages"},
}


def commands():
    """The words of each command line of a step, once for each value of its matrix."""
    for file, name, step in STEPS:
        matrix = JOBS[file, name].get("strategy", {}).get("matrix", {})
        for values in itertools.product(*matrix.values()):
            text = step.get("run", "")
            for key, value in zip(matrix, values, strict=True):
                text = text.replace(f"${{{{ matrix.{key} }}}}", value)
            yield from map(str.split, text.splitlines())


@pytest.mark.parametrize(
    ("schema", "file"),
    [*(("github-workflows", f"workflows/{name}") for name in WORKFLOWS), ("dependabot", "dependabot.yml")],
)
def test_file_is_valid_by_githubs_schema(schema, file):
    from check_jsonschema import main as check_jsonschema  # its imports take long

    done = CliRunner().invoke(check_jsonschema, ["--builtin-schema", f"vendor.{schema}", str(GITHUB / file)])
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize("action", sorted(set(USED)))
def test_action_is_pinned_to_a_version(action):
    assert re.fullmatch(r"[\w-]+/[\w./-]+@v\d+\.\d+\.\d+", action) or (ROOT / action).is_file()


def test_pieces_of_ci_that_workflows_name_exist_and_all_are_named():
    pieces = {words[1] for words in commands() if words[:1] == [".ci/run"]}
    listed = re.findall(r"^#   (\w+) ", (ROOT / ".ci/run").read_text("utf-8"), flags=re.MULTILINE)
    assert pieces == set(listed)


def test_each_step_is_a_command_without_values_from_outside():
    """An expression inside a script runs what, say, the name of a branch holds."""
    for words in commands():
        line = " ".join(words)
        assert "${{" not in line
        assert subprocess.run(["bash", "-nc", line], check=False).returncode == 0, line
        assert words[0] == "test" or os.access(ROOT / words[0], os.X_OK), line


def test_an_unknown_piece_is_refused():
    done = subprocess.run([ROOT / ".ci/run", "lnit"], capture_output=True, text=True, check=False)
    assert (done.returncode, "no piece lnit" in done.stdout) == (2, True)


def test_jobs_have_an_end_and_only_the_rights_they_need():
    for (file, name), job in JOBS.items():
        assert WORKFLOWS[file]["permissions"] == {"contents": "read"}
        assert "uses" in job or job["timeout-minutes"] <= 60
        written = {right for right, kind in job.get("permissions", {}).items() if kind == "write"}
        assert written == RIGHTS.get((file, name), set()), f"{file} {name}"


def test_nothing_is_released_before_ci_has_passed():
    release = WORKFLOWS["release.yml"]["jobs"]
    assert release["ci"] == {"uses": "./.github/workflows/ci.yml"}
    assert [release[name]["needs"] for name in ("build", "publish", "image")] == ["ci", "build", "build"]


def test_each_python_that_is_declared_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    declared = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert JOBS["ci.yml", "tests"]["strategy"]["matrix"]["python"] == declared
    assert project["requires-python"] == f">={declared[0]}"

"""The lock files: every package with a hash, no address, and one version in both."""

import re
import tomllib

import pytest

from tests import ROOT

LOCKS = ["requirements.lock", "requirements-dev.lock"]


def entries(lock):
    """The text of each requirement with its hashes, by `name==version`."""
    found = re.split(r"^(?=\w)", (ROOT / lock).read_text("utf-8"), flags=re.MULTILINE)
    return {entry.split(" ", 1)[0]: entry for entry in found if entry}


@pytest.mark.parametrize("lock", LOCKS)
def test_each_package_is_pinned_with_hashes_and_no_address(lock):
    for pin, entry in entries(lock).items():
        assert re.fullmatch(r"[\w.-]+==[\w.]+", pin)
        assert "--hash=sha256:" in entry
        assert not re.search(r"://|-url|--find-links", entry)


def test_a_package_has_one_version_in_both_files():
    users, developers = map(entries, LOCKS)
    assert users.keys() <= developers.keys()


def test_the_users_file_holds_dependencies_and_build_tool_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    names = {pin.split("==")[0] for pin in entries("requirements.lock")}
    wanted = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    assert names >= {re.split(r"[^\w-]", one)[0] for one in wanted}
    assert not names & {"pytest", "moto", "distributed", "mypy", "playwright"}

"""Pairs that two names of one AWS account both list."""

import json

import pytest

from batch_snapshot import manifest
from batch_snapshot.errors import ManifestError
from tests.support.processes import pairs, write_manifest


def role(number: int, **more: str) -> dict[str, str]:
    return {"role_arn": f"arn:aws:iam::{number:012d}:role/Snapshot", **more}


def write(folder, accounts, *, rows=None, name="m.yaml"):
    shared = [*pairs(2, account="a"), *pairs(2, first=1, account="b")]
    return write_manifest(folder / name, shared if rows is None else rows, accounts=accounts)


def test_two_names_for_one_account_and_pair_are_refused_with_both_places(tmp_path):
    path = write(tmp_path, {"a": role(1), "b": role(1, external_id="ab")})
    with pytest.raises(ManifestError) as refused:
        manifest.load(path)
    (problem,) = refused.value.problems
    lines = path.read_text().splitlines()
    first, second = (n for n, line in enumerate(lines, 1) if '"O2"' in line)
    assert f":{second}: eng-00000000000001 O2 is listed for account a too (" in problem
    assert f"m.yaml:{first})" in problem
    assert "a and b are one AWS account (000000000001): remove it" in problem


@pytest.mark.parametrize(
    ("accounts", "rows"),
    [
        ({"a": role(1), "b": role(2)}, None),
        ({"a": role(1), "b": role(1, endpoint_url="http://127.0.0.1:9")}, None),
        ({"a": {}, "b": {"profile": "p"}}, None),
        ({"a": role(1), "b": role(1)}, [*pairs(2, account="a"), *pairs(2, first=5, account="b")]),
        ({"a": role(1), "b": role(1)}, [*pairs(2, account="a"), *pairs(2, account="a")]),
    ],
    ids=["two accounts", "two endpoints", "nobody knows", "other pairs", "a repetition"],
)
def test_different_accounts_endpoints_or_pairs_are_not_refused(tmp_path, accounts, rows):
    assert manifest.load(write(tmp_path, accounts, rows=rows)).rows >= 2


def test_all_duplicates_are_counted_and_the_first_fifty_named(tmp_path):
    rows = [*pairs(200, account="a"), *pairs(200, account="b")]
    with pytest.raises(ManifestError) as refused:
        manifest.load(write(tmp_path, {"a": role(1), "b": role(1)}, rows=rows))
    assert (len(refused.value.problems), refused.value.total) == (50, 200)


def test_a_duplicate_in_another_file_is_named_with_its_line(tmp_path):
    (tmp_path / "more.ndjson").write_text(json.dumps(pairs(1, account="b")[0]) + "\n")
    path = write(tmp_path, {"a": role(1), "b": role(1)}, rows=pairs(1, account="a"))
    path.write_text(path.read_text() + "include: [more.ndjson]\n")
    with pytest.raises(ManifestError, match=r"more\.ndjson:1: .*m\.yaml:6\)"):
        manifest.load(path)

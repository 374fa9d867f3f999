"""The report as CSV files."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot import manifest
from batch_snapshot.ledger import records
from batch_snapshot.models import Skip, Status
from batch_snapshot.reporting.entries import escape_formula
from tests.support.ledgers import BEGAN, LedgerBuilder, row
from tests.support.processes import pairs, write_manifest
from tests.support.reports import A, written
from tests.support.strategies import patient


def test_csv_has_each_row_in_the_file_of_its_status(tmp_path):
    listed = write_manifest(tmp_path / "trial.yaml", pairs(5), name="nightly")
    ours = [
        row(n, "default", engagement=pair["engagement"], resource=pair["resource"])
        for n, pair in enumerate(pairs(5))
    ]
    ledger = LedgerBuilder(5, manifest=str(listed)).begin().intend(*ours[:3])
    ledger.result(ours[0]).result(ours[1], Status.FAILED, message="no, no").result(
        ours[2], Status.IN_DOUBT
    ).end()
    _, found = written(tmp_path, ledger)
    assert [line["resource"] for line in found["succeeded"]] == ["O1"]
    assert found["succeeded"][0]["arn"].startswith("arn:aws:partnercentral:")
    assert [(line["resource"], line["status"], line["message"]) for line in found["failed"]] == [
        ("O2", "failed", "no, no"),
        ("O3", "in_doubt", "not authorized"),
    ]
    assert [line["resource"] for line in found["unprocessed"]] == ["O4", "O5"]
    rest = {"version": 1, "name": "rest", "defaults": {"catalog": "AWS"}, "include": ["csv/unprocessed.csv"]}
    (tmp_path / "rest.yaml").write_text(json.dumps(rest), "utf-8")
    left = manifest.load(tmp_path / "rest.yaml")
    assert list(manifest.rows(left)) == ours[3:], "a manifest can include what is left"


def test_csv_has_left_out_rows_in_a_file_of_their_own(tmp_path):
    listed = write_manifest(tmp_path / "trial.yaml", pairs(3), name="nightly")
    ours = list(manifest.rows(manifest.load(listed)))
    ledger = LedgerBuilder(3, manifest=str(listed)).begin()
    ledger.lines.append(records.encode_skip("night-1", BEGAN, Skip.UNCHANGED, ours[:1]))
    ledger.intend(*ours[1:2]).result(ours[1]).end()
    _, found = written(tmp_path, ledger)
    assert [(line["resource"], line["status"]) for line in found["left_out"]] == [("O1", "unchanged")]
    assert [line["resource"] for line in found["unprocessed"]] == ["O3"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "＝", "\u00a0-"])
def test_csv_escapes_formulas(tmp_path, start):
    text = f'{start}HYPERLINK("http://x")'
    ledger = LedgerBuilder(1).begin().result(A, Status.FAILED, code=text, message=text, request_id=text).end()
    _, found = written(tmp_path, ledger)
    (line,) = found["failed"]
    assert line["code"] == line["message"] == line["request_id"] == f"'{text}"


@given(st.text())
@patient
def test_escape_formula_changes_only_formulas(text):
    cell = escape_formula(text)
    assert cell.removeprefix("'") == text.removeprefix("'")
    assert not cell.strip(" \u00a0\u3000").startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert escape_formula("O123 = 4") == "O123 = 4"

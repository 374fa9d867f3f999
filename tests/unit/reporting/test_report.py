"""Reports: their notes, refusals and files."""

import json
from typing import Any

import pytest

from batch_snapshot import manifest, paths
from batch_snapshot.errors import InputError, LedgerError, ManifestError
from batch_snapshot.ledger import locks
from batch_snapshot.models import Status
from batch_snapshot.reporting import page as report_page
from batch_snapshot.reporting import report
from tests.support.ledgers import LedgerBuilder, row
from tests.support.processes import pairs, write_manifest
from tests.support.reports import NOW, A, B, written


def test_note_counts_rows_that_only_a_missing_manifest_names(tmp_path):
    ledger = (
        LedgerBuilder(9, manifest=str(tmp_path / "gone.yaml")).begin().intend(A, B).result(A).end("deferred")
    )
    data, found = written(tmp_path, ledger)
    (note,) = data.notes
    assert "7 unattempted rows" in note
    assert "gone.yaml" in note
    assert "--manifest" in note
    assert [line["resource"] for line in found["unprocessed"]] == ["O2"], "the ledger alone names it"


def test_a_row_that_was_named_and_never_sent_counts_only_while_the_manifest_lists_it(tmp_path):
    listed = write_manifest(tmp_path / "trial.yaml", pairs(3), name="nightly")
    first, second, third = manifest.rows(manifest.load(listed))
    ledger = LedgerBuilder(3, manifest=str(listed)).begin().intend(first, second, third).result(first).end()
    _, found = written(tmp_path, ledger)
    assert [line["resource"] for line in found["unprocessed"]] == [second.resource, third.resource]
    write_manifest(tmp_path / "trial.yaml", pairs(2), name="nightly")
    _, found = written(tmp_path, ledger)
    assert [line["resource"] for line in found["unprocessed"]] == [second.resource]


def test_discovered_rows_that_were_never_taken_up_are_listed(tmp_path):
    listed = tmp_path / "trial.yaml"
    listed.write_text("version: 1\nname: nightly\ndefaults: {catalog: Sandbox}\ndiscover: [{}]\n", "utf-8")
    rows = [row(number, "default") for number in range(1, 4)]
    discovered = paths.discovered_file(tmp_path / "l.ndjson")
    discovered.write_text("".join(json.dumps(each._asdict()) + "\n" for each in rows), "utf-8")
    known = manifest.load(listed, discovered)
    found_then: dict[str, Any] = {"manifest_sha256": known.sha256, "discovered_sha256": known.found_sha256}
    ledger = LedgerBuilder(3, manifest=str(listed)).begin(**found_then).intend(*rows[:1]).result(rows[0])
    ledger.end("deferred").begin("retry", manifest_sha256=known.sha256).end()
    data, found = written(tmp_path, ledger)
    assert [line["resource"] for line in found["unprocessed"]] == ["O2", "O3"]
    assert data.notes == []


def test_complete_report_has_no_notes(tmp_path):
    data, _ = written(tmp_path, LedgerBuilder(1).begin().result(A).end())
    assert data.notes == []


def test_manifest_of_another_ledger_and_invalid_manifest_are_refused(tmp_path):
    path = LedgerBuilder(1).begin().result(A).end().write(tmp_path / "l.ndjson")
    other = write_manifest(tmp_path / "other.yaml", pairs(1), name="other")
    with pytest.raises(
        InputError, match=r"other\.yaml: is manifest 'other', but the ledger belongs to 'nightly'"
    ):
        report.load(path, other)
    (tmp_path / "broken.yaml").write_text("version: 2", "utf-8")
    with pytest.raises(ManifestError):
        report.load(path, tmp_path / "broken.yaml")


def test_notes_name_a_changed_manifest_and_a_running_run(tmp_path):
    listed = write_manifest(tmp_path / "trial.yaml", pairs(1), name="nightly")
    path = LedgerBuilder(1, manifest=str(listed)).begin().intend(A).write(tmp_path / "l.ndjson")
    with locks.hold(paths.ledger_lock(path), what=str(path), since="now"):
        data = report.load(path)
    assert [note.split()[0] for note in data.notes] == ["A", "The"]
    assert data.watch.stats.invocations[-1].outcome == "running"
    assert data.watch.stats.history.counts()[Status.IN_DOUBT] == 0


def test_report_is_written_atomically_and_never_over_its_sources(tmp_path):
    listed = write_manifest(tmp_path / "trial.yaml", pairs(1), name="nightly")
    path = LedgerBuilder(1, manifest=str(listed)).begin().result(A).end().write(tmp_path / "l.ndjson")
    data = report.load(path)
    target = tmp_path / "page.html"
    target.write_text("before", "utf-8")
    report_page.write(data, target, NOW)
    assert target.read_text("utf-8").startswith("<!DOCTYPE html>")
    before = path.read_bytes(), listed.read_bytes()
    (tmp_path / "link").symlink_to(path)
    for ours in (path, listed, tmp_path / "link"):
        with pytest.raises(InputError, match="what the report is made from"):
            report_page.write(data, ours, NOW)
    assert (path.read_bytes(), listed.read_bytes()) == before
    names = sorted(each.name for each in tmp_path.iterdir())
    assert names == ["l.ndjson", "link", "page.html", "trial.yaml"], "nothing else is left behind"


def test_failed_report_keeps_the_file_that_was_there(tmp_path):
    path = LedgerBuilder(1).begin().result(A).end().write(tmp_path / "l.ndjson")
    data = report.load(path)
    (tmp_path / "succeeded.csv").write_text("before", "utf-8")
    path.write_bytes(path.read_bytes() + b"{}\n")
    with pytest.raises(LedgerError, match="not an object with a type"):
        report.write_csv(data, tmp_path)
    assert (tmp_path / "succeeded.csv").read_text("utf-8") == "before"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["l.ndjson", "succeeded.csv"]

"""What is fuzzed: each target takes any bytes and returns, whatever they are.

A finding is an exception that is no `InputError`, a broken promise below, a hang, or memory without
bound. `tests/unit/manifest/test_fuzz_findings.py` runs every finding and every seed again.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from batch_snapshot import manifest
from batch_snapshot.errors import InputError, LedgerError
from batch_snapshot.ledger import history, reader, records, writer
from batch_snapshot.reporting import status
from tests.support import rewriting

#: Cuts the input into a manifest and the files that it may include.
CUT = b"\n---8<---\n"
INCLUDES = ("pairs.csv", "pairs.ndjson", "more.yaml", "deep/more.yaml")


def manifest_target(data: bytes, folder: Path) -> None:
    """Any files: rows, each once and the same in both passes, or a bounded list of clear lines."""
    (folder / "deep").mkdir(exist_ok=True)
    for name, content in zip(("manifest.yaml", *INCLUDES), data.split(CUT), strict=False):
        rewriting.write(folder / name, content)
    try:
        loaded = manifest.load(folder / "manifest.yaml")
    except InputError as error:
        _clear(str(error))
        return
    rows = list(manifest.rows(loaded))
    assert {row.key for row in rows} == set(loaded.keys)
    assert len(rows) == loaded.rows == sum(loaded.rows_by_account.values())


def ledger_target(data: bytes, folder: Path) -> None:
    """Any file: a history that mending does not change, or one clear line."""
    path, repaired = folder / "ledger.ndjson", folder / "repaired.ndjson"
    rewriting.write(path, data)
    rewriting.write(repaired, data)
    for look in (status.read_status, status.check_ledger):
        try:
            look(path)
        except InputError as error:
            _clear(str(error))
    try:
        before = reader.history_of(path)
    except LedgerError:
        return
    for name, fields in before.last.accounts.items() if before.last else ():
        with suppress(TypeError, ValueError):
            records.decode_account(name, fields)
    unfinished = {row.key for row, _ in history.unfinished_rows(reader.lines(path), before)}
    assert unfinished <= before.unfinished.keys()
    with suppress(LedgerError):
        writer.repair_last_line(repaired)
        whole_lines = data[: data.rfind(b"\n") + 1]
        assert repaired.read_bytes() in {data, data + b"\n", whole_lines}


def _clear(message: str) -> None:
    lines = message.splitlines()
    assert lines, "an error without words"
    assert len(lines) <= 60, f"{len(lines)} lines"
    assert all(len(line) < 4_000 for line in lines), "a line too long to read"
    assert "Traceback" not in message


TARGETS: Mapping[str, Callable[[bytes, Path], None]] = {"manifest": manifest_target, "ledger": ledger_target}

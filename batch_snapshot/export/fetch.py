"""Fetches what the snapshots of ledgers say, a read each, into files.

Only what a file does not hold yet is fetched. Each snapshot is appended as its answer comes, so that the same
command continues after a crash.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from batch_snapshot import files
from batch_snapshot.config.options import Options
from batch_snapshot.discovery.output import ROW_ERRORS, Finding, Findings
from batch_snapshot.discovery.readers import Environment, open_ledger_readers
from batch_snapshot.engine.reader import Reader, map_concurrently, read_failed
from batch_snapshot.errors import BatchSnapshotError, InputError, StorageError
from batch_snapshot.export import records, tables
from batch_snapshot.export.records import ExportFile
from batch_snapshot.ledger.reader import last_header
from batch_snapshot.ledger.row_table import KEY, row_tables
from batch_snapshot.models import ApiError, Row, Status
from batch_snapshot.operations import NOT_FOUND, create_operation
from batch_snapshot.text import plural

#: Engagements of an account that may be denied, and none be read, before the account's reads end.
DENIALS = 10


@dataclass(kw_only=True)
class Exported(Findings):
    #: Snapshots by the file that holds them.
    files: dict[Path, int] = field(default_factory=dict)
    fetched: int = 0


async def export(
    ledgers: Sequence[Path],
    output: Path,
    options: Options,
    environment: Environment,
    *,
    form: str | None = None,
    fields: Sequence[str] = (),
) -> Exported:
    """Fetch the payloads of all succeeded rows of `ledgers` into `output`, a file or a folder."""
    began = environment.clock()
    form, sources = plan(ledgers, output, form)
    columns = tables.columns(fields)
    headers = {ledger: last_header(ledger) for ledger in ledgers}
    if form == "parquet":
        tables.import_pyarrow()
    # A file in a folder is of one run; a file that is named may collect several.
    runs = {source: headers[one].run_id for source, [one, *_] in sources.items() if source.parent == output}
    for source in sources:
        records.check(source, fields, runs.get(source))
    result = Exported()
    for source, named in sources.items():
        with records.open_export(
            source, fields, runs.get(source), environment.clock, environment.now()
        ) as file:
            for ledger in named:
                header = headers[ledger]
                async with open_ledger_readers(ledger, header, options, environment, result) as readers:
                    fetcher = _Fetcher(ledger, header.run_id, file, fields)
                    await fetcher.fetch(readers, result, environment.on_progress)
            result.files[tables.path_of(source, form)] = len(file)
        tables.write(source, form, columns)
    result.findings.sort(key=lambda one: (one.row, one.what))
    result.elapsed_s = environment.clock() - began
    return result


def export_files(ledgers: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """The file of each ledger's export: its name, after as many of its folders as make it unique."""
    parts = {ledger: (*files.resolved(ledger).parts[1:-1], ledger.stem) for ledger in ledgers}
    ends = {ledger: [one[-depth:] for depth in range(1, len(one) + 1)] for ledger, one in parts.items()}
    used = Counter(chain(*ends.values()))
    names = {ledger: next((end for end in each if used[end] == 1), each[-1]) for ledger, each in ends.items()}
    return {ledger: folder / f"{'-'.join(name)}.ndjson" for ledger, name in names.items()}


def plan(ledgers: Sequence[Path], output: Path, form: str | None) -> tuple[str, dict[Path, list[Path]]]:
    """The format, and by the NDJSON file that is appended to the ledgers that it is fetched for."""
    if output.is_dir() or not output.suffix:
        sources: dict[Path, list[Path]] = {}
        for ledger, source in export_files(ledgers, output).items():
            if sources.setdefault(source, [ledger]) != [ledger]:
                both = f"{sources[source][0]} and {ledger}"
                raise InputError(f"{both}: would both become {source}; export each to a file of its own")
        return form or "ndjson", sources
    found = tables.FORMATS.get(output.suffix)
    if found is None or form not in {None, found}:
        wanted = f".{form}" if form else ", ".join(tables.FORMATS)
        raise InputError(f"--output {output}: name a folder, or a file that ends in {wanted}")
    return found, {output if found == "ndjson" else output.with_suffix(".ndjson"): [*ledgers]}


class _Fetcher:
    def __init__(self, ledger: Path, run_id: str, file: ExportFile, fields: Sequence[str]) -> None:
        self._ledger, self._run_id, self._file, self._fields = ledger, run_id, file, fields
        #: Accounts that could read something, and by account and engagement why that is denied.
        self._read: set[str] = set()
        self._denied: dict[tuple[str, str], str] = {}

    async def fetch(
        self, readers: Mapping[str, Reader], result: Exported, on_progress: Callable[[str], None]
    ) -> None:
        failed: list[BatchSnapshotError] = []
        begun = result.fetched
        with row_tables(rows=self._ledger) as db:
            # What is left are succeeded rows that the file does not hold.
            db.create_function("is_held", 1, lambda arn: arn in self._file)
            db.execute("DELETE FROM rows WHERE status <> ? OR is_held(arn)", (Status.SUCCEEDED,))
            total = plural(db.execute("SELECT count(*) FROM rows").fetchone()[0], "snapshot")

            async def fetch_account(reader: Reader) -> None:
                query = f"SELECT {KEY}, arn, revision FROM rows WHERE account = ? ORDER BY {KEY}"  # noqa: S608 - constants of this module

                async def one(values: tuple[Any, ...]) -> None:
                    row, arn, revision = Row(*values[:6]), *values[6:]
                    if wrong := await self._fetch(reader, row, arn, revision):
                        result.findings.append(
                            Finding(wrong[0], row, revision, wrong[1], ledger=str(self._ledger))
                        )
                    else:
                        result.fetched += 1
                    on_progress(f"{self._ledger}: {result.fetched - begun:,} of {total}")

                try:
                    await map_concurrently(db.execute(query, (reader.name,)), one)
                except StorageError:
                    raise
                except BatchSnapshotError as error:  # other accounts go on
                    failed.append(error)

            await map_concurrently(readers.values(), fetch_account)
        if failed:
            raise failed[0]

    async def _fetch(self, reader: Reader, row: Row, arn: str, revision: int) -> tuple[str, str] | None:
        """Append a snapshot to the file; returns what is wrong if it cannot be had, and why."""
        engagement = (reader.name, row.engagement)
        if engagement in self._denied:
            return "unreadable", self._denied[engagement]
        operation = create_operation(row)
        wanted = {**operation.read_parameters(row), "Revision": revision}
        try:
            answer = await reader.read(operation.look_up, **wanted)
        except ApiError as error:
            code = error.failure.code
            why = f"{code}: {error.failure.message}"
            if code == "AccessDeniedException":
                self._denied[engagement] = why
            denials = sum(account == reader.name for account, _ in self._denied)
            all_denied = denials >= DENIALS and reader.name not in self._read
            if code not in ROW_ERRORS or all_denied:
                raise read_failed(reader.name, operation.look_up, error.failure) from error
            return "missing" if code == NOT_FOUND else "unreadable", why
        self._read.add(reader.name)
        payload = answer.get("Payload")
        if answer.get("Arn") != arn:
            return "mismatched", f"the service has {answer.get('Arn')}"
        if not isinstance(payload, dict) or not tables.is_known(payload):
            return "unreadable", "its payload is unknown to this botocore"
        self._file.append(self._run_id, row, answer, tables.select(payload, self._fields))
        return None


def as_json(result: Exported) -> dict[str, Any]:
    return {
        "outcome": "incomplete" if result.findings else "completed",
        "files": [{"path": str(path), "snapshots": number} for path, number in result.files.items()],
        "fetched": result.fetched,
        "held_before": sum(result.files.values()) - result.fetched,
        "counts": {what: result.kinds[what] for what in ("missing", "mismatched", "unreadable")},
        "unfetched": [
            one.row._asdict()
            | {"what": one.what, "revision": one.revision, "why": one.found, "ledger": one.ledger}
            for one in result.findings
        ],
        **result.calls_as_json(),
    }


def as_text(result: Exported) -> str:
    text = [f"{path}: {plural(number, 'snapshot')}" for path, number in result.files.items()]
    before = sum(result.files.values()) - result.fetched
    text.append(f"{result.fetched:,} fetched now, {before:,} before")
    text += [f"{number:,} {what}" for what, number in sorted(result.kinds.items())]
    return "\n".join([*text, *result.as_lines("--summary json names them")])

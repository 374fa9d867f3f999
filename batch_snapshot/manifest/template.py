"""The manifest that `init` writes: valid, and every section explained."""

import csv
import json
import re
from collections.abc import Sequence
from itertools import islice, zip_longest
from pathlib import Path

from batch_snapshot.errors import InputError
from batch_snapshot.manifest import csv_columns, keys, line_files, sections
from batch_snapshot.manifest.keys import ManifestKey
from batch_snapshot.manifest.problems import Place, Report, UnreadableError
from batch_snapshot.manifest.service_model import row_input
from batch_snapshot.text import escaped

#: Rows of a file by whose values its columns are recognised.
_LOOKED_AT = 100


def template(name: str = "my-snapshots", include: str | None = None) -> str:
    """The text of a manifest with this name; its rows are examples, or those of an `include` entry."""
    return _TEMPLATE.format(
        name=name,
        rows=_PAIRS if include is None else _INCLUDE.format(include=include),
        catalog=_lines([key for key in keys.CONTEXT if key.name == "catalog"], "  ", 38),
        context=_lines([key for key in keys.CONTEXT if key.name != "catalog"], "  # ", 38),
        quota=_lines(keys.QUOTA, "#       ", 28),
        account=_lines(keys.ACCOUNT, "#     ", 28),
        discover=_lines([key for key in keys.DISCOVER if key not in keys.CONTEXT], "#   ", 38),
    )


def include_entry(file: Path, folder: Path) -> str:
    """The entry of `include` for a CSV or NDJSON file in the manifest's folder.

    Columns with other names than the keys of a pair are recognised by their values. A file that is elsewhere,
    cannot be read, or has no such columns is an `InputError`.
    """
    shown = escaped(str(file))
    try:
        relative = file.resolve().relative_to(folder.resolve()).as_posix()
    except ValueError:
        where = "the current folder" if folder == Path() else f"the folder {folder}"
        raise InputError(f"{shown}: is outside the manifest's folder; move it into {where}") from None
    entries = line_files.ENTRIES.get(file.suffix.lower())
    other = "name a .csv or .ndjson file; a .yaml or .json file of pairs goes under include: in a manifest"
    wrong = sections.read_problem(file, shown) if entries else f"{shown}: {other}"
    if wrong or entries is None:
        raise InputError(wrong or "")
    try:
        with file.open("rb") as lines:
            found = entries(lines, Report(), None)
            next(found, None)
    except UnreadableError as error:
        columns = _recognised(file) if file.suffix.lower() == ".csv" else None
        if columns is None:
            raise InputError(f"{Place(0, shown, error.line)}: {error.text}") from None
        # What a CRM calls an account is no account of a manifest.
        columns["account"] = None
        named = ", ".join(f"{key}: {json.dumps(name, ensure_ascii=False)}" for key, name in columns.items())
        return f"{{file: {_yaml_text(relative)}, columns: {{{named}}}}}"
    return _yaml_text(relative)


def _recognised(file: Path) -> dict[str, str | None] | None:
    """The names of the columns that hold engagements and resources; None: not one of each."""
    with file.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        text = list(islice(lines, _LOOKED_AT))
    ids = {key: row_input()[key].regex.fullmatch for key in ("engagement", "resource")}
    for separator in csv_columns.SEPARATORS:
        try:
            rows = [[*map(csv_columns.cleaned, row)] for row in csv_columns.parser(text, separator)]
        except csv.Error:
            continue
        columns = {name: [*filter(None, cells)] for name, *cells in zip_longest(*rows, fillvalue="")}
        found = {
            key: [name for name, cells in columns.items() if cells and all(map(matches, cells))]
            for key, matches in ids.items()
        }
        if all(len(names) == 1 and names[0] for names in found.values()):
            return {key: names[0] for key, names in found.items()}
    return None


def _yaml_text(text: str) -> str:
    return (
        text if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_./-]*", text) else json.dumps(text, ensure_ascii=False)
    )


def _lines(section: Sequence[ManifestKey], indent: str, column: int) -> str:
    shown = [(key.name, *key.sample) for key in section if key.sample]
    lines = [(f"{indent}{name}: {value}", comment) for name, value, comment in shown]
    return "\n".join(f"{line:<{column - 1}} # {comment}" if comment else line for line, comment in lines)


_PAIRS = """\
# The snapshots: an engagement, and one resource or several. A pair listed twice is made once.
pairs:
  - {engagement: eng-0123456789abcd, resource: O1234567}
  - engagement: eng-0123456789abce
    resources: [O1234568, O1234569]

# Further pairs in files beside this one: YAML, CSV (with a header) or NDJSON.
# include: [more-pairs.yaml, pairs.csv, pairs.ndjson]
# A CSV file whose columns have other names, as a CRM exports it:
# include: [{file: crm.csv, columns: {engagement: "Engagement Id", resource: "Opportunity Id"}}]
"""

_INCLUDE = """\
# The snapshots: each row of this file. Its columns are the keys of a pair: engagement, resource, and
# if a row needs them account, catalog, template and resource_type.
include:
  - {include}
"""

_TEMPLATE = """\
# Which snapshots to make. Check it with:   batch-snapshot validate THIS-FILE
# Try it without AWS:                       batch-snapshot run THIS-FILE --simulate
# For completion in your editor, write the schema beside it (batch-snapshot schema > schema.json)
# and add this line at the top:             # yaml-language-server: $schema=schema.json
version: 1

# Required. The ledger and the locks have this name: letters, digits, dots and dashes.
name: {name}

# What each pair gets unless it names something else. All of it is optional, but the catalog must be
# named here or on each pair.
defaults:
{catalog}
{context}

# The accounts that make the calls. Without this section: the AWS credentials of your environment.
# No keys or passwords here: name a profile of your AWS configuration, or a role.
# accounts:
#   main:
#     profile: partner
#     quota:                # what you leave out is measured
{quota}
#   acme:
{account}

{rows}
# Or let each run take them from the service's own lists; all filters are optional.
# discover:
{discover}
"""

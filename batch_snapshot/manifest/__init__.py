"""The manifest: which snapshots are to be made, in which accounts, under which quotas.

`load` validates all of it before anything is called and keeps no row, only a key for each; `rows` then
streams the same rows. Both read through the same code.

The room, in the order in which a manifest passes through it::

    stretches  long runs of entries that are all alike, taken without a parser
    nodes      YAML events → sections and entries, one at a time
    includes   the further files: where they may lie; CSV and NDJSON → the same entries
    columns    the header of a CSV file: separator, names, which column holds which key
    header     name, accounts and their quotas, defaults
    pairs      entry → rows
    duplicates rows that two names of one AWS account both list
    live       what a run is to find at the service
    reading    one pass over a manifest and its includes
    loader     the two passes: `load` and `rows`

Beside it: `filters` (what `discover:` looks for), `service_model` (the patterns of botocore's models),
`values` (what each value may be), `problems` (what is wrong, in bounded memory), `schema` and `template`
(what `schema` and `init` print).
"""

from __future__ import annotations

from batch_snapshot.manifest.loader import Manifest, doubled, load, name_of, rows
from batch_snapshot.manifest.schema import schema
from batch_snapshot.manifest.template import template
from batch_snapshot.models import Account, Quota

__all__ = [
    "Account",
    "Manifest",
    "Quota",
    "doubled",
    "duplicates",
    "filters",
    "live",
    "load",
    "name_of",
    "rows",
    "schema",
    "service_model",
    "template",
    "values",
]

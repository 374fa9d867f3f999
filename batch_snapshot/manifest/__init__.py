"""The manifest: files → validated rows.

`load` validates a manifest and its includes before anything is called and keeps a key for each row, not the
rows; `rows` streams the same rows again. Also exported: `schema` and `template` (what the commands `schema`
and `init` print), `filters` (what `discover:` looks for), `service_model` (the patterns of the service's
API), `duplicates` and `problems`. The package knows neither ledgers nor AWS.
"""

from batch_snapshot.manifest.loader import Manifest, find_duplicates, load, rows
from batch_snapshot.manifest.reader import LoadOptions
from batch_snapshot.manifest.schema import schema
from batch_snapshot.manifest.template import include_entry, template
from batch_snapshot.models import Account, Quota

__all__ = [
    "Account",
    "LoadOptions",
    "Manifest",
    "Quota",
    "duplicates",
    "filters",
    "find_duplicates",
    "include_entry",
    "keys",
    "load",
    "problems",
    "rows",
    "schema",
    "service_model",
    "template",
]

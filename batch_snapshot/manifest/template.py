"""The manifest that `init` writes: valid, and every section explained."""

from collections.abc import Sequence

from batch_snapshot.manifest import keys
from batch_snapshot.manifest.keys import ManifestKey


def template() -> str:
    return _TEMPLATE.format(
        catalog=_lines([key for key in keys.CONTEXT if key.name == "catalog"], "  ", 38),
        context=_lines([key for key in keys.CONTEXT if key.name != "catalog"], "  # ", 38),
        quota=_lines(keys.QUOTA, "#       ", 28),
        account=_lines(keys.ACCOUNT, "#     ", 28),
        discover=_lines([key for key in keys.DISCOVER if key not in keys.CONTEXT], "#   ", 38),
    )


def _lines(section: Sequence[ManifestKey], indent: str, column: int) -> str:
    shown = [(key.name, *key.sample) for key in section if key.sample]
    lines = [(f"{indent}{name}: {value}", comment) for name, value, comment in shown]
    return "\n".join(f"{line:<{column - 1}} # {comment}" if comment else line for line, comment in lines)


_TEMPLATE = """\
# Which snapshots to make. Check it with:   batch-snapshot validate THIS-FILE
# Try it without AWS:                       batch-snapshot run THIS-FILE --simulate
# For completion in your editor, write the schema beside it (batch-snapshot schema > schema.json)
# and add this line at the top:             # yaml-language-server: $schema=schema.json
version: 1

# Required. The ledger and the locks bear this name: letters, digits, dots and dashes.
name: my-snapshots

# What a pair gets that says nothing else. All of it is optional, but the catalog must be named
# here or on each pair.
defaults:
{catalog}
{context}

# In which accounts the calls are made. Without this section: the ambient AWS credentials.
# No keys or passwords here: name a profile of your AWS configuration, or a role.
# accounts:
#   main:
#     profile: partner
#     quota:                # what is not declared is found out
{quota}
#   acme:
{account}

# The snapshots: an engagement, and one resource or several. A pair listed twice is made once.
pairs:
  - {{engagement: eng-0123456789abcd, resource: O1234567}}
  - engagement: eng-0123456789abce
    resources: [O1234568, O1234569]

# Further pairs in files beside this one: YAML, CSV (with a header) or NDJSON.
# include: [more-pairs.yaml, pairs.csv, pairs.ndjson]
# A CSV file whose columns have other names, as a CRM exports it:
# include: [{{file: crm.csv, columns: {{engagement: "Engagement Id", resource: "Opportunity Id"}}}}]

# Or let each run take them from the service's own lists; all filters are optional.
# discover:
{discover}
"""

"""The manifest that `init` writes: valid as it stands, and every key explained."""

from __future__ import annotations


def template() -> str:
    """A commented manifest."""
    return _TEMPLATE


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
  catalog: Sandbox                    # Sandbox, or AWS for production
  # template: OpportunitySummaryView  # the default
  # resource_type: Opportunity        # the default
  # account: main                     # needed where there are several accounts

# In which accounts the calls are made. Without this section: the ambient AWS credentials.
# No keys or passwords here: name a profile of your AWS configuration, or a role.
# accounts:
#   main:
#     profile: partner
#     quota:                # what is not declared is found out
#       per_second: 1
#       per_day: 10000      # per_minute and per_hour work the same way
#       reserve: 500        # calls of each window that are left to other programs
#   acme:
#     profile: partner      # the credentials that assume the role
#     role_arn: arn:aws:iam::123456789012:role/Snapshot
#     external_id: abc-123
#     session_name: nightly # as CloudTrail shows it
#     tags: [emea, pilot]   # --accounts tag:emea selects it with all others that have this tag

# The snapshots: an engagement, and one resource or several. A pair listed twice is made once.
pairs:
  - {engagement: eng-0123456789abcd, resource: O1234567}
  - engagement: eng-0123456789abce
    resources: [O1234568, O1234569]

# Further pairs in files beside this one: YAML, CSV (with a header) or NDJSON.
# include: [more-pairs.yaml, pairs.csv, pairs.ndjson]
# A CSV file whose columns have other names, as a CRM exports it:
# include: [{file: crm.csv, columns: {engagement: "Engagement Id", resource: "Opportunity Id"}}]

# Or let each run take them from the service's own lists; all filters are optional.
# discover:
#   stages: [Committed, Launched]     # of the opportunity
#   changed_since: 36h                # or 2026-01-31
"""

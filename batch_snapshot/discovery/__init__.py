"""The service's lists: which pairs exist, and which changed since their last snapshot.

Exports `discover` (new manifests and updates of manifests), `search` (the lists, page by page),
`output` (files of pairs), `readers` (paced reads by account) and `changes`. It writes no ledger and makes
no snapshot.
"""

__all__ = [
    "changes",
    "discover",
    "output",
    "readers",
    "search",
]

"""Discovery: the service's lists → pairs, and which pairs changed since their last snapshot.

Exports `discover` (a new manifest, or one brought up to date), `search` (the lists, page by page), `output`
(files, text and JSON of what was found), `readers` (reads by account, at their own pace) and `changes`. It
writes no ledger and makes no snapshot.
"""

__all__ = ["changes", "discover", "output", "readers", "search"]

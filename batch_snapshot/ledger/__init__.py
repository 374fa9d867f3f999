"""The ledger: the append-only record of what became of each row.

Exports the records and their lines (`records`), reading and writing (`reader`, `writer`, `history`),
files that go with ledgers (`locks`, `open_runs`, `snapshot_index`), and what is done with whole ledgers
(`repair`, `row_table`, `diff`, `prune`). It must not know AWS, pace, options or jobs.
"""

__all__ = [
    "diff",
    "history",
    "locks",
    "open_runs",
    "prune",
    "reader",
    "records",
    "repair",
    "row_table",
    "snapshot_index",
    "writer",
]

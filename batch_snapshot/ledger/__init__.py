"""The ledger: the append-only record of what became of each row.

Exports the lines and their meaning (`codec`, `history`, `signer`), files and locks (`writer`,
`locks`, `open_runs`, `snapshot_index`), and what is done with whole ledgers (`check`, `repair`, `diff`,
`prune`). It knows no AWS, no pace and no options.
"""

__all__ = [
    "check",
    "codec",
    "diff",
    "history",
    "locks",
    "open_runs",
    "prune",
    "repair",
    "signer",
    "snapshot_index",
    "writer",
]

"""Ledgers and running runs as people see them: lines, live displays, summaries, tables, an HTML page.

Exports `stats` (the fold of outcomes and ledger lines), `summary` (the result of a run or ledger), `text` and
`next_steps` (a summary for people, and the commands that continue from it), `examples` (rows that failed),
`status` (a ledger by itself), `progress`, `display` and `screen` (an active run), and `report` (the files of
the report). It makes no calls to AWS, and writes no ledger.
"""

__all__ = [
    "csv",
    "display",
    "examples",
    "next_steps",
    "progress",
    "report",
    "screen",
    "stats",
    "status",
    "summary",
    "text",
]

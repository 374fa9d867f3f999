"""Ledgers and running runs as people see them: lines, live displays, summaries, tables, an HTML page.

Exports `stats` (the fold of outcomes and ledger lines), `entries` (each row, and tables of them), `summary`
(the result of a run or ledger, as text and JSON) and `next_steps` (the commands that continue from it),
`status` (ledgers by themselves), `progress`, `display` and `screen` (an active run), `report` (what it is
made of, and its CSV tables), `page` (its page), `html` (pages, and the table in one), and `server` (its page
live in a browser). It makes no calls to AWS, and writes no ledger.
"""

__all__ = [
    "display",
    "entries",
    "html",
    "next_steps",
    "page",
    "progress",
    "report",
    "screen",
    "server",
    "stats",
    "status",
    "summary",
]

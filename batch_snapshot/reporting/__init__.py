"""Ledgers and running runs as people see them: lines, displays, summaries, tables, a page.

Exports `summary` (what a run came to, exit codes, next commands), `status` (a ledger's own), `view`,
`display` and `progress` (a run as it goes), and `handing` (the report's files). It makes no calls and
writes no ledger.

The report, in the order in which a ledger passes through it::

    entries    lines of the ledger, rows of the manifest → one entry a row
    facts      lines and entries → sums, groups, times
    charts     sums → where the bars of a drawing stand
    columns    entries → the page's table, a column at a time
    page       all of that → HTML (the templates lie beside it)
    tables     entries → CSV
    handing    files in, files out

All but the last decide and do no more.
"""

__all__ = ["display", "handing", "progress", "status", "summary", "view"]

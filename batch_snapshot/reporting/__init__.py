"""What is handed out about a ledger: one page to open in a browser, tables for a spreadsheet.

The room, in the order in which a ledger passes through it::

    entries    lines of the ledger, rows of the manifest → one entry a row
    facts      lines and entries → sums, groups, times
    charts     sums → where the bars of a drawing stand
    columns    entries → the page's table, a column at a time
    page       all of that → HTML (the templates lie beside it)
    tables     entries → CSV
    handing    files in, files out

All but the last decide and do no more.
"""

from __future__ import annotations

from batch_snapshot.reporting.handing import Material, gather, write_csv, write_html

__all__ = ["Material", "gather", "write_csv", "write_html"]

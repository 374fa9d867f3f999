"""What snapshots say, as data: ledgers → files of payloads.

Exports `fetch` (the service's payloads → an NDJSON file), `tables` (that file → CSV and Parquet), `diff`
(what changed between two files, also as a page). `records` is the format of the files. Nothing here writes a
ledger.
"""

__all__ = ["diff", "fetch", "tables"]

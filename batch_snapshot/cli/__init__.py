"""The command line: flags to options, results to stdout, everything else to stderr.

Exports `main` and the click group `cli`. One file per command; no other package imports this one. Modules
that make calls are imported inside the command functions, so that all other commands start fast.
"""

from batch_snapshot.cli.app import cli, main

__all__ = ["cli", "main"]

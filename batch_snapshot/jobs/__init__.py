"""The wiring: run, resume and retry are one path from options to a summary.

Exports `run` (the library's entry), `plan` (which rows are sent), `preview`, `resume` (which ledger is taken)
and `control`. Only the command line and the package's `__init__` import it; it prints nothing.
"""

__all__ = ["control", "plan", "preview", "resume", "run"]

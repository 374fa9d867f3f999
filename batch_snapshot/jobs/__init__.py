"""The wiring: run, resume and retry are one path from options to a summary.

Exports `run` and `sync` (the library's entry), `plan` (which rows are sent), `preview` and `resume`. Only
the command line and the package's `__init__` import it.
"""

__all__ = [
    "plan",
    "preview",
    "resume",
    "run",
    "sync",
]

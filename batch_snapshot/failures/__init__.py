"""What a failed call means: its kind, whether it is tried again, and when an account stops.

Exports `error_codes` (error codes and exception classes with their verdicts), `retry` (backoff, when to look
a snapshot up, `--max-failures`), `breakers` (when an account pauses or stops) and `advice` (what a person can
do about credentials). Pure: no clock, no files, no network.
"""

__all__ = ["advice", "breakers", "error_codes", "retry"]

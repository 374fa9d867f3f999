"""What a failed call means: its kind, whether it is tried again, and when an account stops.

Exports `policy` (error codes, verdicts, backoff) and `breakers`. Pure: no clock, no files, no network.
"""

__all__ = [
    "breakers",
    "policy",
]

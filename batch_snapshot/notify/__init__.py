"""Whom a run's end is told to: a webhook, an SNS topic, metrics.

Exports `notice` (what is told, pure), `webhook`, `sns` and `metrics`. What fails here is a warning and never
changes how the run ended.
"""

__all__ = [
    "metrics",
    "notice",
    "sns",
    "webhook",
]

"""Notifications at the end of a run: a webhook, an SNS topic, metrics.

Exports `notice` (what is sent, pure), `webhook`, `sns` and `metrics`. A failure here is a warning and never
changes how the run ended. Nothing here knows the ledger or the engine.
"""

__all__ = ["metrics", "notice", "sns", "webhook"]

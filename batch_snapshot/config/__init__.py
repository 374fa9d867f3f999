"""The options of an invocation and the accounts it calls for: the only source of defaults.

Exports `options` (which the command line and the library fill in) and `accounts` (who is called for,
under which quotas, at which endpoint). It makes no calls and imports no AWS SDK.
"""

__all__ = ["accounts", "options"]

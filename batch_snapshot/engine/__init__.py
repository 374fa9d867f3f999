"""The engine: requests in, one recorded outcome out for each that was tried.

Exports `pool` (the path of a row), `seams` (the functions it calls), `account` and `run_state` (the state of
accounts and of the run), `queue`, `limits` (calls in flight, pace and quota windows of accounts) and `reader`
(paced reads). It must not know AWS, files or a clock: those are functions in `Seams`, and it waits by anyio.
"""

__all__ = ["account", "attempts", "limits", "pool", "queue", "reader", "run_state", "seams", "signal"]

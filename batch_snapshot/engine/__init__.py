"""The engine: requests in, one recorded outcome out for each that was tried.

Exports `pool` (the workers), `account` and `run_state` (state of accounts and of the run), `queue`,
`limits`, `allowance` (what each account may use) and `reader` (paced reads). It knows neither AWS nor files
nor a clock: calls, records and times are functions that it is given, and it waits by anyio alone.
"""

__all__ = [
    "account",
    "allowance",
    "limits",
    "pool",
    "queue",
    "reader",
    "run_state",
]

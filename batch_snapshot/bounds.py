"""The bounds within which a run is driven: how many calls at once, how many tries, how long."""

from __future__ import annotations

from dataclasses import dataclass

from batch_snapshot import policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How a run is driven. Times are in seconds."""

    #: Calls in flight at most, shared out evenly among the accounts.
    concurrency: int = 32
    max_attempts: int = 8
    #: For so long the service is trusted to remember a token.
    token_ttl: float = 600.0
    #: Until a snapshot is sure to show in reads.
    read_lag: float = policy.READ_LAG
    #: Send a doubtful row again where its snapshot cannot be looked up.
    resend_in_doubt: bool = False
    #: For calls in flight when the run is stopped.
    drain_timeout: float = 30.0
    max_duration: float | None = None
    #: Nothing but throttles at the lowest rate for so long: the quota is spent.
    patience: float = 300.0
    #: While nothing can be reached, or quotas refuse all rows, probes go on for so long; then it is deferred.
    pause: float = 120.0
    failure_limit: policy.FailureLimit = policy.NO_LIMIT


DEFAULTS = Settings()

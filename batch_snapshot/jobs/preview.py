"""What `run` is about to do, which `plan` shows: which rows, how fast, until when."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from batch_snapshot.engine.limits import AccountForecast, AccountLimits
from batch_snapshot.jobs.job import Job
from batch_snapshot.models import Account
from batch_snapshot.ratelimit import forecast
from batch_snapshot.reporting import summary
from batch_snapshot.text import plural

BRIEF_LINES = 10

#: Seconds after which the number of days is no longer shown.
MANY_YEARS = 100 * 365 * 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    name: str
    ledger: str
    endpoint: str
    accounts: Mapping[str, Account]
    catalogs: frozenset[str]
    counts: summary.Counts
    rows: int
    #: By account; those with nothing to send are left out.
    outlooks: Mapping[str, AccountForecast]
    #: When the forecast was made, in the time zone it is shown in.
    now: datetime
    #: What is known only when the run begins.
    notes: Sequence[str] = ()

    @property
    def calls(self) -> int:
        """Calls that it takes if none is throttled: one a row, and a read for each account and catalog."""
        return self.rows + len(self.outlooks) * max(1, len(self.catalogs))

    @property
    def ends_in(self) -> float:
        """Seconds until the last row is sent; inf: never."""
        return max((outlook.forecast.ends_in for outlook in self.outlooks.values()), default=0.0)


def preview_job(job: Job, limits: AccountLimits, now: datetime) -> Preview:
    planned = job.planned()
    return Preview(
        name=job.header.name,
        ledger=str(job.path),
        endpoint=job.endpoint,
        accounts=job.accounts,
        catalogs=job.catalogs,
        counts=summary.count(job.past.counts(), job.header.rows),
        rows=sum(planned.values()),
        outlooks={name: limits.forecast(name, rows) for name in job.accounts if (rows := planned.get(name))},
        now=now.astimezone(),
        notes=job.open_questions,
    )


def as_json(preview: Preview) -> dict[str, Any]:
    rates = [outlook.rate for outlook in preview.outlooks.values()]
    return {
        "name": preview.name,
        "ledger": preview.ledger,
        "endpoint": preview.endpoint,
        "accounts": list(preview.accounts),
        "catalogs": sorted(preview.catalogs),
        "counts": preview.counts.as_dict(),
        "rows": preview.rows,
        "calls": preview.calls,
        "rate": round(sum(rates), 6) if rates else None,
        **_end(preview, preview.ends_in),
        "deferred_rows": sum(outlook.forecast.deferred for outlook in preview.outlooks.values()),
        **({"notes": list(preview.notes)} if preview.notes else {}),
        "forecasts": {
            name: {
                "rate": outlook.rate,
                "rate_is": outlook.basis,
                "windows": [
                    {"name": window.name, "limit": window.limit, "seconds": window.seconds, "used": used}
                    for window, used in zip(outlook.windows, outlook.used, strict=True)
                ],
                "stretches": [
                    {"rows": span.rows, "begins_at": _at(preview, span.begins_in)}
                    for span in outlook.forecast.spans
                ],
                **_end(preview, outlook.forecast.ends_in),
                "deferred_rows": (deferred := outlook.forecast.deferred),
                "quota_opens_at": _at(preview, outlook.forecast.opens_in) if deferred else None,
            }
            for name, outlook in preview.outlooks.items()
        },
    }


def _end(preview: Preview, ends_in: float) -> dict[str, Any]:
    duration = round(ends_in, 3) if math.isfinite(ends_in) else None
    return {"duration_s": duration, "ends_at": _at(preview, ends_in)}


def _at(preview: Preview, seconds: float) -> str | None:
    """The time then (RFC 3339); None: never."""
    try:
        return (preview.now + timedelta(seconds=seconds)).isoformat(timespec="seconds")
    except (OverflowError, ValueError):
        return None


def as_text(preview: Preview) -> str:
    total = plural(preview.counts.total, "row")
    lines = [
        f"{preview.name}: {preview.rows:,} of {total} to send, {plural(preview.calls, 'call')}",
        f"  catalog   {', '.join(sorted(preview.catalogs))}" if preview.catalogs else "",
        f"  endpoint  {preview.endpoint}",
        f"  ledger    {preview.ledger} ({summary.states(preview.counts)})",
    ]
    for name, outlook in preview.outlooks.items():
        windows = [
            f"; {window.name} {used:,} of {window.limit:,} used"
            for window, used in zip(outlook.windows, outlook.used, strict=True)
        ]
        rate, when = _rate(outlook), _when(preview, outlook)
        lines += [f"  account   {name}: {rate}{''.join(windows)}", f"            {when}"]
    lines += [f"  note      {note}" for note in preview.notes]
    return "\n".join(filter(None, lines))


def brief(preview: Preview) -> str:
    """One line an account; of many accounts those that take longest."""
    many = len(preview.outlooks) > 1
    ends = {name: max(one.forecast.ends_in, one.forecast.opens_in) for name, one in preview.outlooks.items()}
    last = sorted(ends, key=lambda name: -ends[name])
    named = {*last[: len(last) if len(last) <= BRIEF_LINES else BRIEF_LINES - 1]}
    lines = [
        f"{f'{name}: ' if many else ''}{_when(preview, outlook)} ({_rate(outlook).partition(':')[0]})"
        for name, outlook in preview.outlooks.items()
        if name in named
    ]
    if others := len(last) - len(named):
        lines.append(f"{plural(others, 'other account')}: none takes longer")
    return "\n".join(lines)


def _when(preview: Preview, outlook: AccountForecast) -> str:
    words, seconds = forecast.describe(outlook.forecast, preview.now), outlook.forecast.ends_in
    ends = 0 < seconds < MANY_YEARS and not outlook.forecast.deferred
    return f"{words}, in {timedelta(seconds=math.ceil(seconds))}" if ends else words


def _rate(outlook: AccountForecast) -> str:
    about = {
        "learned": "learned by an earlier run",
        "assumed": "assumed: none is declared or learned yet",
    }
    unit = "call" if outlook.rate == 1 else "calls"
    return f"{outlook.rate:,.3g} {unit}/s, {about.get(outlook.basis, outlook.basis)}"

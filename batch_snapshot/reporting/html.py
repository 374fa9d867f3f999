"""The report as one HTML file that needs nothing else: no network, no other file.

Every value is escaped: by the template engine in the page, in base64 in its data, as text by its script.
The page's Content-Security-Policy lets it load nothing and run no script but its own.
"""

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.resources import files
from math import isinf
from typing import Any

import jinja2
from markupsafe import Markup

from batch_snapshot import __version__
from batch_snapshot.clock import utc_now
from batch_snapshot.engine.limits import AccountForecast
from batch_snapshot.ledger.diff import KIND_TEXTS, SHOWN, Difference, change_text
from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.ledger.records import Header
from batch_snapshot.models import Account
from batch_snapshot.ratelimit.windows import DAY, windows
from batch_snapshot.reporting import charts
from batch_snapshot.reporting.display import Frame
from batch_snapshot.reporting.html_table import FailureMessages, PageRows, columns, packed
from batch_snapshot.reporting.next_steps import remedy
from batch_snapshot.reporting.stats import LedgerStats
from batch_snapshot.reporting.summary import Summary, largest_first
from batch_snapshot.reporting.text import advice
from batch_snapshot.text import duration

#: The parts of the page, in this order.
SECTIONS = (
    *("header", "now", "outcome", "failures", "difference", "course", "quotas", "accounts"),
    "invocations",
)
#: Seconds beyond which no end of a run is told.
LONGEST_LEFT = 366 * 86_400.0
#: Accounts of the table of accounts, and windows of that of windows.
MOST_ACCOUNTS, MOST_WINDOWS = 500, 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PageContent:
    """What the page tells besides its table of rows."""

    summary: Summary
    stats: LedgerStats
    header: Header
    made_at: datetime
    #: What is missing, and why.
    notes: Sequence[str] = ()
    #: Each account's rows by status.
    accounts: Mapping[str, Counter[str]]
    groups: Mapping[FailureGroup, FailureMessages]
    #: The accounts of the last invocation with their quotas.
    quotas: Mapping[str, Account]
    #: Calls a second that each invocation was allowed; None: not known.
    allowed: Sequence[float | None] = ()
    #: By account: its quota windows now.
    forecasts: Mapping[str, AccountForecast] = field(default_factory=dict)
    #: To the ledger before it.
    difference: Difference | None = None
    #: Of a run that goes on: its last minute, and the calls a second that are allowed now, and why.
    frame: Frame | None = None
    allowed_now: tuple[float, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """What a page's table shows."""

    #: What its rows are called, such as Rows.
    title: str
    #: The file of templates that says which columns there are.
    script: str
    #: Its columns, as `html_table.columns` has them.
    data: Mapping[str, Any]
    shown: int
    #: More than are shown: `which` says what they are, and `command` names all.
    total: int
    which: str = ""
    command: str
    #: The name of its filter, and what a search looks for.
    choice: str
    searched: str
    #: For readers without JavaScript: what is listed, and the cells with the class of the first.
    plain_note: str
    plain_head: Sequence[str]
    plain: Sequence[tuple[str, Sequence[str]]]
    explained: str = ""


def render(content: PageContent, rows: PageRows) -> str:
    counts = content.summary.counts
    unsettled, listed = counts.failed + counts.in_doubt + counts.unattempted, len(rows.plain)
    table = Table(
        title="Rows",
        script="rows.js",
        data=columns(rows.kept),
        shown=len(rows.kept),
        total=rows.total,
        which=", those that did not succeed first",
        command="batch-snapshot report … --csv FOLDER",
        choice="Status",
        searched="engagement, resource, message",
        plain_note=f"the {f'first {listed:,} of ' if unsettled > listed else ''}{unsettled:,} rows that did "
        "not succeed",
        plain_head=("Status", "Account", "Engagement", "Resource", "Error"),
        plain=[
            (one.status, (_words(one.status), one.row.account, one.row.engagement, one.row.resource, error))
            for one, error in rows.plain
        ],
        explained="Wait + call: from the row's turn until its first call left, which takes a permit; and "
        "from then to its end, further tries included.",
    )
    return render_table(title(content), sections(content), table, content.made_at)


def render_table(title: str, sections: Mapping[str, str], table: Table, made_at: datetime) -> str:
    """Render a page of `sections`, each as HTML, and a table; it loads nothing."""
    style, script = page_files("page.js", "table.js", table.script)
    return template("page.html").render(
        title=title,
        sections=sections,
        events="",
        table=table,
        data=packed(table.data),
        made_at=made_at,
        version=__version__,
        style=style,
        script=script,
        policy=policy(style, script),
    )


def render_live(
    title: str, parts: Mapping[str, str], events: str, links: Mapping[str, str], **control: Any
) -> tuple[str, str]:
    """Render a page whose parts follow the `events` of that address; returns its security policy too.

    `control` is the address that takes commands to the run (empty: none), and the run's `accounts`.
    """
    style, script = page_files("page.js", "live.js")
    page = template("page.html").render(
        title=title,
        sections={name: Markup(part) for name, part in parts.items()},  # noqa: S704 - made by a template
        events=events,
        table=None,
        links=links,
        **control,
        made_at=utc_now(),
        version=__version__,
        style=style,
        script=script,
    )
    return page, policy(style, script) + "; connect-src 'self'; frame-ancestors 'none'"


def title(content: PageContent) -> str:
    result, counts = content.summary.result, content.summary.counts
    return f"{content.header.name}: {result}, {counts.succeeded:,} of {counts.total:,} rows succeeded"


def sections(content: PageContent) -> dict[str, str]:
    """The parts of the page before its table of rows, by name, each as HTML."""
    module = template("sections.html").make_module(_values(content))
    return {name: getattr(module, f"part_{name}")() for name in SECTIONS}


def _values(content: PageContent) -> dict[str, Any]:
    summary, stats, header, counts = content.summary, content.stats, content.header, content.summary.counts
    left = content.frame.left if content.frame else None
    known = left is not None and left < LONGEST_LEFT
    drawn = [
        *charts.over_time(stats.invocations, content.allowed),
        charts.latency(stats.latencies),
        charts.attempts(stats.attempts),
    ]
    several = len(content.accounts) > 1
    a_day = _calls_a_day(content)
    failing = charts.failures_by_account(stats.failed_minutes) if several else None
    groups = [
        (group, content.groups[group], advice(group), remedy(group, summary.ledger, summary.settings))
        for group, _ in largest_first({group: found.rows for group, found in content.groups.items()})
    ]
    return {
        "content": content,
        "summary": summary,
        "stats": stats,
        "header": header,
        "badge": badge(summary),
        "finished": None if summary.outcome == "running" else stats.invocations[-1].ended,
        "counts": counts,
        # Percentages of all rows, without zeros.
        "shares": {name: rows / counts.total * 100 for name, rows in counts.as_dict().items() if rows},
        "groups": groups,
        "accounts": _accounts(content),
        "calls": sum((each.calls for each in stats.invocations), Counter()),
        "throttled": sum((each.throttled for each in stats.invocations), Counter()),
        "charts": [chart for chart in drawn if chart],
        "failing": failing,
        "calendar": _calendar(content, a_day),
        "a_day": a_day,
        "most_in_a_day": {name: charts.most_in_a_day(hours) for name, hours in stats.hours.items()},
        "windows": _windows(content),
        # Seconds until a run ends, and when that is.
        "left": left if known else None,
        "ends": _minute(content.made_at + timedelta(seconds=left)) if left is not None and known else "",
        "most_windows": MOST_WINDOWS,
        "changes": SHOWN,
        "change_text": change_text,
        "kinds": KIND_TEXTS,
    }


def _accounts(content: PageContent) -> list[tuple[str, Counter[str]]]:
    """The accounts as the manifest has them; of very many those in which the most rows failed."""
    places = {name: place for place, name in enumerate(content.header.accounts)}
    accounts = sorted(content.accounts.items(), key=lambda item: places.get(item[0], len(places)))
    if len(accounts) > MOST_ACCOUNTS:
        accounts.sort(key=lambda item: -item[1]["failed"] - item[1]["in_doubt"])
    return accounts[:MOST_ACCOUNTS]


def badge(summary: Summary) -> str:
    """How the outcome is coloured: good, mixed, bad or going."""
    if summary.result == "completed":
        return "good"
    return {"running": "going", "stopped": "bad", "crashed": "bad"}.get(summary.outcome, "mixed")


def _calls_a_day(content: PageContent) -> dict[str, int]:
    """By account that has such a quota: calls that are allowed in any 24 hours."""
    found = ((name, window) for name, account in content.quotas.items() for window in windows(account.quota))
    return {name: window.limit for name, window in found if window.seconds == DAY}


def _calendar(content: PageContent, a_day: Mapping[str, int]) -> charts.HeatMap | None:
    """The calls by day and hour, if an account has quota windows."""
    hours: Counter[int] = sum(content.stats.hours.values(), Counter())
    if not hours or not any(windows(account.quota) for account in content.quotas.values()):
        return None
    every = all(name in a_day for name in content.quotas)
    return charts.calendar(hours, sum(a_day.values()) if every else 0)


def _windows(content: PageContent) -> list[tuple[str, str, int, int, str]]:
    """The quota windows now: account, window, calls used, its limit, and when it opens; the fullest first."""

    def opens(seconds: float) -> str:
        if not seconds:
            return "open"
        at = "never" if isinf(seconds) else _minute(content.made_at + timedelta(seconds=seconds + 59))
        return f"opens {at}"

    found = [
        (name, window.name, used, window.limit, opens(opens_in))
        for name, known in content.forecasts.items()
        for window, used, opens_in in zip(known.windows, known.used, known.opens_in, strict=True)
    ]
    return sorted(found, key=lambda each: -each[2] / max(1, each[3]))


def template(name: str) -> jinja2.Template:
    return _environment().get_template(name)


def page_files(*scripts: str) -> tuple[Markup, Markup]:
    return Markup(_file("page.css")), Markup("\n".join(map(_file, scripts)))  # noqa: S704 - our own files


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_file),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": "{:,}".format,
        "amount": charts.amount,
        "percent": _percent,
        "span": duration,
        "moment": _moment,
        "minute": _minute,
        "words": _words,
    }
    return environment


def _file(name: str) -> str:
    return files(__package__).joinpath("templates", name).read_text("utf-8")


def policy(style: str, script: str) -> str:
    """The Content-Security-Policy: nothing is loaded, and only our own style and script are used."""
    return (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _percent(share: float) -> str:
    """Neither 0 % for some nor 100 % for less than all."""
    return f"{min(max(share, 0.1), 99.9):.1f}\u00a0%" if 0 < share < 100 else f"{share:.0f}\u00a0%"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _moment(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def _minute(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

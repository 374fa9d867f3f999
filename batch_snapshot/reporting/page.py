"""The report as a page: what it says before its table of rows, and that table; live, as its ledger grows."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from math import isinf
from pathlib import Path
from typing import Any

from batch_snapshot import manifest
from batch_snapshot.clock import utc_now
from batch_snapshot.config.accounts import accounts_with_quotas
from batch_snapshot.engine.limits import AccountForecast
from batch_snapshot.errors import BatchSnapshotError, InputError, LedgerError
from batch_snapshot.ledger import prune
from batch_snapshot.ledger.diff import SHOWN, Difference, change_text, diff
from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.ledger.records import Header
from batch_snapshot.models import ErrorKind, Row, Skip, Status
from batch_snapshot.ratelimit.windows import DAY, windows
from batch_snapshot.redaction import redacted
from batch_snapshot.reporting import charts, html, report
from batch_snapshot.reporting.display import Frame
from batch_snapshot.reporting.entries import UNATTEMPTED, ReportEntry
from batch_snapshot.reporting.status import LedgerWatch
from batch_snapshot.reporting.summary import advice, largest_first
from batch_snapshot.text import plural, truncated

#: The parts of the page, in this order.
SECTIONS = (
    *("header", "now", "outcome", "failures", "difference", "course", "quotas", "accounts"),
    "invocations",
)
#: Seconds: a time left beyond this is not shown.
LONGEST_LEFT = 366 * 86_400.0
#: Rows of the table of accounts, and of the table of windows.
MOST_ACCOUNTS, MOST_WINDOWS = 500, 20
#: In the order in which people want to see the rows.
STATUSES = ("failed", "in_doubt", UNATTEMPTED, "succeeded", *(reason.value for reason in Skip))


def write(data: report.ReportData, file: Path, now: datetime) -> None:
    page = render(data, now)
    with report.replacing(data, file) as out:
        out.write(page)


def render(data: report.ReportData, now: datetime) -> str:
    rows, counts = PageRows(), data.summary.counts
    for entry in data.entries():
        rows.add(entry)
    data.accounts, data.groups, data.difference = rows.accounts, rows.groups, _difference(data)
    return html.render_table(
        "report.html",
        now,
        columns(rows.kept),
        script="rows.js",
        page=title(data),
        sections=sections(data, now),
        total=rows.total,
        unsettled=counts.failed + counts.in_doubt + counts.unattempted,
        plain=rows.plain,
    )


def title(data: report.ReportData) -> str:
    name, result, counts = data.watch.header.name, data.summary.result, data.summary.counts
    return f"{name}: {result}, {counts.succeeded:,} of {plural(counts.total, 'row')} succeeded"


def sections(data: report.ReportData, now: datetime) -> dict[str, str]:
    """The parts of the page before its table of rows, by name, each as HTML."""
    summary, stats = data.summary, data.watch.stats
    quotas = accounts_with_quotas(data.watch.path, data.watch.header)
    limits = {name: windows(account.quota) for name, account in quotas.items()}
    a_day = {name: one.limit for name, known in limits.items() for one in known if one.seconds == DAY}
    hours: Counter[int] = sum(stats.hours.values(), Counter())
    per_day = sum(a_day.values()) if len(a_day) == len(quotas) else 0
    allowed = [
        None if each.rates else allowed_rate(data.watch.path, each.header) for each in stats.invocations
    ]
    if data.allowed_now and not stats.invocations[-1].rates:
        allowed[-1] = allowed[-1] or data.allowed_now[0]
    left = data.frame.left if data.frame else None
    left = left if left is not None and left < LONGEST_LEFT else None
    module = html.template("sections.html").make_module(
        {
            "data": data,
            "now": now,
            "groups": [
                (group, data.groups[group], advice(group), summary.remedy(group))
                for group, _ in largest_first({group: found.rows for group, found in data.groups.items()})
            ],
            "accounts": _accounts(data),
            "calls": sum((each.calls for each in stats.invocations), Counter()),
            "throttled": sum((each.throttled for each in stats.invocations), Counter()),
            "over_time": charts.over_time(stats.invocations, allowed),
            "latency": charts.latency(stats.latencies),
            "attempts": charts.attempts(stats.attempts),
            "failing": charts.failures_by_account(stats.failed_minutes) if len(data.accounts) > 1 else None,
            "calendar": charts.calendar(hours, per_day) if hours and any(limits.values()) else None,
            # By account: calls that are allowed in any 24 hours, and the most that there were.
            "a_day": a_day,
            "most_in_a_day": {name: charts.most_in_a_day(each) for name, each in stats.hours.items()},
            "windows": _windows(data, now),
            # Seconds until a run ends, and when that is: in minutes, rounded up as on terminals.
            "left": left,
            "ends": None if left is None else now + timedelta(seconds=left + 59),
            "most_windows": MOST_WINDOWS,
            "changes": SHOWN,
            "change_text": change_text,
        }
    )
    return {name: getattr(module, f"part_{name}")() for name in SECTIONS}


def _accounts(data: report.ReportData) -> list[tuple[str, Counter[str]]]:
    """The accounts as the manifest has them; of very many those in which the most rows failed."""
    places = {name: place for place, name in enumerate(data.watch.header.accounts)}
    accounts = sorted(data.accounts.items(), key=lambda item: places.get(item[0], len(places)))
    if len(accounts) > MOST_ACCOUNTS:
        accounts.sort(key=lambda item: -item[1]["failed"] - item[1]["in_doubt"])
    return accounts[:MOST_ACCOUNTS]


def _windows(data: report.ReportData, now: datetime) -> list[tuple[str, str, int, int, str]]:
    """The quota windows now: account, window, calls used, its limit, and when it opens; the fullest first."""

    def opens(seconds: float) -> str:
        if not seconds:
            return "open"
        return f"opens {'never' if isinf(seconds) else html.minute(now + timedelta(seconds=seconds + 59))}"

    found = [
        (name, window.name, used, window.limit, opens(opens_in))
        for name, known in data.forecasts.items()
        for window, used, opens_in in zip(known.windows, known.used, known.opens_in, strict=True)
    ]
    return sorted(found, key=lambda each: -each[2] / max(1, each[3]))


def allowed_rate(path: Path, header: Header, changed: Mapping[str, float] | None = None) -> float | None:
    """Declared calls a second of all accounts together; None: not all of them declare one.

    `changed` are rates by account that were declared since.
    """
    rates = [account.quota.per_second for account in accounts_with_quotas(path, header, changed).values()]
    return sum(filter(None, rates)) if rates and None not in rates else None


def _difference(data: report.ReportData) -> Difference | None:
    """What changed since the ledger before it; None: there is none, or it cannot be read."""
    path, first = data.watch.path, data.watch.stats.history.first or data.watch.header
    with suppress(InputError):
        earlier = [
            one
            for one in prune.ledgers_in(path.parent)
            if one.series == (first.name, first.endpoint) and one.started_at < first.started_at
        ]
        try:
            return diff(max(earlier, key=lambda one: one.started_at).path, path) if earlier else None
        except LedgerError as error:
            data.notes.append(f"The ledger before this one cannot be compared with it ({error}).")
    return None


# -- its rows ------------------------------------------------------------------------------------------


class PageRows:
    """The rows of a page: counts of all, and as many for the table as it holds."""

    def __init__(self, most: int = html.MOST_ROWS) -> None:
        self.total = 0
        self.groups: dict[FailureGroup, report.FailureMessages] = {}
        self.accounts: dict[str, Counter[str]] = {}
        self._most = most
        self._kept: dict[str, list[ReportEntry]] = {status: [] for status in STATUSES}

    def add(self, entry: ReportEntry) -> None:
        self.total += 1
        self.accounts.setdefault(entry.row.account, Counter())[entry.status] += 1
        if entry.status in {Status.FAILED, Status.IN_DOUBT}:
            group = FailureGroup(Status(entry.status), entry.kind or ErrorKind.UNKNOWN, entry.code)
            self.groups.setdefault(group, report.FailureMessages()).add(entry)
        if len(self._kept[entry.status]) < self._most:
            self._kept[entry.status].append(entry)

    @property
    def kept(self) -> list[ReportEntry]:
        return [entry for status in STATUSES for entry in self._kept[status]][: self._most]

    @property
    def plain(self) -> list[tuple[str, tuple[str, ...]]]:
        """The status and cells of rows that did not succeed, for readers without JavaScript."""
        shown = [(entry, entry.row) for status in STATUSES[:3] for entry in self._kept[status]]
        return [
            (one.status, (html.words(one.status), row.account, row.engagement, row.resource, _error(one)))
            for one, row in shown[: html.PLAIN_ROWS]
        ]


def columns(entries: Sequence[ReportEntry]) -> dict[str, Any]:
    since = min((entry.finished_at for entry in entries if entry.finished_at), default=None)
    texts = {
        **{name: [getattr(entry.row, name) for entry in entries] for name in Row._fields},
        "error": [_error(entry) for entry in entries],
        "request": [(entry.request_id or "") if entry.code or entry.message else "" for entry in entries],
        "arn": [entry.arn or "" for entry in entries],
    }
    return {
        "rows": len(entries),
        "statuses": STATUSES,
        "since": round(since.timestamp() * 1000) if since else 0,
        "texts": {name: html.numbered(column) for name, column in texts.items()},
        "numbers": {
            "status": [STATUSES.index(entry.status) for entry in entries],
            "revision": [entry.revision or 0 for entry in entries],
            "attempts": [entry.attempts for entry in entries],
            "throttles": [entry.throttles for entry in entries],
            "waited": [_milliseconds(entry.started_at, _first_call(entry)) for entry in entries],
            "called": [
                _milliseconds(_first_call(entry) or entry.started_at, entry.finished_at) for entry in entries
            ],
            "finished": [_milliseconds(since, entry.finished_at) for entry in entries],
            "looked": [int(entry.reconciled) for entry in entries],
        },
    }


def _error(entry: ReportEntry) -> str:
    reason = f" ({entry.reason})" if entry.reason else ""
    words = f"{entry.code}: {entry.message}{reason}" if entry.code or entry.message else ""
    return truncated(words, html.LONGEST_MESSAGE)


def _first_call(entry: ReportEntry) -> datetime | None:
    """When the row's first call left; None: not known, or in an earlier invocation."""
    sent, started = entry.first_sent_at, entry.started_at
    return sent if sent and started and sent >= started else None


def _milliseconds(since: datetime | None, moment: datetime | None) -> int:
    """From `since` to `moment`; -1: not known."""
    return -1 if moment is None or since is None else max(0, round((moment - since).total_seconds() * 1000))


# -- live ----------------------------------------------------------------------------------------------

#: The title of a page, and its parts as HTML by name.
View = tuple[str, dict[str, str]]


class LedgerView:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: int | None = None
        self._watch = LedgerWatch(path)
        #: Rows of the manifest by account; empty: not known.
        self._rows: Mapping[str, int] = {}
        self._invocations = 0

    def read(self) -> View:
        try:
            found = self._path.stat().st_ino if self._path.exists() else None
            if found != self._file:
                self._watch, self._file, self._invocations = LedgerWatch(self._path), found, 0
            self._watch.refresh()
            if self._invocations != (number := len(self._watch.stats.invocations)):
                self._invocations, self._rows = number, _rows_of_accounts(self._watch)
            data = self._data()
            return title(data), sections(data, utc_now())
        except (BatchSnapshotError, OSError) as error:
            self._file = None
            return message(f"{self._path.name} cannot be read", str(error))

    def _data(self) -> report.ReportData:
        """The data of the page. Its messages are examples, and not counted."""
        watch, stats = self._watch, self._watch.stats
        summary = watch.summary()
        groups = {}
        for group, number in summary.failures.items():
            messages = [redacted(example.message) for example in summary.examples.get(group, ())]
            groups[group] = report.FailureMessages(number, messages=Counter(dict.fromkeys(messages, 0)))
        accounts = {
            name: Counter({status.value: number for status, number in rows.statuses.items()})
            for name, rows in stats.accounts.items()
        }
        for name, number in self._rows.items():
            states = accounts.setdefault(name, Counter())
            states["unattempted"] = max(0, number - states.total())
        left = {name: states["unattempted"] + states["in_doubt"] for name, states in accounts.items()}
        data = report.ReportData(watch, summary, watch.forecasts(left), accounts=accounts, groups=groups)
        if watch.running:
            data.frame = _with_end(watch.frame(), data.forecasts if self._rows else {})
            declared = allowed_rate(self._path, watch.header, stats.invocations[-1].rates)
            data.allowed_now = _allowed_now(data.forecasts) or ((declared, "declared") if declared else None)
        return data


def message(page: str, text: str) -> View:
    parts = dict.fromkeys(SECTIONS, "")
    return page, parts | {"header": html.template("message.html").render(title=page, text=redacted(text))}


def _rows_of_accounts(watch: LedgerWatch) -> Mapping[str, int]:
    """How many rows of each account the run has, by its manifest; empty: not known."""
    with suppress(BatchSnapshotError):
        rows = Counter(row.account for row in manifest.rows(report.manifest_of(watch)))
        return rows if rows.total() == watch.header.rows and watch.header.command == "run" else {}
    return {}


def _with_end(frame: Frame, forecasts: Mapping[str, AccountForecast]) -> Frame:
    """The frame with the time that is left, waits for quota windows included, as far as rates are known."""
    if _allowed_now(forecasts) is None:
        return frame
    left = max(known.forecast.ends_in for known in forecasts.values())
    deferred = sum(known.forecast.deferred for known in forecasts.values())
    spent = any(opens for known in forecasts.values() for opens in known.opens_in)
    # Where a window is or will be spent, the last minute's rate says nothing.
    left = left if spent or deferred else max(left, frame.left or 0.0)
    return replace(frame, left=left, deferred=deferred)


def _allowed_now(forecasts: Mapping[str, AccountForecast]) -> tuple[float, str] | None:
    """Calls a second of all accounts together, declared or learned; None: not known."""
    bases = {known.basis for known in forecasts.values()}
    if not bases or not bases <= {"declared", "learned"}:
        return None
    return sum(known.rate for known in forecasts.values()), " and ".join(sorted(bases))

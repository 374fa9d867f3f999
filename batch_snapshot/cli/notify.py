"""Notifications of a run, at its end and during it: webhook, SNS topic, metrics. A failure is a warning."""

import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from batch_snapshot import endpoints, interrupts, models
from batch_snapshot.cli import terminal
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import BatchSnapshotError, InputError, file_errors
from batch_snapshot.notify import metrics, notice, sns, webhook
from batch_snapshot.notify.notice import Notice
from batch_snapshot.redaction import redacted, redacted_all
from batch_snapshot.reporting.progress import ProgressMeter, RunView
from batch_snapshot.reporting.summary import Summary

#: Seconds for the messages, their retries included.
MESSAGE_TIMEOUT = 30.0
#: Seconds between two messages while the run goes on.
SHORTEST_INTERVAL = 1.0


class Notifiers:
    """Notifies of a run of `command`; `subject` is the manifest or ledger that the command line names."""

    def __init__(self, command: str, subject: Path, given: Mapping[str, Any]) -> None:
        self._command, self._subject, self._profile = command, str(subject), given["profile"]
        self._webhook, self._topic = webhook_url(given["notify_webhook"]), topic_arn(given["notify_sns"])
        self._metrics_file = metrics_file(given["metrics_file"])
        # The calls go to another endpoint than AWS's: then SNS is called only if its endpoint is named.
        named = given["endpoint_url"] or endpoints.environment_endpoint(os.environ)
        self._elsewhere = given["simulate"] is not None or bool(named)
        #: Seconds between two messages while the run goes on; None: only at its end.
        self._every: float | None = given["notify_every"]
        if self._every is not None and self._every < SHORTEST_INTERVAL:
            raise InputError(f"--notify-every: give at least {SHORTEST_INTERVAL:g} s, such as 6h")
        if self._every is not None and not (self._webhook or self._topic):
            raise InputError("--notify-every: say where to with --notify-webhook or --notify-sns")

    async def send_progress(self, view: RunView) -> None:
        """Send the progress of the run until this is cancelled."""
        meter = ProgressMeter(view)
        while self._every is not None:
            await anyio.sleep(self._every)
            message = notice.of_progress(meter.frame(utc_now()), self._command, str(view.ledger))
            await self._send(replace(message, text=redacted(message.text)), view.endpoint)

    def run_ended(self, summary: Summary) -> None:
        self._notify(notice.of_summary(summary), summary.endpoint, messages=bool(summary.accounts))

    def run_failed(self, error: BatchSnapshotError) -> None:
        if self._webhook or self._topic or self._metrics_file:
            self._notify(notice.of_error(error, self._command, self._subject), models.AWS)

    def _notify(self, told: Notice, endpoint: str, *, messages: bool = True) -> None:
        told = replace(told, text=redacted(told.text), error=told.error and redacted(told.error))
        push = metrics.wanted(os.environ)
        values = notice.gauges(told, time.time()) if self._metrics_file or push else []
        if self._metrics_file:
            with _attempt("--metrics-file"):
                _warn(metrics.write(self._metrics_file, values))
        if push:
            with _attempt("OpenTelemetry"):
                _warn(metrics.push(values, os.environ))
        if messages and (self._webhook or self._topic):
            # The run is over: an interrupt now does not change how it ended.
            try:
                interrupts.run(self._send(told, endpoint))
            except KeyboardInterrupt:
                terminal.warn(["interrupted: not every notification was sent"])

    async def _send(self, told: Notice, endpoint: str) -> None:
        async def send(name: str, work: Callable[[], Awaitable[str | None]]) -> None:
            with _attempt(name), anyio.fail_after(MESSAGE_TIMEOUT):
                _warn(await work())

        elsewhere = self._elsewhere or endpoint != models.AWS
        async with anyio.create_task_group() as group:
            if self._webhook:
                post = partial(webhook.send, self._webhook, redacted_all(notice.as_json(told)))
                group.start_soon(send, "--notify-webhook", post)
            if self._topic and elsewhere and not os.environ.get(sns.ENDPOINT):
                why = "not published: the calls went to an endpoint other than AWS"
                how = f"name the endpoint of SNS with {sns.ENDPOINT}"
                _warn(f"--notify-sns {self._topic}: {why}; {how}")
            elif self._topic:
                group.start_soon(send, "--notify-sns", partial(sns.publish, self._topic, told, self._profile))


@contextmanager
def _attempt(name: str) -> Iterator[None]:
    """Warn of what fails: the run is over and keeps its outcome."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - its message may quote a secret
        _warn(f"{name}: failed ({type(error).__name__}); the run is not affected")


def _warn(text: str | None) -> None:
    terminal.warn([text] if text else [])


def webhook_url(url: str | None) -> str | None:
    """Check `--notify-webhook`; it is a secret, and so not quoted."""
    if url and not (endpoints.is_url(url) and url.isascii()):
        raise InputError(
            "--notify-webhook (or $BATCH_SNAPSHOT_NOTIFY_WEBHOOK): give a URL that begins with https://"
        )
    return url or None


def topic_arn(arn: str | None) -> str | None:
    if arn is not None and not re.fullmatch(
        r"arn:aws(-[a-z]+)*:sns:[a-z]+(-[a-z]+)+-[0-9]{1,2}:[0-9]{12}:(?=.{1,256}$)[A-Za-z0-9_-]+(\.fifo)?",
        arn,
    ):
        raise InputError(
            f"--notify-sns {arn}: give a topic's ARN, such as arn:aws:sns:us-east-1:123456789012:nightly"
        )
    return arn


def metrics_file(path: Path | None) -> Path | None:
    """Check `--metrics-file`, as far as that can be done before there are metrics."""
    if path is None:
        return None
    flag = f"--metrics-file {path}"
    if not path.parent.is_dir():
        raise InputError(f"{flag}: there is no folder {path.parent}: make it first")
    if path.exists() and not path.is_file():
        raise InputError(f"{flag}: is a folder or a device: name a file")
    with file_errors(flag, "name a file in a folder that you can write", InputError):
        if path.exists():
            with path.open("rb") as file:
                if file.read(7) not in {b"", b"# HELP ", b"# TYPE "}:
                    # A manifest or a ledger, say: it would be replaced.
                    raise InputError(f"{flag}: the file exists and holds no metrics: name another")
        # As `metrics` does it: the file is written under a longer name, and then renamed.
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent):
            pass
    return path

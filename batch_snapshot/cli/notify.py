"""Notifications of a run, at its end and on the way: webhook, SNS topic, metrics. What fails is a warning."""

import os
import re
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from batch_snapshot import endpoints, interrupts, models, redaction
from batch_snapshot.cli import terminal
from batch_snapshot.errors import BatchSnapshotError, InputError

if TYPE_CHECKING:
    from batch_snapshot.jobs.run import Hooks
    from batch_snapshot.notify.notice import Notice
    from batch_snapshot.reporting.progress import RunView
    from batch_snapshot.reporting.summary import Summary

#: Seconds for the messages, their retries included.
MESSAGE_TIMEOUT = 30.0
#: Seconds between two messages while the run goes on.
SHORTEST_INTERVAL = 1.0


class Notifiers(NamedTuple):
    """Where notifications go, and about which command."""

    command: str
    #: The manifest or ledger that the command line names.
    subject: str
    webhook: str | None
    topic: str | None
    metrics_file: Path | None
    profile: str | None
    #: The calls go to another endpoint than AWS's: then SNS is called only if its endpoint is named.
    elsewhere: bool
    #: Seconds between two messages while the run goes on; None: only at its end.
    every: float | None = None

    def hooks(self, hooks: "Hooks") -> "Hooks":
        """The hooks, which also send how the run goes on."""
        inner, every = hooks.watch, self.every
        if every is None:
            return hooks

        async def watch(view: "RunView") -> None:
            import anyio

            async with anyio.create_task_group() as tasks:
                if inner is not None:
                    tasks.start_soon(inner, view)
                await self._send_progress(view, every)

        return replace(hooks, watch=watch)

    async def _send_progress(self, view: "RunView", every: float) -> None:
        import anyio

        from batch_snapshot.clock import utc_now
        from batch_snapshot.notify import notice
        from batch_snapshot.reporting.progress import ProgressMeter

        meter = ProgressMeter(view)
        while True:
            await anyio.sleep(every)
            message = notice.of_progress(meter.frame(utc_now()), self.command, str(view.ledger))
            message = replace(message, text=redaction.redacted(message.text))
            warnings: list[str | None] = []
            await self._send(message, warnings, elsewhere=self.elsewhere or view.endpoint != models.AWS)
            terminal.warn([warning for warning in warnings if warning])

    def run_ended(self, summary: "Summary") -> None:
        """Send how a run ended; messages only if there was something to do."""
        from batch_snapshot.notify import notice

        self._notify(
            notice.of_summary(summary),
            messages=bool(summary.accounts),
            elsewhere=self.elsewhere or summary.endpoint != models.AWS,
        )

    def run_failed(self, error: BatchSnapshotError) -> None:
        if self.webhook or self.topic or self.metrics_file:
            from batch_snapshot.notify import notice

            failure = notice.of_error(error, self.command, self.subject)
            self._notify(failure, messages=True, elsewhere=self.elsewhere)

    def _notify(self, notice: "Notice", *, messages: bool, elsewhere: bool) -> None:
        from batch_snapshot.notify import metrics
        from batch_snapshot.notify.notice import gauges

        error = notice.error and redaction.redacted(notice.error)
        notice = replace(notice, text=redaction.redacted(notice.text), error=error)
        warnings: list[str | None] = []
        push = metrics.wanted(os.environ)
        values = gauges(notice, time.time()) if self.metrics_file or push else []
        if self.metrics_file:
            warnings.append(_attempt("--metrics-file", partial(metrics.write, self.metrics_file, values)))
        if push:
            warnings.append(_attempt("OpenTelemetry", partial(metrics.push, values, os.environ)))
        if messages and (self.webhook or self.topic):
            # An interrupt meanwhile is none of the run, which is over.
            try:
                interrupts.run(self._send(notice, warnings, elsewhere=elsewhere))
            except KeyboardInterrupt:
                warnings.append("interrupted: not every notification was sent")
        terminal.warn([warning for warning in warnings if warning])

    async def _send(self, notice: "Notice", warnings: list[str | None], *, elsewhere: bool) -> None:
        import anyio

        async def send(name: str, work: Callable[[], Awaitable[str | None]]) -> None:
            try:
                with anyio.fail_after(MESSAGE_TIMEOUT):
                    warnings.append(await work())
            except Exception as error:  # noqa: BLE001 - the run is over and keeps its outcome
                warnings.append(_failed(name, error))

        async with anyio.create_task_group() as group:
            if self.webhook:
                group.start_soon(send, "--notify-webhook", partial(self._post, self.webhook, notice))
            if self.topic:
                publish = partial(self._publish, self.topic, notice, elsewhere=elsewhere)
                group.start_soon(send, "--notify-sns", publish)

    async def _post(self, url: str, notice: "Notice") -> str | None:
        from batch_snapshot.notify import webhook
        from batch_snapshot.notify.notice import as_json

        return await webhook.send(url, redaction.redacted_all(as_json(notice)))

    async def _publish(self, arn: str, notice: "Notice", *, elsewhere: bool) -> str | None:
        from batch_snapshot.notify import sns

        if elsewhere and not os.environ.get(sns.ENDPOINT):
            return (
                f"--notify-sns {arn}: not published: the calls went to another endpoint than AWS; "
                f"name the endpoint of SNS with {sns.ENDPOINT}"
            )
        return await sns.publish(arn, notice, self.profile)


def _attempt(name: str, work: Callable[[], str | None]) -> str | None:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the run is over and keeps its outcome
        return _failed(name, error)


def _failed(name: str, error: Exception) -> str:
    # Its message may quote a secret.
    return f"{name}: failed ({type(error).__name__}); the run is not affected"


def notifiers(command: str, subject: Path, given: Mapping[str, Any]) -> Notifiers:
    """Where the flags send notifications."""
    return Notifiers(
        command,
        str(subject),
        webhook_url(given["notify_webhook"]),
        topic_arn(given["notify_sns"]),
        metrics_file(given["metrics_file"]),
        given["profile"],
        elsewhere=bool(
            given["simulate"] is not None
            or given["endpoint_url"]
            or endpoints.environment_endpoint(os.environ)
        ),
        every=_interval(given),
    )


def _interval(given: Mapping[str, Any]) -> float | None:
    every: float | None = given["notify_every"]
    if every is None:
        return None
    if every < SHORTEST_INTERVAL:
        raise InputError(f"--notify-every: give at least {SHORTEST_INTERVAL:g} s, such as 6h")
    if not (given["notify_webhook"] or given["notify_sns"]):
        raise InputError("--notify-every: say where to with --notify-webhook or --notify-sns")
    return every


def webhook_url(url: str | None) -> str | None:
    """Check `--notify-webhook`; it is a secret, and so not quoted."""
    if not url:
        return None
    if not (endpoints.is_url(url) and url.isascii()):
        raise InputError(
            "--notify-webhook (or $BATCH_SNAPSHOT_NOTIFY_WEBHOOK): give a URL that begins with https://"
        )
    return url


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
    try:
        if path.exists():
            with path.open("rb") as file:
                begins = file.read(7)
            if begins not in {b"", b"# HELP ", b"# TYPE "}:
                # A manifest or a ledger, say: it would be replaced.
                raise InputError(f"{flag}: the file exists and holds no metrics: name another")
        # As `metrics` does it: the file is written under a longer name, and then renamed.
        with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent):
            pass
    except OSError as error:
        why = error.strerror or error
        raise InputError(
            f"{flag}: cannot be written ({why}): name a file in a folder that you can write"
        ) from None
    return path

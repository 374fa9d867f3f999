"""Tells others how a run ended. Whatever fails here is a warning: the run keeps its outcome."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from batch_snapshot import endpoints, interrupts, models, redaction
from batch_snapshot.cli import options, terminal

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from batch_snapshot.errors import BatchSnapshotError
    from batch_snapshot.notify.notice import Notice
    from batch_snapshot.reporting.summary import Summary

#: Seconds for the messages, their retries included.
MESSAGES = 30.0


class Notifiers(NamedTuple):
    """Who is told, and from where."""

    command: str
    #: The manifest or ledger that the command line names.
    subject: str
    webhook: str | None
    topic: str | None
    metrics_file: Path | None
    profile: str | None
    #: The calls go to no AWS service: none is called for a message either, unless its endpoint is named.
    elsewhere: bool

    def of_summary(self, summary: Summary) -> None:
        """Tell what a run came to; messages only if there was something to do."""
        from batch_snapshot.notify import notice

        self._tell(
            notice.of_summary(summary),
            messages=bool(summary.accounts),
            elsewhere=self.elsewhere or summary.endpoint != models.AWS,
        )

    def of_error(self, error: BatchSnapshotError) -> None:
        """Tell why a run did not begin, or could not go on."""
        if self.webhook or self.topic or self.metrics_file:
            from batch_snapshot.notify import notice

            told = notice.of_error(error, self.command, self.subject)
            self._tell(told, messages=True, elsewhere=self.elsewhere)

    def _tell(self, notice: Notice, *, messages: bool, elsewhere: bool) -> None:
        error = notice.error and redaction.redacted(notice.error)
        notice = replace(notice, text=redaction.redacted(notice.text), error=error)
        failed = self._count(notice)
        if messages and (self.webhook or self.topic):
            failed += self._send(notice, elsewhere=elsewhere)
        terminal.warn(failed, len(failed))

    def _count(self, notice: Notice) -> list[str]:
        from batch_snapshot.notify import metrics
        from batch_snapshot.notify import notice as room

        pushed = metrics.wanted(os.environ)
        if not (self.metrics_file or pushed):
            return []
        gauges = [
            gauge._replace(
                values={tuple(map(redaction.redacted, key)): value for key, value in gauge.values.items()}
            )
            for gauge in room.gauges(notice, time.time())
        ]
        failures = []
        if self.metrics_file:
            failures.append(_guarded("--metrics-file", partial(metrics.write, self.metrics_file, gauges)))
        if pushed:
            failures.append(_guarded("OpenTelemetry", partial(metrics.push, gauges, os.environ)))
        return [failure for failure in failures if failure]

    def _send(self, notice: Notice, *, elsewhere: bool) -> list[str]:
        failures: list[str | None] = []
        # An interrupt while others are told is no interrupt of the run.
        try:
            interrupts.run(self._send_all(notice, failures, elsewhere=elsewhere))
        except KeyboardInterrupt:
            failures.append("interrupted: not everybody was told")
        return [failure for failure in failures if failure]

    async def _send_all(self, notice: Notice, failures: list[str | None], *, elsewhere: bool) -> None:
        import anyio

        async def tell(who: str, work: Callable[[], Awaitable[str | None]]) -> None:
            try:
                with anyio.fail_after(MESSAGES):
                    failures.append(await work())
            except Exception as error:  # noqa: BLE001 - the run is over and keeps its outcome
                failures.append(_failed(who, error))

        async with anyio.create_task_group() as group:
            if self.webhook:
                group.start_soon(tell, "--notify-webhook", partial(self._post, self.webhook, notice))
            if self.topic:
                group.start_soon(
                    tell, "--notify-sns", partial(self._publish, self.topic, notice, elsewhere=elsewhere)
                )

    async def _post(self, url: str, notice: Notice) -> str | None:
        from batch_snapshot.notify import notice as room
        from batch_snapshot.notify import webhook

        return await webhook.send(url, redaction.redacted_all(room.as_json(notice)))

    async def _publish(self, arn: str, notice: Notice, *, elsewhere: bool) -> str | None:
        from batch_snapshot.notify import sns

        if elsewhere and not os.environ.get(sns.ENDPOINT):
            return (
                f"--notify-sns {arn}: not published: the calls went to another endpoint, and AWS is not "
                f"called then; name SNS's own with {sns.ENDPOINT}"
            )
        return await sns.publish(arn, notice, self.profile)


def _guarded(who: str, work: Callable[[], str | None]) -> str | None:
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - the run is over and keeps its outcome
        return _failed(who, error)


def _failed(who: str, error: Exception) -> str:
    # What it says may quote a secret.
    return f"{who}: failed ({type(error).__name__}); the run is not affected"


def others(command: str, subject: Path, given: Mapping[str, Any]) -> Notifiers:
    """Read from the flags who is told.

    Raises:
        InputError: a URL, ARN or folder can't be one; nothing was called.
    """
    return Notifiers(
        command,
        str(subject),
        options.webhook_url(given["notify_webhook"]),
        options.topic_arn(given["notify_sns"]),
        options.metrics_file(given["metrics_file"]),
        given["profile"],
        bool(given["simulate"] or given["endpoint_url"] or endpoints.environment_endpoint(os.environ)),
    )


def shareable(words: list[str]) -> list[str]:
    """A command line to be told as the next step, without secrets and without --new-ledger.

    That is refused where the ledger is there by then.
    """
    kept: list[str] = []
    for word in words:
        if word == "--new-ledger" and kept[-1:] != ["--ledger"]:
            continue
        if kept and kept[-1] == "--notify-webhook":
            kept.pop()
        elif not word.startswith("--notify-webhook="):
            kept.append(word)
    return kept

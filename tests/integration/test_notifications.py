"""Notifications at the end of a run; their failures never change its exit code."""

import json
import os
import signal
import stat
import sys
import threading
import urllib.parse
from pathlib import Path
from types import SimpleNamespace

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from batch_snapshot import cli
from batch_snapshot.aws.sns import TRIES
from batch_snapshot.cli import notify as targets
from batch_snapshot.clock import utc_now
from batch_snapshot.errors import InputError, LockedError
from batch_snapshot.ledger.history import FailureGroup
from batch_snapshot.models import ErrorKind, Status
from batch_snapshot.notify import metrics, notice, sns, webhook
from batch_snapshot.reporting import summary
from batch_snapshot.reporting.display import Frame
from batch_snapshot.reporting.summary import AccountSummary, Counts, Summary
from batch_snapshot.simulator import serve
from tests.support.processes import Place, pairs, until, write_manifest
from tests.support.strategies import patient
from tests.support.webhook_server import serve_webhook

TOPIC = "arn:aws:sns:us-east-1:123456789012:nights"
SECRET = "/services/T000/B000/very-secret"


@pytest.fixture(autouse=True)
def place(cwd):
    write_manifest(Path("trial.yaml"), pairs(3))
    return cwd


def summed_up(**given_) -> Summary:
    settings = {
        "outcome": "stopped",
        "exit_code": 3,
        "counts": Counts(10, 2, 1, 7),
        "failures": {
            FailureGroup(Status.FAILED, ErrorKind.DENIED, "AccessDeniedException"): 2,
            FailureGroup(Status.IN_DOUBT, ErrorKind.TRANSIENT, "RunCrashed"): 1,
        },
        "ledger": "ledgers/trial.ndjson",
        "run_id": "run-1",
        "name": "trial",
        "elapsed_s": 12.5,
        "accounts": {"main": AccountSummary(14, 1, 2.5, None)},
        "reasons": ["account main: 20 denials in a row"],
    }
    return Summary(**{**settings, **given_})


def run(*arguments: str, capsys) -> SimpleNamespace:
    code = cli.main(["run", "trial.yaml", "--simulate", "--format", "json", "--progress", "none", *arguments])
    said = capsys.readouterr()
    return SimpleNamespace(code=code, json=json.loads(said.out), err=said.err)


# -- where to ----------------------------------------------------------------------------------------

SNS = "arn:aws:sns:us-east-1:123456789012:"
TOPICS = [
    *(SNS + "nightly", "arn:aws-cn:sns:cn-north-1:123456789012:a_b-c"),
    *("arn:aws-us-gov:sns:us-gov-west-1:123456789012:n.fifo", SNS.replace("aws", "aws-iso-b") + "n" * 256),
]
NO_TOPICS = [
    *("", "nightly", SNS, SNS.replace("sns", "sqs") + "nightly", SNS.replace("us-east-1", "") + "nightly"),
    *(SNS.replace("us-east-1", "east") + "nightly", SNS.replace("12345", "1234") + "nightly"),
    *(
        SNS.replace("12", "\u0661\u0662") + "nightly",
        SNS + "nightly:0f5e0d5c-subscription",
        SNS + "nightly\n",
    ),
    *(SNS + "n" * 257, SNS + "n" * 252 + ".fifo", "arn:aws-:sns:us-east-1:123456789012:nightly"),
    "arn:other:sns:us-east-1:123456789012:nightly",
]
NO_URLS = [
    *("hooks.example.com/x", "https:///x", "https://", "ftp://example.com/x", "https://example.com:0/x"),
    *("https://example.com:99999/x", "https://example.com:port/x", "https://a..example.com/secret"),
    *("https://" + "a" * 64 + ".example.com/secret", "https://[::1/x", "https://example.com/secret x"),
    *("https://example.com/secret\n", "https://exämple.com/secret"),
]


def test_what_names_no_topic_or_webhook_is_refused_without_its_secret():
    assert [*map(targets.topic_arn, TOPICS)] == TOPICS
    for check, flag, wrong in (
        (targets.topic_arn, "--notify-sns", NO_TOPICS),
        (targets.webhook_url, "--notify-webhook", NO_URLS),
    ):
        for given_ in wrong:
            with pytest.raises(InputError, match=flag) as caught:
                check(given_)
            assert "secret" not in str(caught.value), given_


def test_a_metrics_file_replaces_no_file_of_another_kind_and_is_not_written_yet():
    contents = {"x.prom": None, "a": "", "b": "# HELP a b\n", "trial.yaml": "# ours\nversion: 1\n"}
    for name, content in contents.items():
        if content is not None:
            Path(name).write_text(content, "utf-8")
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    for name in ("x.prom", "a", "./b"):
        assert targets.metrics_file(Path(name)) == Path(name)
    with pytest.raises(InputError, match="holds no metrics"):
        targets.metrics_file(Path("trial.yaml"))
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before


# -- the notice --------------------------------------------------------------------------------------


def test_notice_has_outcome_failures_and_next_steps():
    made = notice.of_summary(summed_up(run_again="batch-snapshot run trial.yaml"))
    assert made.text.splitlines() == [
        "batch-snapshot run trial: stopped: 20 rows: 10 succeeded, 2 failed, 1 in doubt, 7 unattempted",
        "account main: 20 denials in a row",
        "2 failed (denied, AccessDeniedException)",
        "1 in doubt (transient, RunCrashed)",
        "ledger: ledgers/trial.ndjson",
        "next: batch-snapshot run trial.yaml",
    ]
    payload = notice.as_json(made)
    assert (payload["outcome"], payload["exit_code"], payload["error"]) == ("stopped", 3, None)
    assert payload["summary"] == summary.as_json(summed_up(run_again="batch-snapshot run trial.yaml"))


def test_notice_of_a_run_that_did_not_begin():
    made = notice.of_error(LockedError("trial.ndjson is in use by another run"), "run", "trial.yaml")
    assert made.text == (
        "batch-snapshot run trial.yaml: ended with exit code 5: trial.ndjson is in use by another run"
    )
    assert notice.as_json(made)["summary"] is None


@given(st.text())
@patient
def test_notice_text_is_bounded_and_escapes_slack_mentions(text):
    failures = {FailureGroup(Status.FAILED, ErrorKind.UNKNOWN, text): 1}
    made = notice.of_summary(summed_up(failures=failures, reasons=[text * 50]))
    shown = notice.as_json(made)["text"]
    assert "<" not in shown
    assert ">" not in shown
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert len(made.text) <= notice.LONGEST_TEXT
    json.dumps(notice.as_json(made))


# -- the webhook -------------------------------------------------------------------------------------


def test_webhook_gets_json_with_text_for_slack(capsys):
    with serve_webhook() as server:
        done = run("--notify-webhook", server.url + SECRET, capsys=capsys)
    assert (done.code, done.err) == (0, "")
    [received] = server.received
    assert (received.path, received.headers["content-type"]) == (SECRET, "application/json")
    made = json.loads(received.body)
    assert made["text"].startswith("batch-snapshot run trial: completed: 3 rows: 3 succeeded\n")
    assert made["summary"] == done.json
    assert (made["name"], made["command"], made["exit_code"]) == ("trial", "run", 0)


@pytest.mark.parametrize(("statuses", "tries"), [([503, 200], 2), ([429, 500, 200], 3), ([204], 1)])
def test_busy_webhook_is_tried_again(statuses, tries):
    with serve_webhook(statuses=list(statuses), headers={"Retry-After": "0"}) as server:
        assert anyio.run(webhook.send, server.url, {"text": "x"}) is None
    assert len(server.received) == tries


@pytest.mark.parametrize(("status", "tries"), [(500, webhook.TRIES), (404, 1), (302, 1), (400, 1)])
def test_refusing_webhook_is_a_warning_without_its_secret(status, tries, capsys):
    with serve_webhook(statuses=[status], headers={"Retry-After": "0", "Location": "/other"}) as server:
        done = run("--notify-webhook", server.url + SECRET, capsys=capsys)
    assert len(server.received) == tries
    assert (done.code, done.json["outcome"]) == (0, "completed")
    assert done.err == (
        f"warning: --notify-webhook: 127.0.0.1 did not accept the message (HTTP {status}); "
        "the run is not affected\n"
    )


async def hangs(*_):
    await anyio.sleep_forever()


async def refuses(*_):
    raise ConnectionError("cannot reach it")


async def busy(*_):
    return 429, "86400"


def test_a_webhook_that_is_gone_is_told_without_its_url():
    with serve_webhook() as server:
        gone = server.url + SECRET
    with pytest.raises(ConnectionError, match=r"cannot reach 127.0.0.1:\d+: connection refused$") as caught:
        anyio.run(webhook._post, gone, {})
    assert "secret" not in str(caught.value)


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("post", "why", "longest"),
    [
        (hangs, "TimeoutError", 30),
        (refuses, "cannot reach it", 30),
        (busy, "HTTP 429", webhook.TRIES * webhook.LONGEST_PAUSE),
    ],
)
async def test_webhook_without_response_times_out(post, why, longest):
    """Three tries of five seconds, in virtual time."""
    before = anyio.current_time()
    said = await webhook.send("https://hooks.example/secret", {}, post)
    told = f"hooks.example did not accept the message ({why})"
    assert said == f"--notify-webhook: {told}; the run is not affected"
    assert anyio.current_time() - before <= longest


def test_webhook_url_from_the_environment_is_never_printed(monkeypatch, capsys):
    with serve_webhook() as server:
        monkeypatch.setenv("BATCH_SNAPSHOT_NOTIFY_WEBHOOK", server.url + SECRET)
        monkeypatch.setattr("sys.argv", ["x", "run", "trial.yaml", "--notify-webhook", server.url + SECRET])
        done = run("--max-duration", "0s", capsys=capsys)
    assert done.code == 4
    assert done.json["next_steps"] == ["batch-snapshot run trial.yaml"]
    assert "secret" not in json.dumps(done.json)
    assert b"secret" not in server.received[0].body
    assert "secret" not in Path("ledgers/trial.simulated.ndjson").read_text("utf-8")


def test_refused_run_is_notified_and_keeps_its_exit_code(capsys):
    with serve_webhook() as server:
        code = cli.main(["run", "absent.yaml", "--notify-webhook", server.url])
    assert code == 2
    made = json.loads(server.received[0].body)
    assert (made["outcome"], made["exit_code"], made["name"]) == ("refused", 2, "absent.yaml")
    assert made["error"] in capsys.readouterr().err


def test_run_with_nothing_to_do_sends_no_notice(capsys):
    with serve_webhook() as server:
        run(capsys=capsys)
        again = run("--notify-webhook", server.url, capsys=capsys)
        retried = cli.main(["retry", "ledgers/trial.simulated.ndjson", "--notify-webhook", server.url])
    assert (again.code, retried, server.received) == (0, 0, [])


@pytest.mark.asyncio
async def test_interrupt_during_notification_keeps_the_exit_code(tmp_path):
    place = Place(tmp_path)
    gate = threading.Event()
    async with serve() as (url, _):
        with serve_webhook(gate=gate) as server:
            arguments = ["run", "trial.yaml", "--endpoint-url", url, "--notify-webhook", server.url]
            async with place.started(*arguments) as child:
                await until(lambda: server.received, "the message")
                child.signal(signal.SIGINT)
                done = await child.finished()
    assert done.code == 0
    assert "interrupted: not every notification was sent" in done.stderr


# -- the topic ---------------------------------------------------------------------------------------

PUBLISHED = b"<PublishResponse><PublishResult><MessageId>1</MessageId></PublishResult></PublishResponse>"


def error(code: str) -> bytes:
    return (
        f"<ErrorResponse><Error><Code>{code}</Code><Message>SECRET</Message></Error></ErrorResponse>".encode()
    )


def published(received) -> dict[str, str]:
    return dict(urllib.parse.parse_qsl(received.body.decode()))


def test_topic_gets_text_and_message_attributes(monkeypatch, capsys):
    with serve_webhook(body=PUBLISHED) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", server.url)
        done = run("--notify-sns", TOPIC, capsys=capsys)
    assert (done.code, done.err) == (0, "")
    [received] = server.received
    sent = published(received)
    assert (sent["Action"], sent["TopicArn"]) == ("Publish", TOPIC)
    assert sent["Subject"] == "batch-snapshot run trial: completed"
    assert sent["Message"].startswith("batch-snapshot run trial: completed: 3 rows")
    attributes = {sent[f"MessageAttributes.entry.{n}.Name"]: n for n in (1, 2, 3)}
    assert set(attributes) == {"name", "outcome", "exit_code"}
    assert "/us-east-1/sns/" in received.headers["authorization"]


def test_topic_is_not_called_for_runs_against_another_endpoint(capsys):
    done = run("--notify-sns", TOPIC, capsys=capsys)
    assert done.code == 0
    assert "not published: the calls went to an endpoint other" in done.err
    assert "AWS_ENDPOINT_URL_SNS" in done.err


@pytest.mark.parametrize(
    ("status", "body", "why", "tries"),
    [
        (403, error("AuthorizationError"), "(AuthorizationError: allow sns:Publish on it)", 1),
        (404, error("NotFound"), "(NotFound: there is no such topic)", 1),
        (500, b"<html>", "(500)", TRIES),
    ],
)
def test_refusing_topic_is_a_warning(monkeypatch, capsys, status, body, why, tries):
    with serve_webhook(statuses=[status], body=body) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", server.url)
        done = run("--notify-sns", TOPIC, capsys=capsys)
    assert (done.code, len(server.received)) == (0, tries)
    assert done.err == f"warning: --notify-sns {TOPIC}: not published {why}; the run is not affected\n"


def test_topic_without_credentials_is_a_warning(monkeypatch, capsys):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", "http://127.0.0.1:9")
    done = run("--notify-sns", TOPIC, capsys=capsys)
    assert done.code == 0
    assert "(NoCredentialsError: there are no AWS credentials)" in done.err


def test_fifo_topic_gets_a_deduplication_id():
    made = notice.of_summary(summed_up(name="trial"))
    message = sns._message(TOPIC + ".fifo", made)
    assert message["MessageGroupId"] == "trial"
    assert message["MessageDeduplicationId"] == sns._message(TOPIC + ".fifo", made)["MessageDeduplicationId"]
    other = notice.of_summary(summed_up(run_id="run-2"))
    assert sns._message(TOPIC + ".fifo", other)["MessageDeduplicationId"] != message["MessageDeduplicationId"]
    assert "MessageGroupId" not in sns._message(TOPIC, made)


@given(st.text(max_size=200))
@patient
def test_subject_is_short_ascii(name):
    subject = sns._message(TOPIC, notice.of_summary(summed_up(name=name)))["Subject"]
    assert 0 < len(subject) <= 100
    assert subject.isascii()
    assert subject.isprintable()


# -- metrics -----------------------------------------------------------------------------------------


def parsed(text: str) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_file_for_the_node_exporter(capsys):
    before = os.umask(0o077)
    try:
        done = run("--metrics-file", "trial.prom", capsys=capsys)
    finally:
        os.umask(before)
    assert (done.code, done.err) == (0, "")
    path = Path("trial.prom")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    found = parsed(path.read_text("utf-8"))
    assert found["batch_snapshot_exit_code", "trial"] == 0
    assert found["batch_snapshot_rows", "trial", "succeeded"] == 3
    assert found["batch_snapshot_calls", "default", "trial"] == done.json["calls"]
    age = utc_now().timestamp() - found["batch_snapshot_finished_timestamp_seconds", "trial"]
    assert 0 <= age < 60
    assert list(Path().glob(".trial.prom*")) == []


def test_metrics_have_all_states_and_failure_groups():
    found = parsed(metrics.as_text(notice.gauges(notice.of_summary(summed_up()), 7.0)).decode())
    rows = {key[2]: value for key, value in found.items() if key[0] == "batch_snapshot_rows"}
    assert rows == {"succeeded": 10, "failed": 2, "in_doubt": 1, "unattempted": 7}
    assert found["batch_snapshot_failures", "AccessDeniedException", "denied", "trial", "failed"] == 2
    assert found["batch_snapshot_throttled_calls", "main", "trial"] == 1
    assert found["batch_snapshot_learned_rate", "main", "trial"] == 2.5
    assert found["batch_snapshot_duration_seconds", "trial"] == 12.5


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
@patient
def test_metric_labels_with_any_text_are_read_back(name, code):
    failures = {FailureGroup(Status.FAILED, ErrorKind.UNKNOWN, code): 4}
    made = notice.of_summary(summed_up(name=name, failures=failures))
    found = parsed(metrics.as_text(notice.gauges(made, 7.0)).decode())
    assert found["batch_snapshot_failures", code, "unknown", name, "failed"] == 4


def test_surrogate_in_an_error_code_is_escaped_in_metrics():
    failures = {FailureGroup(Status.FAILED, ErrorKind.UNKNOWN, "\ud83d"): 4}
    found = parsed(
        metrics.as_text(notice.gauges(notice.of_summary(summed_up(failures=failures)), 7.0)).decode()
    )
    assert found["batch_snapshot_failures", r"\ud83d", "unknown", "trial", "failed"] == 4


def test_metrics_of_a_refused_run_have_its_exit_code():
    assert cli.main(["run", "absent.yaml", "--metrics-file", "trial.prom"]) == 2
    assert parsed(Path("trial.prom").read_text("utf-8"))["batch_snapshot_exit_code", "absent.yaml"] == 2


def test_unwritable_metrics_file_is_a_warning_and_stays_unchanged(tmp_path):
    path = tmp_path / "folder.prom"
    path.mkdir()
    why = metrics.write(path, notice.gauges(notice.of_summary(summed_up()), 7.0))
    assert why is not None
    assert "cannot be written" in why
    assert [made.name for made in tmp_path.glob("*folder*")] == ["folder.prom"]


# -- OpenTelemetry -----------------------------------------------------------------------------------


def test_metrics_are_pushed_to_a_collector_before_the_end(monkeypatch, capsys):
    with serve_webhook() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-tenant=mine")
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=night")
        done = run(capsys=capsys)
    assert (done.code, done.err) == (0, "")
    [received] = server.received
    assert (received.path, received.headers["x-tenant"]) == ("/v1/metrics", "mine")
    [resource] = ExportMetricsServiceRequest.FromString(received.body).resource_metrics
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert attributes["service.name"] == "batch-snapshot"
    assert attributes["deployment.environment"] == "night"
    values = {
        (metric.name, *sorted(label.value.string_value for label in point.attributes)): (
            point.as_int or point.as_double
        )
        for metric in resource.scope_metrics[0].metrics
        for point in metric.gauge.data_points
    }
    assert values["batch_snapshot_rows", "succeeded", "trial"] == 3
    assert values["batch_snapshot_exit_code", "trial"] == 0
    assert values["batch_snapshot_calls", "default", "trial"] == done.json["calls"]


def test_otel_service_name_can_be_set(monkeypatch):
    with serve_webhook() as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", server.url + "/mine")
        monkeypatch.setenv("OTEL_SERVICE_NAME", "nights")
        assert metrics.push(notice.gauges(notice.of_summary(summed_up()), 7.0), os.environ) is None
    [received] = server.received
    assert received.path == "/mine"
    [resource] = ExportMetricsServiceRequest.FromString(received.body).resource_metrics
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert attributes["service.name"] == "nights"


def test_refusing_collector_is_a_warning(monkeypatch, capsys):
    with serve_webhook(statuses=[400]) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", server.url)
        done = run(capsys=capsys)
    assert done.code == 0
    assert done.err == "warning: OpenTelemetry: the metrics were not accepted; the run is not affected\n"


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://c:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, True),
        ({"OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_METRICS_EXPORTER": "prometheus", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, False),
    ],
)
def test_otel_variables_ask_for_a_push(environ, wanted):
    assert metrics.wanted(environ) is wanted


def test_unsupported_otel_protocol_is_a_warning():
    why = metrics.push([], {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert why == (
        "OpenTelemetry: protocol grpc is not supported: set OTEL_EXPORTER_OTLP_METRICS_PROTOCOL=http/protobuf"
    )


def test_push_without_the_extra_names_the_package(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http.metric_exporter", None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    done = run(capsys=capsys)
    assert done.code == 0
    assert "pip install 'batch-snapshot[otel] @ git+https://" in done.err


@pytest.mark.asyncio
async def test_progress_is_sent_while_the_run_goes_on(place):
    here = Place(place)
    here.manifest(pairs(28), accounts={"default": {"quota": {"per_second": 10}}})
    # Refused, it is told again all the same.
    with serve_webhook(statuses=[403]) as target:
        flags = ["--notify-webhook", target.url + SECRET, "--notify-every", "1s"]
        ended = await here.call("run", "trial.yaml", "--simulate", *flags)
    assert ended.code == 0
    assert ended.stderr.count("--notify-webhook: ") >= 2
    assert SECRET not in ended.stderr
    *running, last = [json.loads(request.body) for request in target.received]
    assert len(running) >= 2
    for one in running:
        assert (one["outcome"], one["exit_code"], one["summary"]) == ("running", None, None)
        assert one["text"].startswith("batch-snapshot run trial: running: ")
        assert "/28 rows" in one["text"]
        assert one["progress"]["rows"] == 28
    assert running[0]["progress"]["succeeded"] < running[-1]["progress"]["succeeded"]
    assert (last["outcome"], "progress" in last) == ("completed", False)


def test_progress_has_no_exit_code_for_sns():
    frame = Frame(name="trial", counts=Counts(1, 0, 0, 1), elapsed=60.0)
    message = sns._message(TOPIC, notice.of_progress(frame, "run", "l.ndjson"))
    assert set(message["MessageAttributes"]) == {"name", "outcome"}
    assert message["MessageAttributes"]["outcome"]["StringValue"] == "running"

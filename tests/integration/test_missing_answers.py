"""Files that do not exist, and names that can be none: said before anything is called."""

from pathlib import Path

import pytest

from batch_snapshot import cli
from batch_snapshot.cli import notify
from batch_snapshot.errors import InputError
from tests.support.ledgers import LedgerBuilder


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("ledgers").mkdir()
    Path("ledgers/backfill.ndjson").touch()


COMMANDS = [
    ["status"],
    ["status", "--check"],
    ["status", "--watch"],
    ["report", "--html", "x.html"],
    ["verify", "--simulate"],
    ["diff", "ledgers/backfill.ndjson"],
    ["retry", "--simulate"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("ledgers/backfil.ndjson", "did you mean ledgers/backfill.ndjson?"),
        ("ledgers/x.ndjson", "name a ledger that a run has written"),
        ("nowhere/backfill.ndjson", "name a ledger that a run has written"),
    ],
)
def test_missing_ledger_is_named(capsys, command, name, way_out):
    assert cli.main([command[0], name, *command[1:]]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"error: {name}: there is no such file; {way_out}"
    assert not Path("x.html").exists()


@pytest.mark.parametrize(
    ("name", "way_out"),
    [
        ("nightly.yml", "did you mean nightly.yaml?"),
        ("nightli.yaml", "did you mean nightly.yaml?"),
        ("pairs.csv", "check the path"),
        ("nowhere/nightly.yaml", "check the path"),
    ],
)
def test_missing_manifest_is_named_with_the_nearest_name(capsys, name, way_out):
    Path("nightly.yaml").touch()
    assert cli.main(["validate", name]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == f"error: {name}: the manifest does not exist: {way_out}"


@pytest.mark.parametrize("names", [("absent.ndjson", "old.ndjson"), ("old.ndjson", "absent.ndjson")])
def test_payloads_are_not_fetched_for_a_comparison_with_a_missing_file(capsys, names):
    LedgerBuilder(rows=1).begin().write(Path("old.ndjson"))
    assert cli.main(["diff", "--payload", *names, "--endpoint-url", "http://127.0.0.1:1"]) == 2
    assert capsys.readouterr().err.startswith("error: absent.ndjson: there is no such file")
    assert not Path("exports").exists()


@pytest.mark.parametrize(
    "path", ["nowhere/x.prom", "ledgers", ".", "ledgers/", "x" * 240 + ".prom", "/dev/null", "/proc/x.prom"]
)
def test_a_metrics_file_that_cannot_be_written_is_refused(capsys, path):
    assert cli.main(["run", "absent.yaml", "--metrics-file", path]) == 2
    said = capsys.readouterr().err
    assert "--metrics-file" in said
    assert "absent.yaml" not in said


@pytest.mark.parametrize("path", ["x.prom", "ledgers/x", "./ledgers/backfill.ndjson"])
def test_writable_metrics_file_is_accepted_and_not_written_yet(path):
    before = sorted(Path().rglob("*"))
    assert notify.metrics_file(Path(path)) == Path(path)
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize(
    "arn",
    [
        "arn:aws:sns:us-east-1:123456789012:nightly",
        "arn:aws-cn:sns:cn-north-1:123456789012:a_b-c",
        "arn:aws-us-gov:sns:us-gov-west-1:123456789012:n.fifo",
        "arn:aws-iso-b:sns:us-isob-east-1:123456789012:" + "n" * 256,
    ],
)
def test_topics_of_every_partition_are_accepted(arn):
    assert notify.topic_arn(arn) == arn


@pytest.mark.parametrize(
    "arn",
    [
        "",
        "nightly",
        "arn:aws:sqs:us-east-1:123456789012:nightly",
        "arn:aws:sns::123456789012:nightly",
        "arn:aws:sns:east:123456789012:nightly",
        "arn:aws:sns:us-east-1:12345678901:nightly",
        "arn:aws:sns:us-east-1:\u0661\u06623456789012:nightly",
        "arn:aws:sns:us-east-1:123456789012:",
        "arn:aws:sns:us-east-1:123456789012:nightly:0f5e0d5c-subscription",
        "arn:aws:sns:us-east-1:123456789012:" + "n" * 257,
        "arn:aws:sns:us-east-1:123456789012:" + "n" * 252 + ".fifo",
        "arn:aws-:sns:us-east-1:123456789012:nightly",
        "arn:other:sns:us-east-1:123456789012:nightly",
        "arn:aws:sns:us-east-1:123456789012:nightly\n",
    ],
)
def test_invalid_topic_is_refused(arn):
    with pytest.raises(InputError, match="--notify-sns"):
        notify.topic_arn(arn)


@pytest.mark.parametrize(
    "url",
    [
        "hooks.example.com/x",
        "https:///x",
        "https://",
        "ftp://example.com/x",
        "https://example.com:0/x",
        "https://example.com:99999/x",
        "https://example.com:port/x",
        "https://a..example.com/secret",
        "https://" + "a" * 64 + ".example.com/secret",
        "https://[::1/x",
        "https://example.com/secret x",
        "https://example.com/secret\n",
        "https://exämple.com/secret",
    ],
)
def test_invalid_webhook_is_refused_without_its_secret(url):
    with pytest.raises(InputError, match="--notify-webhook") as caught:
        notify.webhook_url(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "taken"), [("", True), ("# HELP a b\n", True), ("# ours\nversion: 1\n", False)]
)
def test_metrics_file_replaces_no_file_of_another_kind(tmp_path, content, taken):
    path = tmp_path / "trial.yaml"
    path.write_text(content, "utf-8")
    if taken:
        assert notify.metrics_file(path) == path
    else:
        with pytest.raises(InputError, match="holds no metrics"):
            notify.metrics_file(path)
    assert path.read_text("utf-8") == content

"""Every wrong use of the command line is one clear line: nothing is called, and no file changes."""

import asyncio
import json
import shlex
import shutil
import socket
import time
from pathlib import Path
from random import Random

import pytest

from batch_snapshot import cli
from batch_snapshot.clock import utc_now
from batch_snapshot.config.options import Options
from batch_snapshot.discovery import readers
from batch_snapshot.export import fetch
from batch_snapshot.jobs import run
from batch_snapshot.models import Status
from batch_snapshot.simulator import serve
from tests.support.ledgers import LedgerBuilder, row
from tests.support.processes import environment, move_in, pairs, write_manifest

TOPIC = "arn:aws:sns:us-east-1:123456789012:nights"
LONG = "x" * 300
DISCOVER = "discover --catalog AWS"
FOUND = f"{DISCOVER} --output x.yaml"
SPEC = "--notify-webhook (or $BATCH_SNAPSHOT_NOTIFY_WEBHOOK): give a URL"

#: A command line, behind variables of its environment, and a part of what it says.
WRONG = [
    ("fly", "fly"),
    ("run", "MANIFEST"),
    ("run trial.yaml --fly", "--fly"),
    ("run absent.yaml", "absent.yaml"),
    ("run .", "."),
    ("run picture.yaml", "picture.yaml"),
    ("run trial.yaml --accounts nobody", "there are: default"),
    ("run trial.yaml --rate fast", "--rate"),
    ("run trial.yaml --rate 0", "--rate"),
    ("run trial.yaml --rate nan", "--rate"),
    ("run trial.yaml --rate 1e-14", "from 0.000001"),
    ("run trial.yaml --rate 1e9", "to 999999"),
    ("run trial.yaml --concurrency 0", "--concurrency"),
    ("run trial.yaml --max-attempts 0", "--max-attempts"),
    ("run trial.yaml --max-duration soon", "--max-duration"),
    ("run trial.yaml --max-failures many", "--max-failures many"),
    ("run trial.yaml --max-failures 100%", "--max-failures 100%"),
    ("run trial.yaml --max-failures -1", "--max-failures -1"),
    ("run trial.yaml --endpoint-url ftp://127.0.0.1", "--endpoint-url ftp://"),
    ("run trial.yaml --endpoint-url http://127.0.0.1:99999", "--endpoint-url"),
    ("run trial.yaml --endpoint-url http://me:pw@127.0.0.1", "credentials"),
    ("run trial.yaml --simulate --endpoint-url http://127.0.0.1:9", "cannot be used together"),
    ("run trial.yaml --ledger {nmae}.ndjson", "{nmae}"),
    ("run trial.yaml --ledger trial.yaml", "trial.yaml: is not a ledger"),
    ("run trial.yaml --run-id ''", "--run-id"),
    ("run trial.yaml --state-dir trial.yaml", "--state-dir"),
    ("run trial.yaml --progress loud", "--progress"),
    ("run trial.yaml --progress-interval 0", "'--progress-interval': '0' is no interval"),
    ("status old.ndjson --watch --progress-interval 0s", "'0s' is no interval"),
    ("run trial.yaml --format xml", "--format"),
    ("run trial.yaml --simulate=raet=5", "did you mean rate"),
    ("run trial.yaml --simulate=state=w.ndjson", "write --simulate --state w.ndjson"),
    ("run trial.yaml --simulate=rate=0", "finite and above 0"),
    ("run trial.yaml --simulate=latency=soon", "'--simulate': latency: 'soon' is not a time"),
    ("run trial.yaml --simulate=internal=2", "internal"),
    ("run trial.yaml --simulate=rate=fast", "'--simulate': rate: 'fast' is not a number"),
    ("run trial.yaml --limit 0", "'--limit': 0 is too small: the minimum is 1"),
    ("run trial.yaml --limit x", "'--limit': 'x' is not a whole number"),
    ("run trial.yaml --serve 8080", "extra argument (8080): write --serve=8080"),
    ("run trial.yaml --name n --catalog AWS", "--catalog is for CSV and NDJSON files"),
    ("run 'my pairs.csv' --catalog Sandbox --simulate", "give the manifest a name with --name"),
    ("run nightly.csv", "12 rows without a catalog: give --catalog Sandbox (or AWS), or a column catalog"),
    ("validate nightly.jsonl", "12 rows without a catalog: give --catalog Sandbox (or AWS), or each line a"),
    ("run 'foo.**'", "foo.**: the manifest does not exist: check the path"),
    ("run old.ndjson", "old.ndjson: is a ledger, not a manifest"),
    ("run x.yaml --changed-since 9999-01-01", "--changed-since: '9999-01-01' is in the future"),
    ("run x.yaml --changed-since soon", "--changed-since: 'soon' is not a time"),
    (f"run trial.yaml --ledger {LONG}", "File name too long"),
    (f"plan trial.yaml --ledger {LONG}", "cannot be reached"),
    (f"plan trial.yaml --state-dir {LONG}", "cannot be reached"),
    ("retry absent.ndjson", "absent.ndjson"),
    ("retry trial.yaml", "trial.yaml: is a manifest, not a ledger"),
    ("retry pairs.txt", "is not a ledger"),
    ("retry old.ndjson --all --simulate", "; leave out --simulate and --endpoint-url"),
    ("retry old.ndjson --all --run-id x", ", not x; leave out --run-id"),
    ("retry old.ndjson --all --profile p", "; leave out --profile and --region"),
    ("retry events.ndjson", "events.ndjson: is not a ledger: it does not begin with a run line"),
    ("run trial.yaml --ledger events.ndjson", "events.ndjson: holds lines, but no run line: it is not a"),
    ("retry old.ndjson --only nonsense", "--only nonsense"),
    ("retry old.ndjson --only denied --all", "cannot be used together"),
    ("retry old.ndjson --accounts nobody", "there are: default"),
    ("retry old.ndjson --all --dry-run --run-id other", "has run id night-1, not other"),
    ("retry {name}-{date}.ndjson", "{"),
    ("retry trial-{day}.ndjson", "{"),
    (f"retry {LONG}", "File name too long"),
    ("status absent.ndjson", "absent.ndjson"),
    ("status trial.yaml", "trial.yaml: is a manifest, not a ledger"),
    ("status nightly.yaml", "by default ledgers/trial.ndjson ("),
    ("status pairs.txt", "is not a ledger"),
    ("status empty.ndjson", "empty.ndjson"),
    ("status zeros.ndjson", "move it away with `mv zeros.ndjson zeros.ndjson.original`"),
    ("status old.ndjson --watch --check", "--check and --watch cannot be used together"),
    (f"status {LONG}", "File name too long"),
    ("rows pairs.txt", "is not a ledger"),
    ("rows old.ndjson --status fine", "there are: succeeded, failed, in_doubt"),
    ("ls ledger", "error: ledger: there is no such folder; did you mean ledgers?"),
    ("ls /no/such", "error: /no/such: there is no such folder; name the folder of your ledgers"),
    ("validate absent.yaml", "absent.yaml"),
    ("discover", "Choose from: AWS, Sandbox; for example: batch-snapshot discover --catalog"),
    ("prune ledgers", "Missing option '--keep'; for example: batch-snapshot prune ledgers --keep 30"),
    ("prune old.ndjson --keep 1", "name a folder"),
    (
        "schedule cron trial.yaml -- --wiat",
        "batch-snapshot schedule --help)\nerror: No such option '--wiat'. Did you mean '--wait'?",
    ),
    ("simulate --port 65536", "'--port': 65536 is not between 0 and 65535"),
    ("simulate --faults fire=1", "known: internal"),
    ("simulate --faults internal=2", "internal"),
    ("simulate --rate 0", "rate"),
    ("simulate --host 192.0.2.1", "loopback"),
    ("simulate --window 10", "--window"),
    ("simulate --state ledgers", "simulate: ledgers: cannot be used (Is a directory); name another file"),
    ("simulate --then 10@20s", "give the first with --rate"),
    ("simulate --rate 20 --then 10", "is not a time"),
    ("simulate --rate 20 --then ten@20s", "write RATE@TIME"),
    ("simulate --rate 20 --then 10@soon", "'soon' is not a time"),
    ("simulate --rate 20 --then 0@20s", "above 0"),
    ("simulate --rate 20 --then 5@20s --then 10@10s", "one after the other"),
    # Values of the environment.
    ("BATCH_SNAPSHOT_RUN_RATE=fast run trial.yaml", "error: $BATCH_SNAPSHOT_RUN_RATE: 'fast' is not a rate"),
    ("BATCH_SNAPSHOT_RUN_REGION=moon run trial.yaml", "error: $BATCH_SNAPSHOT_RUN_REGION: --region 'moon'"),
    (
        "BATCH_SNAPSHOT_RUN_WAIT=perhaps run trial.yaml",
        "RUN_WAIT: 'perhaps' is not yes or no",
    ),
    ("BATCH_SNAPSHOT_RUN_PROGRESS=loud run trial.yaml", "$BATCH_SNAPSHOT_RUN_PROGRESS: 'loud' is not one of"),
    (
        "BATCH_SNAPSHOT_RUN_SIMULATE=raet=5 run trial.yaml",
        "$BATCH_SNAPSHOT_RUN_SIMULATE: there is no setting 'raet'",
    ),
    # Files that do not exist, with the nearest name.
    ("validate nightly.yml", "error: nightly.yml: the manifest does not exist: did you mean nightly.yaml?"),
    ("validate nightli.yaml", "error: nightli.yaml: the manifest does not exist: did you mean nightly.yaml?"),
    ("validate x.csv", "error: x.csv: the manifest does not exist: check the path"),
    ("validate nowhere/nightly.yaml", "nowhere/nightly.yaml: the manifest does not exist: check the path"),
    *(
        (f"{command} {path}", f"error: {path}: there is no such file; {way_out}")
        for command in (
            *("status", "status --check", "status --watch", "report --html x.html", "verify --simulate"),
            *("diff old.ndjson", "retry --simulate", "export --output x.csv", "diff --payload old.ndjson"),
        )
        for path, way_out in (
            ("ledgers/backfil.ndjson", "did you mean ledgers/backfill.ndjson?"),
            ("ledgers/x.ndjson", "name a ledger that a run has written"),
            ("nowhere/backfill.ndjson", "name a ledger that a run has written"),
        )
    ),
    ("diff --payload absent.ndjson old.ndjson", "error: absent.ndjson: there is no such file"),
    # What finds and compares.
    (DISCOVER, "discover: give either --output FILE, or --update MANIFEST"),
    (f"{DISCOVER} --output x.csv", "x.csv: unknown ending"),
    (f"{DISCOVER} --update pairs.ndjson", "only a YAML manifest"),
    (f"{DISCOVER} --update none.yaml", "does not exist"),
    (f"{FOUND} --stage Lunched", "did you mean Launched"),
    (f"{FOUND} --engagement e1", "does not match eng-"),
    (f"{FOUND} --changed-since soon", "is not a time: write"),
    (f"{FOUND} --changed-since 9999-01-01", "discover: --changed-since: '9999-01-01' is in the future"),
    (f"{FOUND} --name 'a b'", 'name "a b" does not match'),
    (f"{FOUND} --template '?'", 'template "?"'),
    (f"{FOUND} --state w", "add --simulate"),
    (f"{FOUND} --accounts a", "no such account"),
    ("export none.ndjson --output x.csv --fields ,", "--fields: name at least one field"),
    ("export night.ndjson --output x.txt", "--output x.txt: name a folder, or a file that ends in .ndjson"),
    ("export night.ndjson --output x.csv --format parquet", "name a folder, or a file that ends in .parquet"),
    ("export night.ndjson --output x.ndjson --fields Lifecycle.Stag", "did you mean Lifecycle.Stage"),
    ("export night.ndjson --output events.ndjson", "events.ndjson:1: is not a line of an NDJSON export"),
    ("export night.ndjson --output text.csv", "text.ndjson:1: is not a line of an NDJSON export"),
    ("export night.ndjson --output old.csv", "old.ndjson: is a ledger, not an export; name another file"),
    ("diff a.ndjson a.ndjson --html b.html", "--html: works only with --payload: add --payload, or"),
    ("diff a.ndjson a.ndjson --read-rate 3", "--read-rate: works only with --payload"),
    ("diff --payload a.ndjson a.ndjson --html a.ndjson", "a.ndjson: is what the page is made from"),
    ("diff --payload night.ndjson night.ndjson --html night.ndjson", "is what the page is made from"),
    ("diff --payload night.ndjson night.ndjson --html exports/night.ndjson", "the page is made from"),
    ("diff --payload a.ndjson a.ndjson --html ledgers", "is a folder"),
    ("diff --payload a.ndjson a.ndjson --html none/b.html", "none/b.html: cannot be written"),
    ("diff --payload a.ndjson a.ndjson --fields ,", "--fields: name at least one field"),
    # What shows and steers.
    ("report old.ndjson", "--html FILE, --csv FOLDER"),
    ("report old.ndjson --html old.ndjson", "what the report is made from"),
    ("report old.ndjson --html no/where.html", "no/where.html: cannot be written"),
    ("report old.ndjson --html old.ndjson/page.html", "old.ndjson/page.html: cannot be written"),
    ("report old.ndjson --html ledgers", "ledgers: is a folder"),
    ("report old.ndjson --csv old.ndjson", "is a file"),
    ("report old.ndjson --csv old.ndjson/csv", "old.ndjson/csv: cannot be made"),
    ("report old.ndjson --html x.html --manifest nowhere.yaml", "nowhere.yaml"),
    ("watch none.ndjson", "there is no such file"),
    ("watch trial.yaml", "is a manifest, not a ledger"),
    ("watch old.ndjson --serve nowhere", "'nowhere' is not an address: write HOST:PORT"),
    ("watch old.ndjson --serve 127.0.0.1:99999", "is not an address"),
    ("watch old.ndjson --serve 0.0.0.0:80 --control", "--control: works on loopback only"),
    ("run trial.yaml --simulate --serve=[::]:80 --control", "works on loopback only, not at ::"),
    ("run trial.yaml --simulate --control", "adds buttons to the page of --serve: add --serve"),
    ("run trial.yaml --simulate --serve=127.0.0.1:PORT", "cannot listen there"),
    ("control old.ndjson pause", "no run is writing it, so there is nothing to control"),
    ("control none.ndjson pause", "there is no such file"),
    ("control old.ndjson stop", "'stop' is not an action: give pause, resume, drain, rate"),
    ("control old.ndjson pause 5", "pause takes no value"),
    ("control old.ndjson rate", "rate: give calls a second"),
    ("control old.ndjson rate 0", "rate 0: give calls a second"),
    ("control old.ndjson rate nan", "rate nan: give calls a second"),
    ("control old.ndjson rate auto", "rate auto: give calls a second"),
    ("control old.ndjson concurrency 1.5", "concurrency 1.5: give a whole number"),
    ("control old.ndjson concurrency inf", "concurrency inf: give a whole number"),
    ("control old.ndjson concurrency 2000", "from 1 to 1,024"),
    ("control old.ndjson pause --account main", "--account is for rate"),
    # What is told to others.
    ("run trial.yaml --simulate --notify-webhook ftp://hooks.example/secret", SPEC),
    ("run trial.yaml --simulate --notify-webhook https://hooks.example:99999/secret", SPEC),
    ("run trial.yaml --simulate --notify-webhook secret", SPEC),
    ("run trial.yaml --simulate --notify-sns nights", "--notify-sns nights"),
    ("run trial.yaml --simulate --notify-every 6h", "say where to with --notify-webhook or --notify-sns"),
    (f"run trial.yaml --simulate --notify-every 0 --notify-sns {TOPIC}", "give at least 1 s"),
    ("run trial.yaml --metrics-file nowhere/x.prom", "there is no folder nowhere"),
    *(
        (f"run absent.yaml --metrics-file {path}", "--metrics-file")
        for path in ("ledgers", ".", "ledgers/", "x" * 240 + ".prom", "/dev/null", "/proc/x.prom")
    ),
    # A cluster.
    ("run trial.yaml --simulate --scheduler tcp://127.0.0.1:8786", "is for Dask: add --engine dask"),
    ("run trial.yaml --simulate --workers 2", "is for Dask: add --engine dask"),
    ("run trial.yaml --simulate --engine dask --scheduler somewhere", "such as tcp://"),
    (
        "run trial.yaml --simulate --engine dask --scheduler tcp://127.0.0.1:1 --workers 2",
        "leave out --workers or --scheduler",
    ),
    ("run trial.yaml --simulate --engine dask --lease 1ms", "is not a time"),
    ("run trial.yaml --simulate --engine dask --lease 0.5s", "--budget: give 1 to 60 seconds"),
    # A manifest that is begun.
    ("init new.yaml --from absent.csv", "absent.csv does not exist"),
    ("init new.yaml --from columns.csv", "columns.csv:1: column engagement is missing in the header"),
    ("init new.yaml --from pairs.txt", "pairs.txt: name a .csv or .ndjson file; a .yaml or .json file"),
    ("init ledgers/new.yaml --from pairs.txt", "move it into the folder ledgers"),
    ("init new.yaml --from empty.csv", "error: empty.csv: is empty: it needs a header"),
    ("init new.csv", "new.csv: a manifest is YAML"),
    ("init new.yaml --name 'a b'", '--name: name "a b" does not match'),
    ("init absent/new.yaml", "create its folder"),
    (
        "init nightly.yaml --name other",
        "error: nightly.yaml: already exists: name another file, or",
    ),
    # Slips of the finger.
    ("staus", "Did you mean 'status'"),
    ("help rnu", "Did you mean 'run'"),
    ("reprot", "Did you mean one of: 'export', 'report'"),
    ("run x.yaml --simulat", "Did you mean '--simulate'"),
    ("run x.yaml --sim", "Did you mean '--simulate'"),
    ("report l.ndjson --htm x", "Did you mean '--html'"),
    ("retry l.ndjson --acount x", "Did you mean '--accounts'"),
    ("retry --ledger l.ndjson", "Did you mean 'LEDGER'"),
    ("watch l.ndjson --port 8081", "Did you mean '--serve=HOST:PORT'"),
    # What only shares the kind of its value is not suggested.
    *((f"retry l.ndjson {flag} x", f"error: No such option '{flag}'.\n") for flag in ("--name", "--rows")),
]


@pytest.fixture(scope="module")
def layout(tmp_path_factory) -> Path:
    """Manifests, ledgers, an export, and files that are none of these."""
    folder: Path = tmp_path_factory.mktemp("layout")
    csv = "engagement,resource\n" + "".join(f"eng-{n:014d},O{n}\n" for n in range(1, 13))
    texts = {
        "empty.ndjson": "",
        "empty.csv": "",
        "ledgers/backfill.ndjson": "",
        "columns.csv": "a,b\n1,2\n",
        "pairs.txt": csv,
    }
    lines = "".join(f'{{"engagement":"eng-{n:014d}","resource":"O{n}"}}\n' for n in range(1, 13))
    texts |= {"events.ndjson": '{"type":"event"}\n' * 2, "text.ndjson": "mine, without an end"}
    (folder / "ledgers").mkdir()
    for name, text in {**texts, "my pairs.csv": csv, "nightly.csv": csv, "nightly.jsonl": lines}.items():
        (folder / name).write_text(text, "utf-8")
    (folder / "picture.yaml").write_bytes(bytes(range(256)))
    (folder / "zeros.ndjson").write_bytes(bytes(9) + b'"}\n')
    write_manifest(folder / "trial.yaml", pairs(1))
    write_manifest(folder / "nightly.yaml", pairs(1))
    failed = row(0, "default", resource="O1")
    ledger = LedgerBuilder(1, name="trial").begin(accounts={"default": {}}).intend(failed)
    ledger.result(failed, Status.FAILED).write(folder / "old.ndjson")
    with pytest.MonkeyPatch.context() as patch:
        move_in(patch, folder, environment(folder))
        asyncio.run(exported())
    shutil.rmtree(folder / "state")
    return folder


async def exported() -> None:
    """A ledger `night.ndjson`, and an export of it, `a.ndjson`."""
    async with serve() as (url, _):
        options = Options(endpoint_url=url, ledger="night.ndjson")
        await run.run("trial.yaml", options)
        world = readers.Environment(now=utc_now, rng=Random(1), clock=time.monotonic)
        await fetch.export([Path("night.ndjson")], Path("a.ndjson"), options, world)


def files(folder: Path) -> dict[Path, bytes]:
    paths = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    return {path: path.read_bytes() for path in paths}


@pytest.mark.parametrize(("line", "words"), WRONG, ids=[line[:60] for line, _ in WRONG])
def test_wrong_use_is_one_line_and_nothing_is_called_or_changed(
    layout, trap, monkeypatch, capsys, line, words
):
    before = files(layout)
    move_in(monkeypatch, layout, environment(layout) | {"AWS_ENDPOINT_URL": trap})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        arguments = shlex.split(line.replace(":PORT", f":{taken.getsockname()[1]}"))
        while "=" in arguments[0]:
            monkeypatch.setenv(*arguments.pop(0).split("=", 1))
        code = cli.main(arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (5 if "none/" in words else 2, ""), err
    assert words in err
    assert len([each for each in err.splitlines() if not each.startswith("Usage")]) <= 3, err
    assert not [each for each in ("Traceback", "secret", "--yes", "repair") if each in err]
    assert files(layout) == before


@pytest.mark.parametrize("flag", ["--max-duration", "--token-ttl", "--drain-timeout", "--lease"])
def test_a_time_without_a_unit_is_refused(cwd, capsys, flag):
    write_manifest(Path("m.yaml"), pairs(1))
    for given in ("6", "1h30", "h", "", "6x", "1.5", "-1h", "9" * 400 + "d", "²h", "1h 30m"):
        assert cli.main(["run", "m.yaml", "--dry-run", flag, given]) == 2, given
        err = capsys.readouterr().err
        assert "1h30m" in err or "100 years" in err, given


@pytest.mark.parametrize("form", ["--format json", "--format=json"])
def test_with_format_json_an_error_is_an_object_on_stdout(cwd, capsys, form):
    for line in (
        *("status nothing.ndjson", "status", "run m.yaml --max-duration 6", "validate nothing.yaml"),
        *("diff a b", "prune m.yaml --keep 0", "verify nothing", "retry s3://a/b", "run x.yaml --x", "fly"),
    ):
        code = cli.main(shlex.split(f"{line} {form}"))
        printed = json.loads(capsys.readouterr().out)
        assert (printed["outcome"], printed["exit_code"], code) == ("refused", 2, 2)
        assert printed["error"]["message"]

"""Any text as a manifest: every valid form gives the same rows, anything else is refused in clear lines."""

import csv
import gc
import io
import json
import os
import string
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from jsonschema import Draft7Validator

from batch_snapshot import manifest
from batch_snapshot.errors import ManifestError
from batch_snapshot.manifest import service_model, yaml_events
from batch_snapshot.models import Row
from tests.support import rewriting

LETTERS = string.ascii_letters + string.digits
# A text is drawn at once; a regular expression is drawn character by character.
engagements = st.text(string.digits + string.ascii_lowercase, min_size=14, max_size=14).map("eng-".__add__)
resources = st.text(string.digits, min_size=1, max_size=19).map("O".__add__)
names = st.text(f"{LETTERS}._-", min_size=1, max_size=64).filter(lambda name: name not in {".", ".."})
entries = st.fixed_dictionaries(
    {"engagement": engagements, "resources": st.lists(resources, min_size=1, max_size=4)},
    optional={
        "account": st.sampled_from(["a", "b"]),
        "catalog": st.sampled_from(["AWS", "Sandbox"]),
        "resource_type": st.just("Opportunity"),
        "template": st.text(LETTERS, min_size=3, max_size=80),
    },
)
bounded = settings(
    max_examples=40,
    deadline=None,
    # Every example writes the files of its folder anew.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


SCHEMA = Draft7Validator(manifest.schema())


def expected(pairs: list[dict[str, Any]]) -> list[Row]:
    rows = [
        Row(
            pair.get("account", "a"),
            pair.get("catalog", "Sandbox"),
            pair["engagement"],
            "Opportunity",
            resource,
            pair.get("template", "OpportunitySummaryView"),
        )
        for pair in pairs
        for resource in pair["resources"]
    ]
    return list(dict.fromkeys(rows))


def as_csv(pairs: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(
        text, ["template", "engagement", "resource", "resources", "account", "catalog", "resource_type"]
    )
    writer.writeheader()
    for pair in pairs:
        many = pair["resources"]
        cell = {"resource": many[0], "resources": ""} if len(many) == 1 else {"resources": ";".join(many)}
        writer.writerow({**pair, **cell})
    return text.getvalue()


def quoted(pairs: list[dict[str, Any]]) -> str:
    """Every text in quotes: PyYAML's own rules for what must be quoted are not the point."""
    return "".join(
        "- " + "\n  ".join(f"{key}: {json.dumps(value)}" for key, value in pair.items()) + "\n"
        for pair in pairs
    )


def dumped(document: dict[str, Any]) -> str:
    return str(yaml.dump(document, Dumper=yaml.CSafeDumper))


@bounded
@given(name=names, pairs=st.lists(entries, min_size=1, max_size=6), first=st.booleans())
def test_every_form_gives_the_same_rows(tmp_path, name, pairs, first):
    head = {
        "version": 1,
        "name": name,
        "defaults": {"catalog": "Sandbox", "account": "a"},
        "accounts": {"a": {}, "b": None},
    }
    head_text = json.dumps(head)[1:-1]
    block = dumped(head)
    forms = {
        "flow.yaml": (f'{{{head_text}, "pairs": {json.dumps(pairs)}}}', None),
        "block.yaml": (
            f"pairs:\n{quoted(pairs)}{block}" if first else f"{block}pairs:\n{quoted(pairs)}",
            None,
        ),
        "safe.yaml": (dumped({**head, "pairs": pairs}), None),
        "csv.yaml": (block + "include: [rows.csv]\n", ("rows.csv", as_csv(pairs))),
        "json.yaml": (
            block + "include: [rows.ndjson]\n",
            ("rows.ndjson", "\n".join(json.dumps(pair) for pair in pairs)),
        ),
        "list.yaml": (block + "include: [list.yml]\n", ("list.yml", quoted(pairs))),
    }
    SCHEMA.validate({**head, "pairs": pairs})
    wanted = expected(pairs)
    keys = {row.key for row in wanted}
    for file, (text, include) in forms.items():
        path = tmp_path / file
        rewriting.write(path, text.encode())
        if include:
            rewriting.write(tmp_path / include[0], include[1].encode())
        loaded = manifest.load(path)
        assert list(manifest.rows(loaded)) == wanted, file
        assert list(manifest.rows(loaded)) == wanted, file
        assert loaded.name == name
        assert loaded.rows == len(wanted)
        assert set(loaded.keys) == keys


def refused_or_read(folder: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        rewriting.write(folder / name, content)
    path = folder / "m.yaml"
    refusal, loaded = None, None
    try:
        loaded = manifest.load(path)
    except ManifestError as error:
        refusal = error
    if loaded is not None:
        assert len(list(manifest.rows(loaded))) == loaded.rows
    else:
        assert refusal is not None
        assert refusal.problems
        assert refusal.total >= len(refusal.problems)
        assert all(len(line) < 1000 and line.isprintable() for line in refusal.problems)


#: Fragments that meet more of the reader than random text would.
fragments = st.lists(
    st.sampled_from([
        "version: 1\n", "name: n\n", "name: ", "defaults:", " {catalog: AWS}\n", "accounts: ", "pairs:",
        "\n", "- ", "  ", "{", "}", "[", "]", ", ", ": ", "? ", "engagement: ", "eng-0123456789abcd",
        "resource: ", "O1", "resources: ", "include: ", "&a ", "*a", "!!str ", "<<: ", "'", '"', "\\",
        "|\n", ">\n", "---\n", "...\n", "%YAML 1.1\n", "#", "\t", "\0", "\ufeff", "\u2028", "\x85",
        "\ud7ff", "~", "null", "quota: ", "per_day: ",
    ]),
    max_size=40,
).map("".join)  # fmt: skip


@settings(bounded, max_examples=150)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode), fragments.map(str.encode)))
@example(b"\xff\xfe")
@example(b"{? [a, b] : c}")
@example(b"- &a [*a]")
@example(b"pairs: [" + b"{" * 2000)
def test_any_bytes_as_a_manifest_are_read_or_refused_in_clear_lines(tmp_path, content):
    refused_or_read(tmp_path, {"m.yaml": content})
    head = b"version: 1\nname: n\ndefaults: {catalog: AWS}\n"
    refused_or_read(tmp_path, {"m.yaml": head + content})
    refused_or_read(tmp_path, {"m.yaml": head + b"pairs:\n" + content})
    refused_or_read(tmp_path, {"m.yaml": head + b"include: [a.yaml]\n", "a.yaml": content})


table = st.lists(
    st.sampled_from(["engagement", "resource", "resources", ",", "\n", "\r\n", '"', ";", "x", "O1"])
)
objects = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["engagement", "resource", "resources", "account", "x"]), inner)
    ),
).map(lambda value: json.dumps(value).encode())


@pytest.mark.parametrize("ending", ["csv", "ndjson"])
@settings(bounded, max_examples=80)
@given(content=st.one_of(st.binary(max_size=200), table.map(lambda parts: "".join(parts).encode()), objects))
@example(content=b"engagement,resource\n\x00,\r\n")
@example(content=b"[" * 5000)
def test_any_bytes_as_an_include_are_read_or_refused_in_clear_lines(tmp_path, ending, content):
    head = f"version: 1\nname: n\ndefaults: {{catalog: AWS}}\ninclude: [a.{ending}]\n".encode()
    refused_or_read(tmp_path, {"m.yaml": head, f"a.{ending}": content})
    refused_or_read(tmp_path, {"m.yaml": head, f"a.{ending}": b"engagement,resource\n" + content})


# -- texts without end, and words without number -----------------------------------------------------

HEAD = "version: 1\nname: n\ndefaults: {catalog: Sandbox}\n"
X = "x" * 99

#: Where a text can go on and on: what stands before it, what is repeated, and the line of the problem.
ENDLESS = {
    "a plain text": (f"{HEAD}pairs: [", X, 4),
    "a name": ("version: 1\nname: ", X, 2),
    "a quoted text": (f'{HEAD}pairs:\n- {{engagement: "', X, 5),
    "escapes": (f'{HEAD}pairs: ["', "\\u00e9" * 16, 4),
    "lines": (f"{HEAD}pairs:\n- |\n", f"  {X}\n", None),
    "a key": (HEAD, X, 4),
    "a quoted key": (f'{HEAD}? "', X, 4),
    "an anchor": (f"{HEAD}pairs: &", X, 4),
    "a tag": (f"{HEAD}pairs: !", X, 4),
    "a comment": (f"{HEAD}#", X, 4),
    "nothing": (HEAD, " " * 99, 4),
    "an include": (f'{HEAD}include: ["', X, 4),
    "what is skipped": (f"{HEAD}pairs: []\npairs: [a, {{b: ", X, 5),
}


@pytest.mark.parametrize(
    ("text", "included"), [*((text, False) for text in ENDLESS), ("a plain text", True), ("lines", True)]
)
def test_an_endless_text_is_refused_without_filling_memory(tmp_path, monkeypatch, text, included):
    monkeypatch.setattr(yaml_events, "LONGEST", 2**20)
    start, repeated, line = ENDLESS[text]
    paths = [tmp_path / "m.yaml", tmp_path / "a.yaml"]
    paths[0].write_text(f"{HEAD}include: [a.yaml]\n")
    with paths[included].open("w") as file:
        file.write(start)
        file.write(repeated * 14_000)
    service_model.row_input()  # read once a process
    tracemalloc.start()
    try:
        with pytest.raises(ManifestError) as caught:
            manifest.load(paths[0])
        assert tracemalloc.get_traced_memory()[1] < 600_000
    finally:
        tracemalloc.stop()
    problem = caught.value.problems[-1]
    assert "more than 1,048,576 bytes in one entry" in problem
    assert line is None or problem.startswith(f"{paths[included]}:{line}: ")
    assert len(problem) < 300


@pytest.mark.parametrize("depth", [4, 200, 600, 800, 2_000])
def test_json_is_read_no_deeper_than_an_entry_goes(tmp_path, depth):
    path = tmp_path / "m.yaml"
    path.write_text(f"{HEAD}include: [a.ndjson]\n")
    (tmp_path / "a.ndjson").write_text("[" * depth + "]" * depth)
    with pytest.raises(ManifestError, match=r"a.ndjson:1: nested deeper than any entry needs"):
        manifest.load(path)


@contextmanager
def no_larger(limit: int) -> Iterator[None]:
    """The process takes no more than so many further bytes at any time, where Linux shows them."""
    process = Path("/proc/self")
    if not os.access(process / "clear_refs", os.W_OK):
        yield
        return

    def taken(what: str) -> int:
        line = next(line for line in (process / "status").read_text("ascii").splitlines() if what in line)
        return int(line.split()[1]) * 1024

    gc.collect()
    # From here on the peak is counted anew: proc(5).
    (process / "clear_refs").write_text("5", "ascii")
    before = taken("VmRSS")
    yield
    assert taken("VmHWM") - before < limit


@pytest.mark.parametrize(("opened", "value"), [("[", "x,"), ("{", "{}: ,")], ids=["a list", "a mapping"])
def test_an_entry_of_too_many_values_is_refused_without_filling_memory(tmp_path, opened, value):
    path = tmp_path / "m.yaml"
    many = "".join(map(value.format, range(400_000)))
    path.write_text(f"{HEAD}pairs:\n- {opened}{many}\n")
    with no_larger(50_000_000), pytest.raises(ManifestError, match="more than 100,000 values in one entry"):
        manifest.load(path)


@pytest.mark.parametrize("where", ["pairs: ", "pairs: []\npairs: ", "? "])
@pytest.mark.parametrize("opened", ["[", "{a: ", "- ", "? ", '{"":'])
def test_deep_nesting_is_refused_where_it_begins(tmp_path, where, opened):
    """Libyaml takes ages to find its way through one, and there is none in a manifest."""
    path = tmp_path / "m.yaml"
    path.write_text(f"{HEAD}{where}{opened * 300_000}")
    with pytest.raises(ManifestError) as caught:
        manifest.load(path)
    assert any(words in caught.value.problems[-1] for words in ("nested deeper", "not valid YAML"))


def test_a_file_may_be_long_and_so_may_be_an_entry(tmp_path):
    """The bound is on the bytes of one entry alone."""
    path = tmp_path / "m.yaml"
    many = ", ".join(f"O{number:019}" for number in range(99_000))
    entry = f"- {{engagement: eng-0123456789abcd, resources: [{many}]}}\n"
    others = "".join(
        f"- {{engagement: eng-0123456789abcd, resource: O{n}}} # {'x' * 2**20}\n" for n in range(16)
    )
    path.write_text(f"{HEAD}pairs:\n{entry}{others}")
    assert path.stat().st_size > yaml_events.LONGEST
    assert manifest.load(path).rows == 99_016


def test_an_unknown_account_among_thousands_gets_no_suggestion(tmp_path):
    """It would be, for every row that names another that is not there."""
    path = tmp_path / "m.yaml"
    accounts = "".join(f"  a{number}: {{}}\n" for number in range(1_001))
    pair = "- {engagement: eng-0123456789abcd, resource: O1, account: a1001}\n"
    path.write_text(f"{HEAD}accounts:\n{accounts}pairs:\n{pair}")
    with pytest.raises(ManifestError, match=r"known: a0, a1, a2, a3, a4, a5, a6, a7, a8, a9, …$"):
        manifest.load(path)

"""Manifests that nobody thought of: any form gives the same rows, anything else is a clear refusal."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from batch_snapshot import manifest
from batch_snapshot.errors import ManifestError
from batch_snapshot.model import Row

engagements = st.from_regex(r"eng-[0-9a-z]{14}", fullmatch=True)
resources = st.from_regex(r"O[0-9]{1,19}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True).filter(lambda name: name not in {".", ".."})
entries = st.fixed_dictionaries(
    {"engagement": engagements, "resources": st.lists(resources, min_size=1, max_size=4)},
    optional={
        "account": st.sampled_from(["a", "b"]),
        "catalog": st.sampled_from(["AWS", "Sandbox"]),
        "resource_type": st.just("Opportunity"),
        "template": st.from_regex(r"[a-zA-Z0-9]{3,80}", fullmatch=True),
    },
)
bounded = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


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


@bounded
@given(name=names, pairs=st.lists(entries, min_size=1, max_size=6), first=st.booleans())
def test_every_form_gives_the_same_rows(name, pairs, first):
    head = {"version": 1, "name": name, "defaults": {"catalog": "Sandbox", "account": "a"}}
    head_text = json.dumps({**head, "accounts": {"a": {}, "b": None}})[1:-1]
    block = yaml.safe_dump({**head, "accounts": {"a": {}, "b": None}})
    forms = {
        "flow.yaml": (f'{{{head_text}, "pairs": {json.dumps(pairs)}}}', None),
        "block.yaml": (
            f"pairs:\n{quoted(pairs)}{block}" if first else f"{block}pairs:\n{quoted(pairs)}",
            None,
        ),
        "safe.yaml": (yaml.safe_dump({**head, "accounts": {"a": {}, "b": None}, "pairs": pairs}), None),
        "csv.yaml": (block + "include: [rows.csv]\n", ("rows.csv", as_csv(pairs))),
        "json.yaml": (
            block + "include: [rows.ndjson]\n",
            ("rows.ndjson", "\n".join(json.dumps(pair) for pair in pairs)),
        ),
        "list.yaml": (block + "include: [list.yml]\n", ("list.yml", quoted(pairs))),
    }
    with tempfile.TemporaryDirectory() as folder:
        for file, (text, include) in forms.items():
            path = Path(folder, file)
            path.write_text(text)
            if include:
                Path(folder, include[0]).write_text(include[1])
            loaded = manifest.load(path)
            assert list(manifest.rows(loaded)) == expected(pairs), file
            assert list(manifest.rows(loaded)) == expected(pairs), file
            assert loaded.name == name
            assert loaded.rows == len(expected(pairs))
            assert loaded.keys == {row.key for row in expected(pairs)}


def refused_or_read(files: dict[str, bytes]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, content in files.items():
            Path(folder, name).write_bytes(content)
        path = Path(folder, "m.yaml")
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


@settings(bounded, max_examples=400)
@given(st.one_of(st.binary(max_size=300), st.text(max_size=200).map(str.encode), fragments.map(str.encode)))
@example(b"\xff\xfe")
@example(b"{? [a, b] : c}")
@example(b"- &a [*a]")
@example(b"pairs: [" + b"{" * 2000)
def test_no_manifest_raises_anything_else(content):
    refused_or_read({"m.yaml": content})
    head = b"version: 1\nname: n\ndefaults: {catalog: AWS}\n"
    refused_or_read({"m.yaml": head + content})
    refused_or_read({"m.yaml": head + b"pairs:\n" + content})
    refused_or_read({"m.yaml": head + b"include: [a.yaml]\n", "a.yaml": content})


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
@settings(bounded, max_examples=200)
@given(content=st.one_of(st.binary(max_size=200), table.map(lambda parts: "".join(parts).encode()), objects))
@example(content=b"engagement,resource\n\x00,\r\n")
@example(content=b"[" * 5000)
def test_no_include_raises_anything_else(ending, content):
    head = f"version: 1\nname: n\ndefaults: {{catalog: AWS}}\ninclude: [a.{ending}]\n".encode()
    refused_or_read({"m.yaml": head, f"a.{ending}": content})
    refused_or_read({"m.yaml": head, f"a.{ending}": b"engagement,resource\n" + content})

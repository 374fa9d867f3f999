"""CSV files as spreadsheets and CRMs write them: what is taken, and what the message says where it is not."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from batch_snapshot import manifest
from batch_snapshot.errors import ManifestError
from batch_snapshot.manifest import line_files
from batch_snapshot.manifest.problems import Report

E1, E2 = "eng-0123456789abcd", "eng-0123456789abce"
HEAD = "version: 1\nname: n\ndefaults: {catalog: Sandbox}\n"
TWO = [(E1, "O1"), (E2, "O2")]
CRM = '{engagement: "Engagement Id", resource: "Opportunity Id"}'


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Read a CSV file of this content, with these names for its columns."""
    monkeypatch.chdir(tmp_path)

    def loaded(content, columns=None, name="a.csv", head=HEAD):
        Path(name).write_bytes(content if isinstance(content, bytes) else content.encode())
        entry = name if columns is None else f"{{file: {name}, columns: {columns}}}"
        Path("m.yaml").write_text(f"{head}include: [{entry}]\n")
        return manifest.load(Path("m.yaml"))

    return loaded


def pairs(loaded):
    return [(row.engagement, row.resource) for row in manifest.rows(loaded)]


def problems(load, *args, **kwargs):
    with pytest.raises(ManifestError) as caught:
        load(*args, **kwargs)
    return caught.value.problems


BODY = f"engagement,resource\n{E1},O1\n{E2},O2\n"

TAKEN = {
    "commas at the end": f"{BODY},\n,\n",
    "more commas than columns at the end": f"{BODY},,,,\n",
    "blank rows anywhere": f"\n,\n  , \nengagement,resource\n\n{E1},O1\n , \n\t\n{E2},O2\n\n   \n",
    "blank rows of invisible characters": f"{BODY}\u200b,\xa0\n\ufeff\n",
    "a comma at the end of each line": f"engagement,resource,\n{E1},O1,\n{E2},O2,\n",
    "more cells than columns, empty ones": f"engagement,resource\n{E1},O1,,\n{E2},O2, \n",
    "columns without a name": f"engagement,,resource,,\n{E1},,O1,,\n{E2},,O2\n",
    "case and blanks of names": f" Engagement ,RESOURCE\t\n{E1}, O1 \n {E2} ,O2\n",
    "quoted names and cells": f'"engagement","resource"\n"{E1}","O1"\n"{E2}","O2"\n',
    "a blank before a quote": f'"engagement", "resource"\n"{E1}", "O1"\n"{E2}", "O2"\n',
    "texts that a spreadsheet is forced to": f'engagement,resource\n="{E1}",="O1"\n="{E2}","=""O2"""\n',
    "semicolons": BODY.replace(",", ";"),
    "tabs": BODY.replace(",", "\t"),
    "bars": BODY.replace(",", "|"),
    "sep": f"sep=;\n{BODY.replace(',', ';')}",
    "sep in quotes, in capitals, after a mark": f'\ufeff"SEP=;"\r\n{BODY.replace(",", ";")}',
    "sep of a tab": f"sep=\t\n{BODY.replace(',', chr(9))}",
    "sep of commas": f"sep=,\n{BODY}",
    "sep of what no other file has": f"sep=:\n{BODY.replace(',', ':')}",
    "a mark": f"\ufeff{BODY}",
    "two marks before a quote": f'\ufeff\ufeff"engagement",resource\n{E1},O1\n{E2},O2\n',
    "marks in the middle": f"engagement,\ufeffresource\n{E1},O1\n\ufeff{E2},\ufeffO2\n",
    "no-break spaces": f"engagement\xa0,\xa0resource\n{E1}\xa0,O1\n\xa0{E2},\xa0O2\xa0\n",
    "zero-width characters": f"eng\u200bagement,\u2060resource\n{E1}\u200d,O1\n{E2},O\u200b2\u200c\n",
    "soft hyphens": f"engage\xadment,resource\neng-\xad{E1[4:]},O1\n{E2},O2\xad\n",
    "directional marks": f"\u200eengagement\u200f,resource\n\u202a{E1}\u202c,O1\n{E2},\u2066O2\u2069\n",
    "other blanks": f"engagement,resource\u3000\n{E1}\u2003,O1\n{E2},O2\u2028\n",
    "carriage returns alone": BODY.replace("\n", "\r"),
    "carriage returns and line feeds": BODY.replace("\n", "\r\n"),
    "all sorts of line ends": f"engagement,resource\r\r\n{E1},O1\r{E2},O2",
    "UTF-16": BODY.replace(",", "\t").encode("utf-16"),
    "UTF-16, big-endian": b"\xfe\xff" + BODY.replace("\n", "\r\n").encode("utf-16-be"),
    "UTF-16, carriage returns": BODY.replace("\n", "\r").encode("utf-16"),
    "bytes of Windows-1252 around ids": f"engagement,resource\n\xa0{E1}\xa0,O1\n{E2},O2\xad\n".encode(
        "cp1252"
    ),
    "lists in quotes": f'engagement,resources\n{E1},"O1"\n{E2},"O2"\n',
}


@pytest.mark.parametrize("content", TAKEN.values(), ids=TAKEN)
def test_unambiguous_csv_is_accepted(load, content):
    loaded = load(content)
    assert pairs(loaded) == TWO
    assert (
        loaded.sha256 == hashlib.sha256(b"".join(Path(one).read_bytes() for one in loaded.files)).hexdigest()
    )


@pytest.mark.parametrize(
    "cell", ['"O1,O2"', "O1;O2", "O1 O2", '" O1 ,  O2, "', '"O1\nO2"', '"O1;\u200bO2\xa0"']
)
def test_a_cell_holds_several_resources(load, cell):
    assert pairs(load(f"engagement,resources\n{E1},{cell}\n")) == [(E1, "O1"), (E1, "O2")]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_unknown_columns_are_ignored_with_one_warning(load, separator):
    rows = [
        ["Owner", "engagement", "Größe", "resource", ""],
        ["Ann", E1, "5", "O1", ""],
        ["Bob", E2, "6", "O2", ""],
    ]
    loaded = load("\n".join(separator.join(row) for row in rows))
    assert pairs(loaded) == TWO
    assert loaded.warnings == [
        'a.csv:1: columns that are not keys of a pair are ignored: "Owner", "Gr\\xf6\\xdfe"'
    ]


def test_unknown_columns_of_other_encodings_and_several_lines_are_one_warning(load):
    text = f'engagement,"Grö\nße",resource\n{E1},"Mü\nller, 5"" wide",O1\n{E2},,O2\n'
    loaded = load(text.encode("cp1252"))
    assert pairs(loaded) == TWO
    assert loaded.warning_count == 2
    assert loaded.warnings[0].startswith("a.csv:1: not UTF-8 (byte \\xf6): read as Windows-1252")
    assert loaded.warnings[1].startswith("a.csv:1: columns that are not keys")


def test_an_own_name_may_hold_blanks_for_underscores(load):
    loaded = load(f"Engagement;Resource;Resource Type;CATALOG\n{E1};O1;Opportunity;AWS\n")
    assert pairs(loaded) == [(E1, "O1")]
    assert loaded.catalogs == {"AWS"}
    assert not loaded.warnings


FAULTY = {
    "a misspelt account": (
        f"engagement,resource,acount\n{E1},O1,b\n",
        '1: column "acount" is unknown: did you mean',
    ),
    "two columns of a key": (
        f"engagement,resource,Resource\n{E1},O1,O2\n",
        "1: column resource is in the",
    ),
    "a cell under no name": (
        f"engagement,resource,\n{E1},O1,\n{E2},O2,x\n",
        '3: 3 cells under a header of 3: cell 3, "x"',
    ),
    "a list without quotes": (f"engagement,resources\n{E1},O1,O2\n", "need quotes"),
    "a row that was cut": (
        f"engagement,resource,account\n{E1},O1",
        "2: 2 cells under a header of 3: none for account",
    ),
    "rows by another separator": (
        f"engagement,resource\n{E1};O1\n",
        f'the row holds "{E1};O1" (separated by commas)',
    ),
    "many rows by another separator": (
        "engagement;resource\n" + f"{E1},O1\n" * 20,
        "2: 1 cell under a header of 2",
    ),
    "a blank within an id": (f"engagement,resource\n{E1},O1\xa02\n", '2: resource "O1\\xa02"'),
    "a letter of another script": (f"engagement,resource\n{E1},\u041e1\n", '2: resource "\\u041e1"'),
    "another dash": (
        "engagement,resource\neng\u20110123456789abcd,O1\n",
        'engagement "eng\\u20110123456789abcd"',
    ),
    "a name in another script": (
        f"\u0435ngagement,resource\n{E1},O1\n",
        'found "\\u0435ngagement", "resource"',
    ),
    "a letter of another script under a choice": (
        f"engagement,resource,catalog\n{E1},O1,\u0410WS\n",
        '"\\u0410WS"',
    ),
    "names of a CRM": (
        f"Engagement Id;Opportunity Id\n{E1};O1\n",
        'found "Engagement Id", "Opportunity Id" (separated by semicolons); a header needs engagement',
    ),
    "another sep": (f"sep=;\n{BODY}", "2: column engagement is missing in the header"),
    "a title": (f"My report\n{BODY}", '1: column engagement is missing in the header; found "My report"'),
    "an open quote": (
        f'engagement,resource\n{E1},"O1\n{E2},O2\n',
        f'2: not valid CSV: unexpected end of data: close the quotes, or split the cell; it begins "{E1}',
    ),
    "an open quote in the header": (f'"engagement,resource\n{E1},O1\n', "1: header"),
    "a quote that swallows rows": (
        f'engagement,resource,note\n{E1},O1,"x\n{E2},O2,y"\n',
        "2: the row in line 3 stands within the quotes",
    ),
    "a quote closed by another's": (
        f'engagement,resource,note\n{E1},O1,"x\n{E2},O2,"y"\n',
        "2: not valid CSV",
    ),
    "two separators": (
        f"engagement,resource,x;engagement;resource\n{E1},O1,1;2;3\n",
        "can be separated by commas or by semicolons",
    ),
    "another form of a file": (b"PK\x03\x04\x14\x00\x06\x00", "1: a NUL byte"),
}


@pytest.mark.parametrize(("content", "expected"), FAULTY.values(), ids=FAULTY)
def test_ambiguous_csv_is_one_message_that_shows_what_the_file_holds(request, load, content, expected):
    found, *more = problems(load, content)
    assert not more or "many" in request.node.name
    assert found.startswith("a.csv:")
    assert expected.replace('\\"', '"') in found
    assert found.isprintable()


def test_a_header_of_many_columns_is_shown_in_part(load):
    (found,) = problems(load, ",".join(f"c{number}" for number in range(500)))
    assert len(found) < 500
    assert "… (500 in all)" in found


# ---- columns of other names

EXPORT = f"Owner,Engagement Id,Account Name,Opportunity Id\nAnn,{E1},Acme,O1\nBob,{E2},Acme,O2\n"


@pytest.mark.parametrize(
    "content",
    [
        EXPORT,
        EXPORT.replace("Engagement Id", " ENGAGEMENT\xa0 id\u200b "),
        EXPORT.replace(",", ";"),
        EXPORT.replace("Opportunity Id", '"Opportunity\nId"'),
        EXPORT.replace("Owner", "engagement"),
        EXPORT.encode("utf-16"),
    ],
)
def test_columns_may_have_other_names(load, content):
    loaded = load(content, CRM)
    assert pairs(loaded) == TWO
    assert loaded.warning_count == 1


def test_every_key_may_be_named_and_those_that_are_not_keep_theirs(load):
    head = HEAD.replace("{catalog: Sandbox}", "{account: a}") + "accounts: {a: , b: }\n"
    rows = f'Eng,Opps,Konto,Kat,Art,template\n{E1},"O1,O2",b,AWS,Opportunity,AwsOpportunitySummaryFullView\n'
    names = "{engagement: Eng, resources: Opps, account: Konto, catalog: Kat, resource_type: Art}"
    (first, second) = manifest.rows(load(rows, names, head=head))
    assert first == ("b", "AWS", E1, "Opportunity", "O1", "AwsOpportunitySummaryFullView")
    assert second.resource == "O2"


def test_a_key_that_the_file_does_not_hold_is_named_as_null(load):
    text = EXPORT.replace("Account Name", "Account")
    assert len(problems(load, text, CRM)) == 2
    loaded = load(text, CRM.replace("}", ", account: null}"))
    assert pairs(loaded) == TWO
    assert loaded.warnings == ['a.csv:1: columns that are not keys of a pair are ignored: "Owner", "Account"']


def test_a_long_file_with_other_column_names_keeps_all_rows(load):
    rows = [(f"eng-{number:014d}", f"O{number}") for number in range(100)]
    text = "\n".join(["Engagement Id,Opportunity Id", *map(",".join, rows)])
    loaded = load(text, CRM)
    assert pairs(loaded) == rows
    assert pairs(load(text.replace(f"{rows[50][0]},", f"{rows[50][0]}\xa0,"), CRM)) == rows


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ("{engagment: X}", 'm.yaml:4: unknown key "engagment" in columns: did you mean engagement?'),
        ("[X]", "m.yaml:4: columns must be a mapping"),
        ("{engagement: [X]}", "m.yaml:4: the column of engagement must be a single text, not a list"),
        ("{engagement: null}", "m.yaml:4: the column of engagement is empty"),
        (
            '{engagement: X, resource: " x "}',
            'm.yaml:4: column " x " is named for engagement and for resource',
        ),
        (
            '{engagement: "Engagment Id", resource: "Opportunity Id"}',
            'a.csv:1: column "Engagment Id", which columns names for engagement, is missing in the header',
        ),
        ('{resource: "Opportunity Id"}', "a.csv:1: column engagement is missing in the header: did you mean"),
    ],
)
def test_invalid_column_names_are_refused(load, columns, expected):
    assert any(found.startswith(expected) for found in problems(load, EXPORT, columns))


@pytest.mark.parametrize("name", ["a.ndjson", "a.yaml"])
def test_only_csv_has_columns(load, name):
    (found,) = problems(load, "", CRM, name=name)
    assert found.startswith(f'm.yaml:4: columns of "{name}": only CSV has columns')


@pytest.mark.parametrize(
    "entry",
    [
        {"file": "a.csv"},
        {
            "file": "a.csv",
            "columns": {"engagement": "Engagement Id", "resource": "Opportunity Id", "account": None},
        },
        {"file": "a.csv", "columns": {}},
        {"file": "a.csv", "colums": {}},
        {"columns": {"engagement": "X"}},
        {"file": "a.csv", "columns": {"engagement": ["X"]}},
        {"file": "a.csv", "columns": {"foo": "X"}},
        {"file": "a.csv", "columns": []},
        {"file": "a.ndjson", "columns": {"engagement": "X"}},
        {"file": "/a.csv"},
        {},
    ],
)
def test_the_schema_and_validation_agree_about_an_include(tmp_path, entry):
    text = {"version": 1, "name": "n", "defaults": {"catalog": "AWS"}, "include": [entry]}
    own = entry.get("columns") == {} or "columns" not in entry
    (tmp_path / "a.csv").write_text(BODY if own else EXPORT)
    (tmp_path / "a.ndjson").write_text("")
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(text))
    try:
        manifest.load(tmp_path / "m.yaml")
        valid = True
    except ManifestError:
        valid = False
    assert Draft7Validator(manifest.schema()).is_valid(text) == valid


def test_memory_is_flat_whatever_ends_the_lines():
    class Endless(io.RawIOBase):
        """A file of a hundred million rows, as far as it is read."""

        served = 0

        def readable(self):
            return True

        def readinto(self, buffer):
            data = f"{E1},O1\r".encode() * 100 if self.served else b"engagement,resource\r"
            self.served += 1
            buffer[: len(data)] = data
            return len(data)

    lines = Endless()
    read: Any = io.BufferedReader(lines)
    entries = line_files.csv_entries(read, Report(), None)
    for _ in range(1000):
        next(entries)
    assert lines.served < 15

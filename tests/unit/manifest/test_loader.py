"""Manifests: what is read, and what is refused where."""

import hashlib
import json
import os
import tracemalloc
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from batch_snapshot import manifest
from batch_snapshot.errors import ManifestError
from batch_snapshot.models import Account, Quota, Row

ENG = "eng-0123456789abcd"
HEAD = "version: 1\nname: n\ndefaults: {catalog: Sandbox}\n"
PAIR = f"{{engagement: {ENG}, resource: O1}}"
PAIRS = f"pairs: [{PAIR}]\n"
SCHEMA = Draft7Validator(manifest.schema())


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write `m.yaml` and its includes; the folder is the working one, so that paths show short."""
    monkeypatch.chdir(tmp_path)

    def files(text, **includes):
        for name, content in {"m": text, **includes}.items():
            path = Path(name.replace("__", ".") if "__" in name else f"{name}.yaml")
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return Path("m.yaml")

    return files


def problems(path: Path) -> list[str]:
    with pytest.raises(ManifestError) as caught:
        manifest.load(path)
    assert caught.value.exit_code == 2
    return caught.value.problems


def read(path: Path) -> list[tuple[str, str]]:
    """The rows of a manifest, as (engagement, resource)."""
    loaded = manifest.load(path)
    found = list(manifest.rows(loaded))
    assert len(found) == loaded.rows
    assert {row.key for row in found} == set(loaded.keys)
    return [(row.engagement, row.resource) for row in found]


# ---- what is read


def test_a_row_gets_the_defaults_and_overrides_them(write):
    path = write(
        f"version: 1\nname: n\naccounts: {{a: , b: {{}}}}\ndefaults: {{catalog: Sandbox, account: a}}\n"
        f"pairs:\n- {PAIR}\n- {{engagement: {ENG}, resources: [O2, O3], account: b, catalog: AWS,"
        " template: AwsOpportunitySummaryFullView, resource_type: Opportunity}\n"
    )
    loaded = manifest.load(path)
    full = ("b", "AWS", ENG, "Opportunity")
    assert list(manifest.rows(loaded)) == [
        Row("a", "Sandbox", ENG, "Opportunity", "O1", "OpportunitySummaryView"),
        Row(*full, "O2", "AwsOpportunitySummaryFullView"),
        Row(*full, "O3", "AwsOpportunitySummaryFullView"),
    ]
    assert (loaded.name, loaded.rows, loaded.rows_by_account) == ("n", 3, {"a": 1, "b": 2})
    assert loaded.catalogs == {"AWS", "Sandbox"}
    assert loaded.accounts == {"a": Account("a"), "b": Account("b")}
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert loaded.warnings == []


def test_an_account_has_all_its_settings(write):
    path = write(
        f"""version: 1
name: n
defaults: {{catalog: Sandbox}}
accounts:
  acme:
    profile: partner
    region: us-east-1
    role_arn: "arn:aws-us-gov:iam::123456789012:role/path/Snapshot"
    external_id: a:b
    session_name: night
    endpoint_url: http://127.0.0.1:8000
    quota: {{per_second: 0.5, per_minute: 100, per_hour: 1000, per_day: 10000, reserve: 99}}
    tags: [x, 2024]
{PAIRS}"""
    )
    loaded = manifest.load(path)
    assert loaded.accounts["acme"] == Account(
        name="acme",
        profile="partner",
        region="us-east-1",
        role_arn="arn:aws-us-gov:iam::123456789012:role/path/Snapshot",
        external_id="a:b",
        session_name="night",
        endpoint_url="http://127.0.0.1:8000",
        quota=Quota(per_second=0.5, per_minute=100, per_hour=1000, per_day=10000, reserve=99),
        tags=("x", "2024"),
    )
    assert loaded.rows_by_account == {"acme": 1}, "the only account needs no naming"


@pytest.mark.parametrize("accounts", ["", "accounts:\n", "accounts: {}\n"])
def test_without_accounts_there_is_the_ambient_one(write, accounts):
    loaded = manifest.load(write(HEAD + accounts + f"pairs: [{PAIR[:-1]}, account: default}}]\n"))
    assert loaded.accounts == {"default": Account("default")}


@pytest.mark.parametrize("name", ["2024", "on", "1.5", '"null"', "0x1F", "2024-01-01"])
def test_a_name_is_the_text_that_was_written(write, name):
    assert manifest.load(write(f"version: 1\nname: {name}\n{PAIRS}defaults: {{catalog: AWS}}\n")).name == (
        name.strip('"')
    )


@pytest.mark.parametrize("nothing", ["", "~", "null", "NULL"])
def test_null_is_no_value(write, nothing):
    path = write(
        f"{HEAD}accounts: {nothing}\ninclude: {nothing}\n"
        f"pairs:\n- engagement: {ENG}\n  resource: O1\n  resources: {nothing}\n  account: {nothing}\n"
    )
    assert read(path) == [(ENG, "O1")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (1, 0, 2)])
def test_sections_come_in_any_order(write, order, encoding):
    parts = [
        "version: 1\nname: n\n",
        f"pairs:\n- {PAIR}\n",
        "defaults: {catalog: AWS, account: b}\naccounts: {a: {}, b: {}}\n",
    ]
    path = write("".join(parts[number] for number in order).encode(encoding))
    assert manifest.load(path).rows_by_account == {"b": 1}
    assert read(path) == [(ENG, "O1")]


def test_problems_above_and_below_late_sections_are_listed_in_line_order(write):
    path = write(f"pairs:\n- {PAIR}\n- x\ndefaults: {{catalog: aws}}\nname: n\nversion: 2\nfoo: 1\n")
    assert [one.split(":")[1] for one in problems(path)] == ["3", "4", "6", "7"]


def test_an_escaped_late_section_is_refused(write):
    found = problems(write(f'version: 1\nname: n\n{PAIRS}"def\\u0061ults": {{catalog: AWS}}\n'))
    assert found[-1] == "m.yaml:4: defaults must come before pairs in this file: move it up"


def test_a_pair_listed_twice_is_one_row_and_a_warning(write):
    path = write(
        f"{HEAD}include: [b.csv]\npairs:\n- {PAIR}\n- {PAIR}\n", b__csv=f"engagement,resource\n{ENG},O1\n"
    )
    loaded = manifest.load(path)
    assert loaded.rows == 1
    assert loaded.warnings == [
        f"m.yaml:7: {ENG} O1 is listed before: it stays one row",
        f"b.csv:2: {ENG} O1 is listed before: it stays one row",
    ]
    assert len(list(manifest.rows(loaded))) == 1


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (f"{HEAD}accounts: {{a: {{region: eu-west-1}}}}\n", "only us-east-1 serves this API"),
        (HEAD.replace("box}", "box, template: Foo}"), 'template "Foo" is not one known'),
        (HEAD.replace("box}", "box, template: OpportunitySummary}"), "is a payload's key"),
        (f"{HEAD}include: [b.yaml]\n", 'template "Bar" is not one known'),
    ],
)
def test_unusual_values_are_warnings(write, text, warning):
    path = write(text + PAIRS, b=f"- {PAIR[:-1]}, template: Bar}}\n" * 3)
    loaded = manifest.load(path)
    assert warning in loaded.warnings[0]
    assert sum("template" in one for one in loaded.warnings) <= 1, "once a file, not once a row"


# ---- what is refused, and where

MISTAKES = [
    # the text after a valid head, the line, part of the problem
    ("pairs: {}\n", 4, "pairs must be a list"),
    ("pairs: [x]\n", 4, 'not the text "x"'),
    ("pairs: [~]\n", 4, "not nothing"),
    ("pairs: [[]]\n", 4, "not a list"),
    (f"pairs:\n- engagement: {ENG}\n", 5, "resource is missing"),
    ("pairs:\n- resource: O1\n", 5, "engagement is missing"),
    (f"pairs:\n- {{engagement: {ENG}, resource: O1, resources: [O1]}}\n", 5, "cannot be used together"),
    (f"pairs:\n- {{engagement: {ENG}, resources: []}}\n", 5, "not an empty list"),
    (f"pairs:\n- {{engagement: {ENG}, resources: O1}}\n", 5, 'not the text "O1"'),
    (
        f"pairs:\n- engagement: {ENG}\n  resources:\n  - O1\n  - P2\n",
        8,
        'resource "P2" does not match O[0-9]',
    ),
    (f"pairs:\n- {{engagement: {ENG}, resource: {{a: b}}}}\n", 5, "must be a single text, not a mapping"),
    (f"pairs:\n- engagement: {ENG}\n  resource: 123\n", 6, "an opportunity id, e.g. O1234567"),
    (f"pairs:\n- {{engagement: {ENG}, resource: ''}}\n", 5, "resource is empty"),
    ("pairs:\n- {engagement: eng-0123456789ABCD, resource: O1}\n", 5, "e.g. eng-0123456789abcd"),
    (f"pairs:\n- {{engagement: {ENG}, resourse: O1}}\n", 5, "did you mean resource?"),
    (f"pairs: [{PAIR[:-1]}, catalog: sandbox}}]\n", 4, "did you mean Sandbox?"),
    (f"pairs: [{PAIR[:-1]}, resource_type: Lead}}]\n", 4, "known: Opportunity"),
    (f"pairs: [{PAIR[:-1]}, account: a/b}}]\n", 4, "account"),
    (f"pairs: [{PAIR[:-1]}, template: a b}}]\n", 4, "does not match [a-zA-Z0-9]{3,80}"),
    (f"pairs: [{PAIR[:-1]}, aws_session_token: hunter2}}]\n", 4, "credentials don't belong"),
    (f"{PAIRS}inclde: [a.csv]\n", 5, "did you mean include?"),
    ("include: a.csv\n", 4, "include must be a list"),
    ("include: [a.txt]\n", 4, "use one of .csv"),
    ("include: [/etc/a.csv]\n", 4, "is absolute"),
    ("include: ['']\n", 4, "include is empty"),
    ("include: [~]\n", 4, "include is empty"),
    ("accounts: [a]\n", 4, "accounts must be a mapping"),
    ("accounts: {'a/b': {}}\n", 4, 'account "a/b" does not match'),
    ("accounts: {a: x}\n", 4, "account a must be a mapping"),
    ("accounts:\n  a:\n    profil: x\n", 6, "did you mean profile?"),
    ("accounts:\n  a:\n    role: x\n", 6, "did you mean role_arn?"),
    ("accounts:\n  a:\n    url: http://127.0.0.1\n", 6, "did you mean endpoint_url?"),
    ("accounts:\n  a:\n    arn: x\n", 6, "did you mean role_arn?"),
    ("accounts: {a: {aws_secret_access_key: hunter2}}\n", 4, "name a profile or a role_arn"),
    ("accounts: {a: {profile: ''}}\n", 4, "profile is empty"),
    ('accounts: {a: {profile: "a\\nb"}}\n', 4, "not a profile name"),
    ("accounts: {a: {role_arn: 'arn:aws:iam::1:role/x'}}\n", 4, "not the ARN of a role"),
    ("accounts: {a: {external_id: abc}}\n", 4, "only with a role_arn"),
    ("accounts: {a: {role_arn: 'arn:aws:iam::123456789012:role/x', external_id: a}}\n", 4, "external_id"),
    ("accounts: {a: {region: Ohio}}\n", 4, "not a region name"),
    ("accounts: {a: {endpoint_url: ftp://x}}\n", 4, "not an http or https URL"),
    ("accounts: {a: {endpoint_url: 'http://me:hunter2@x/'}}\n", 4, "the part before @"),
    ("accounts: {a: {tags: x}}\n", 4, "tags must be a list"),
    ("accounts: {a: {tags: [x y]}}\n", 4, 'tag "x y"'),
    ("accounts: {a: {quota: 5}}\n", 4, "quota must be a mapping"),
    ("accounts: {a: {quota: {per_month: 5}}}\n", 4, "unknown key"),
    ("accounts: {a: {quota: {per_day: 0}}}\n", 4, "positive whole number"),
    ("accounts: {a: {quota: {per_day: -1}}}\n", 4, "positive whole number"),
    ("accounts: {a: {quota: {per_day: 1.5}}}\n", 4, "positive whole number"),
    ("accounts: {a: {quota: {per_day: '10'}}}\n", 4, "plain digits"),
    ("accounts: {a: {quota: {per_second: .inf}}}\n", 4, "positive number"),
    ("accounts: {a: {quota: {per_second: 0.0}}}\n", 4, "positive number"),
    ("accounts: {a: {quota: {per_second: 1e3}}}\n", 4, "positive number"),
    ("accounts: {a: {quota: {reserve: -1}}}\n", 4, "0 or more"),
]

#: Those that no schema can tell.
BEYOND_THE_SCHEMA = [
    ("pairs: []\n", 0, "lists no pairs: add some under pairs or include"),
    (f"pairs:\n- engagement: {ENG}\n  resource: 'O1\n\n    '\n", 6, "does not match"),
    (f"pairs: [{PAIR[:-1]}, resource: O2}}]\n", 4, 'key "resource" appears here a second time'),
    (f"pairs: [{PAIR[:-1]}, account: x}}]\n", 4, "declares no accounts"),
    (f"pairs: [{PAIR[:-1]}, [a]: x}}]\n", 4, "a key must be plain text"),
    (f"{PAIRS}{PAIRS}", 5, 'key "pairs" appears here a second time'),
    (f"{PAIRS}name: m\n", 5, 'key "name" appears here a second time'),
    (f"pairs: &a [{PAIR}]\n", 4, "YAML anchors are not supported"),
    ("pairs: *a\n", 4, "YAML aliases are not supported"),
    (f"pairs: [!!map {PAIR}]\n", 4, "YAML tags are not supported"),
    (f"pairs: [{PAIR[:-1]}, <<: {{account: x}}}}]\n", 4, "YAML merge keys are not supported"),
    (f"{PAIRS}---\n{HEAD}", 5, "a second document"),
    (f"{PAIRS}\tfoo: 1\n", 5, "a tab?"),
    (f"pairs: [{PAIR}\n\n", 6, "that begins in line 4"),
    ("pairs: \0\n", 4, "control characters"),
    ("pairs: [" + "[" * 1000, 4, "nested deeper"),
    ("pairs: [" + "{a: " * 1000, 4, "nested deeper"),
    ("include: [a.csv]\n", 4, "does not exist"),
    ("include: [../a.csv]\n", 4, "leaves the manifest's folder"),
    ("include: [m.yaml]\n", 4, "was read before"),
    ('include: ["a\\0.csv"]\n', 4, "holds characters"),
    ("accounts: {a: {endpoint_url: 'http://[::1'}}\n", 4, "not an http or https URL"),
    ("accounts: {a: {quota: {per_day: 10_000}}}\n", 4, "plain digits"),
    ("accounts: {a: {quota: {per_day: 010}}}\n", 4, "plain digits"),
    ("accounts: {a: {quota: {per_day: " + "9" * 5000 + "}}}\n", 4, "plain digits"),
    ("accounts: {a: {quota: {per_second: .nan}}}\n", 4, "positive number"),
    ("accounts: {a: {quota: {per_hour: 10, per_day: 100, reserve: 10}}}\n", 4, "leaves nothing of 10 calls"),
]


@pytest.mark.parametrize(("text", "line", "part"), MISTAKES + BEYOND_THE_SCHEMA)
def test_a_mistake_is_named_with_its_line_and_the_fix_and_the_schema_refuses_it(write, text, line, part):
    whole = HEAD + text + ("" if "pairs" in text or "include" in text else PAIRS)
    (found,) = problems(write(whole))
    if (text, line, part) in MISTAKES:
        assert not SCHEMA.is_valid(yaml.safe_load(whole))
    assert found.startswith(f"m.yaml:{line}: " if line else "m.yaml: ")
    assert part in found
    assert "hunter2" not in found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "m.yaml: is empty"),
        ("# nothing\n", "m.yaml: is empty"),
        ("null\n", "m.yaml:1: is not a manifest"),
        (f"- {PAIR}\n", "m.yaml:1: is not a manifest"),
        (f"name: n\n{PAIRS}defaults: {{catalog: AWS}}\n", "m.yaml:1: version is missing"),
        (f"version: 1\n{PAIRS}defaults: {{catalog: AWS}}\n", "m.yaml:1: name is missing"),
        (f"version: 1\nname:\n{PAIRS}defaults: {{catalog: AWS}}\n", "m.yaml:2: name is empty"),
        (f"version: 1\nname: ..\n{PAIRS}defaults: {{catalog: AWS}}\n", 'm.yaml:2: name ".." does not match'),
        (f"version: 1\nname: [a]\n{PAIRS}defaults: {{catalog: AWS}}\n", "m.yaml:2: name must be a single"),
        (
            f"version: 1.0\nname: n\n{PAIRS}defaults: {{catalog: AWS}}\n",
            "m.yaml:1: version must be the number",
        ),
        (
            f"version: '1'\nname: n\n{PAIRS}defaults: {{catalog: AWS}}\n",
            "m.yaml:1: version must be the number",
        ),
        (f"version: 1\nname: n\ndefaults: []\n{PAIRS}", "m.yaml:3: defaults must be a mapping"),
        (f"version: 1\nname: n\ndefaults: {{catalog: aws}}\n{PAIRS}", "m.yaml:3: catalog"),
        (f"version: 1\nname: n\ndefaults: {{catalog: AWS, account: x}}\n{PAIRS}", "m.yaml:3: account"),
        (f"version: 1\nname: n\ndefaults: {{catalog: AWS, resource: O1}}\n{PAIRS}", "m.yaml:3: unknown key"),
        (
            f"{HEAD}account: x\n{PAIRS}",
            'm.yaml:4: unknown key "account" in a manifest: write it under defaults',
        ),
        ((HEAD + PAIRS).encode("utf-16-le"), "m.yaml:1: not readable"),
        ((HEAD + "# \xe9\n" + PAIRS).encode("latin-1"), "m.yaml:4: not readable"),
    ],
)
def test_an_invalid_head_is_one_problem(write, text, expected):
    found = problems(write(text))
    beyond_the_schema = isinstance(text, bytes) or "version: 1.0" in text or "account: x}" in text
    assert beyond_the_schema or not SCHEMA.is_valid(yaml.safe_load(text))
    assert found[0].startswith(expected)
    assert [one for one in found if "without a catalog" not in one] == found[:1]


def test_rows_are_not_reported_for_defaults_that_could_not_be_read(write):
    (found,) = problems(write(f"{PAIRS}version: [\ndefaults: {{catalog: AWS}}\n"))
    assert found.startswith("m.yaml:4: not valid YAML")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"version: 1\nname: n\n  defaults:\n    catalog: AWS\n{PAIRS}", "m.yaml:3: not valid YAML"),
        (f"version: 1\n  name: n\n{PAIRS}", "m.yaml:2: not valid YAML"),
        (f"version: 1\nname: n\n  {PAIRS}", "m.yaml:3: not valid YAML"),
        (
            f"version: 1\nname: n\n{PAIRS.replace('O1', 'O1, account: b')}defaults:\n  accounts: {{b: }}",
            "m.yaml:5: accounts is indented below defaults: begin its line as far left as defaults:",
        ),
        (f"{HEAD}discover:\n  {PAIRS}", "m.yaml:5: pairs is indented below discover"),
    ],
)
def test_a_key_that_is_indented_too_far_is_one_problem(write, text, expected):
    (found,) = problems(write(text))
    assert found.startswith(expected)
    assert " column" in found or "far left" in found


def test_a_missing_default_is_one_problem_for_all_its_rows(write):
    path = write(
        f"version: 1\nname: n\naccounts: {{a: , b: }}\npairs:\n- {PAIR}\n"
        f"- {{engagement: {ENG}, resources: [O2, O3]}}\n- {PAIR[:-1]}, account: b, catalog: AWS}}\n"
    )
    assert problems(path) == [
        "m.yaml:5: 3 rows without a catalog: write catalog: Sandbox (or AWS) under defaults",
        "m.yaml:5: 3 rows without an account: write account: under defaults, one of a, b",
    ]


def test_messages_hold_no_control_characters_and_stay_short(write):
    path = write(f'{HEAD}pairs: [{{engagement: "\\e[31m\\u202e", resource: {"x" * 100_000}}}]\n')
    found = problems(path)
    assert all(one.isprintable() and len(one) < 300 for one in found)
    assert "\\x1b[31m\\u202e" in found[0]


@pytest.mark.parametrize("path", ["nope.yaml", ".", "/dev/null", "a\0b"])
def test_paths_that_are_no_files_are_refused(write, path):
    write("")
    (found,) = problems(Path(path))
    assert "the manifest" in found
    assert found.isprintable()


def test_a_pipe_is_refused_without_waiting_for_it(write):
    path = write(f"{HEAD}include: [p.csv]\n")
    os.mkfifo("p.csv")
    assert "a named pipe" in problems(path)[0]
    assert "a named pipe" in problems(Path("p.csv"))[0]


# ---- includes


def test_includes_in_every_form_follow_the_manifest_in_their_order(write):
    path = write(
        f"{HEAD}include: [./bare.yml, full.yaml, t.csv, u.ndjson, sub/v.jsonl]\n{PAIRS}",
        bare__yml=f"- {{engagement: {ENG}, resource: O2}}\n",
        full=f"pairs:\n- {{engagement: {ENG}, resource: O3}}\nversion: 1\ndefaults: {{catalog: AWS}}\n",
        t__csv=f"\ufeffresource, engagement,resources,catalog\r\nO4,{ENG},,\r\n\r\n,{ENG},O5;O6 O7,AWS\r\n",
        u__ndjson=f'\ufeff{{"engagement":"{ENG}","resources":["O8"],"account":null}}\n\n',
    )
    Path("sub").mkdir()
    Path("sub/v.jsonl").write_text(json.dumps({"engagement": ENG, "resource": "O9"}))
    assert [resource for _, resource in read(path)] == [f"O{n}" for n in range(1, 10)]
    loaded = manifest.load(path)
    catalogs = {row.resource: row.catalog for row in manifest.rows(loaded)}
    assert {one for one, catalog in catalogs.items() if catalog == "AWS"} == {"O3", "O5", "O6", "O7"}
    assert loaded.sha256 == hashlib.sha256(b"".join(one.read_bytes() for one in loaded.files)).hexdigest()


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.csv", "", "a.csv: is empty"),
        ("a.csv", "engagement,resourc\n", "a.csv:1: column resource"),
        ("a.csv", "resource\n", "a.csv:1: column engagement"),
        ("a.csv", f'engagement,resource\n"\n{ENG}",O1\n{ENG},x\n', 'a.csv:4: resource "x"'),
        ("a.csv", f"engagement,resource\n{ENG},{'O' * 200_000}\n", "a.csv:2: not valid CSV: field larger"),
        ("a.csv", f"engagement,resource\n{ENG},O1\n{ENG},O\0\n", "a.csv:3: a NUL byte"),
        ("a.csv", f"engagement,resource\n{ENG},\xe9\n".encode("latin-1"), 'a.csv:2: resource "\\xe9"'),
        ("a.csv", "engagement,resource\n" + "x" * (1 << 21), "a.csv:2: a line of more than"),
        ("a.csv", b"\xff\xfe\0\xdc\n\0", "a.csv:1: not UTF-16"),
        ("a.ndjson", "{]\n", "a.ndjson:1: not valid JSON"),
        ("a.ndjson", "\n[]\n", "a.ndjson:2: an entry must be a mapping"),
        (
            "a.ndjson",
            f'{{"engagement": "{ENG}", "resource": 1}}',
            'a.ndjson:1: key "resource" must be a text: write "1", with',
        ),
        (
            "a.ndjson",
            f'{{"engagement": "{ENG}", "resource": NaN}}',
            'a.ndjson:1: key "resource" must be a text: write "NaN"',
        ),
        (
            "a.ndjson",
            f'{{"engagement": "{ENG}", "resources": ["O1", 2]}}',
            'a.ndjson:1: key "resources" must be a text',
        ),
        (
            "a.ndjson",
            f'{{"engagement": "{ENG}", "engagement": "{ENG}", "resource": "O1"}}',
            "a.ndjson:1: key",
        ),
        ("a.ndjson", f'{{"engagement": "{ENG}", "resource": "\\ud800"}}', 'a.ndjson:1: resource "\\ud800"'),
        ("a.ndjson", "9" * 5000, "a.ndjson:1: not valid JSON"),
        ("a.yaml", "include: [b.yaml]\n", "a.yaml:1: an included file cannot include"),
        ("a.yaml", "name: x\n", "a.yaml:1: name belongs in the manifest itself"),
        ("a.yaml", f"pairs: [{PAIR}]\ndefaults: {{account: x}}\n", "a.yaml:2: account"),
        ("a.yaml", "pairs: [\n", "a.yaml:2: not valid YAML"),
        ("a.json", '{"pairs": [}', "a.json:1: not valid JSON from column 12 on"),
        ("a.yaml", "x\n", "a.yaml:1: is not a manifest"),
    ],
)
def test_an_invalid_include_is_named_with_its_line(write, name, content, expected):
    path = write(f"{HEAD}include: [{name}]\n{PAIRS}", **{name.replace(".", "__"): content})
    (found,) = problems(path)
    assert found.startswith(expected)


def test_an_include_may_not_leave_the_folder_by_a_link(write, tmp_path):
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "secret.csv").write_text("engagement,resource\n")
    (folder / "link.csv").symlink_to("../secret.csv")
    (folder / "loop.csv").symlink_to("loop.csv")
    (folder / "twice.csv").symlink_to("good.csv")
    (folder / "good.csv").write_text(f"engagement,resource\n{ENG},O1\n")
    (folder / "m.yaml").write_text(f"{HEAD}include:\n- link.csv\n- loop.csv\n- good.csv\n- twice.csv\n")
    leaves, loop, twice = problems(folder / "m.yaml")
    assert ":5: " in leaves
    assert "leaves the manifest's folder" in leaves
    assert "cannot be read" in loop
    assert "was read before" in twice


def test_an_invalid_default_is_not_reported_for_the_rows_of_an_include(write):
    path = write(
        f"version: 1\nname: n\ndefaults: {{catalog: aws, account: '?'}}\naccounts: {{a: , b: }}\n"
        f"include: [a.yaml]\n{PAIRS}",
        a=f"defaults: {{template: Foo}}\npairs: [{PAIR}]\n",
    )
    assert [one.split(":")[1] for one in problems(path)] == ["3", "3"]


def test_includes_after_an_invalid_one_are_checked_too(write):
    path = write(f"{HEAD}include: [a.yaml, b.csv]\n", a="[", b__csv="engagement,resource\nx,O1\n")
    assert [one.split(":")[0] for one in problems(path)] == ["a.yaml", "b.csv"]


# ---- the running pass


def test_a_manifest_that_changed_is_not_run(write):
    path = write(f"{HEAD}include: [a.csv]\n", a__csv=f"engagement,resource\n{ENG},O1\n")
    loaded = manifest.load(path)
    for change in (
        lambda: Path("a.csv").write_text(f"engagement,resource\n{ENG},O2\n"),
        lambda: Path("a.csv").unlink(),
    ):
        change()
        with pytest.raises(ManifestError, match="changed since it was validated") as caught:
            next(manifest.rows(loaded))
        assert len(caught.value.problems) == 1


@pytest.mark.parametrize(("place", "id_"), [(5_999, "O9999999"), (4_500, "X9999999")])
def test_a_change_while_it_runs_is_noticed(write, place, id_):
    count = 6_000
    text = (
        HEAD
        + "pairs:\n"
        + "".join(f"- {{engagement: {ENG}, resource: O{n + 1000000}}}\n" for n in range(count))
    )
    path = write(text)
    stream = manifest.rows(manifest.load(path))
    assert next(stream).resource == "O1000000"
    with path.open("r+") as file:
        file.seek(text.index(f"O{place + 1000000}"))
        file.write(id_)
    found: list[str] = []
    with pytest.raises(ManifestError, match="changed since it was validated"):
        found.extend(row.resource for row in stream)
    assert found[-1] == ("O9999999" if place == 5_999 else "O1004499"), "none after what is wrong"


def test_memory_does_not_hold_the_rows(tmp_path):
    """Five times the rows may cost their keys, about 100 bytes each, and little else."""
    peaks = []
    for count in (500, 2_500):
        path = tmp_path / f"{count}.yaml"
        rows = (f"- {{engagement: {ENG}, resource: O{number}}}\n" for number in range(count))
        path.write_text(HEAD + "pairs:\n" + "".join(rows))
        tracemalloc.start()
        try:
            loaded = manifest.load(path)
            assert sum(1 for _ in manifest.rows(loaded)) == count
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert (peaks[1] - peaks[0]) / 2_000 < 200


def test_json_is_taken_as_yaml_in_a_manifest_and_in_what_it_includes(tmp_path):
    pairs = [{"engagement": ENG, "resource": f"O{number}"} for number in range(3)]
    (tmp_path / "keys.json").write_text(json.dumps({"pairs": pairs[:1]}, indent="\t"), "utf-8")
    (tmp_path / "list.json").write_text(json.dumps(pairs[1:2]), "utf-8")
    top = {"version": 1, "name": "n", "defaults": {"catalog": "Sandbox"}, "pairs": pairs[2:]}
    path = tmp_path / "m.json"
    path.write_text(json.dumps({**top, "include": ["keys.json", "list.json"]}), "utf-8")
    assert sorted(resource for _, resource in read(path)) == ["O0", "O1", "O2"]
    (tmp_path / "lines.json").write_text("".join(json.dumps(one) + "\n" for one in pairs), "utf-8")
    assert "of one pair a line needs a name that ends with .ndjson" in problems(tmp_path / "lines.json")[0]
    (wrong,) = problems(tmp_path / "list.json")
    assert wrong.endswith("such as `version: 1`; a list of pairs is for a manifest to include")

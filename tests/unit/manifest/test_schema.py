"""The JSON Schema, the template and the service's patterns agree with what validation accepts."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from botocore.loaders import Loader
from jsonschema import Draft7Validator

from batch_snapshot import manifest
from batch_snapshot.errors import ManifestError
from batch_snapshot.manifest import service_model
from batch_snapshot.operations import SNAPSHOT
from tests import ROOT

EXAMPLES = ROOT / "manifests"
ENG = "eng-0123456789abcd"


@pytest.fixture(scope="module")
def schema():
    Draft7Validator.check_schema(manifest.schema())
    validator = Draft7Validator(manifest.schema())
    validator.validate(VALID)
    return validator


def write(folder: Path, text: str) -> Path:
    path = folder / "m.yaml"
    path.write_text(text)
    return path


def test_patterns_are_those_of_the_service_model():
    model = Loader().load_service_model("partnercentral-selling", "service-2")
    members = model["shapes"]["CreateResourceSnapshotRequest"]["members"]
    for field, shape in service_model.row_input().items():
        described = model["shapes"][members[SNAPSHOT.parameters[field]]["shape"]]
        assert shape.choices == tuple(described.get("enum", ()))
        assert shape.pattern == described.get("pattern", "Opportunity")
    role = Loader().load_service_model("sts", "service-2")["shapes"]["externalIdType"]
    found = service_model.role_input()["ExternalId"]
    assert (found.pattern, found.shortest, found.longest) == (role["pattern"], role["min"], role["max"])


def test_the_examples_and_the_template_are_valid(tmp_path):
    schema = Draft7Validator(manifest.schema())
    paths = [*sorted(EXAMPLES.glob("*.yaml")), write(tmp_path, manifest.template())]
    names = {}
    for path in paths:
        loaded = manifest.load(path)
        assert loaded.warnings == []
        schema.validate(yaml.safe_load(path.read_text()))
        names[path.name] = (loaded.name, loaded.rows)
        ids = {row.engagement for row in manifest.rows(loaded)}
        assert not [
            one for one in ids if any(word in one for word in ("denied", "missing", "quota", "conflict"))
        ]
    assert names["demo.yaml"] == ("demo", 40)
    assert names["nightly.yaml"][0] == "nightly-opportunities"
    assert {"backfill.yaml", "multi-account.yaml", "m.yaml"} < names.keys()


def test_the_template_shows_every_key():
    text = manifest.template()
    shown = manifest.schema()
    assert isinstance(shown["properties"], dict)
    assert all(f"{key}:" in text for key in shown["properties"])


VALID = {
    "version": 1,
    "name": "n",
    "defaults": {"catalog": "Sandbox", "account": "a"},
    "accounts": {"a": {"profile": "p", "quota": {"per_second": 0.5, "per_day": 9}}, "b": None},
    "pairs": [{"engagement": ENG, "resource": "O1"}, {"engagement": ENG, "resources": ["O2"]}],
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("version", 2),
        ("version", "1"),
        ("version", None),
        ("name", ".."),
        ("name", "a b"),
        ("nam", "x"),
        ("defaults.catalog", "aws"),
        ("defaults.resource", "O1"),
        ("defaults.resource_type", "Lead"),
        ("defaults.template", "a b"),
        ("accounts.a b", {}),
        ("accounts.a.role_arn", "x"),
        ("accounts.a.external_id", "abc"),
        ("accounts.a.secret_key", "x"),
        ("accounts.a.quota.per_day", 0),
        ("accounts.a.quota.per_day", 1.5),
        ("accounts.a.quota.per_second", 0),
        ("accounts.a.quota.per_month", 1),
        ("accounts.a.quota.reserve", -1),
        ("accounts.a.tags", "x"),
        ("accounts.a.endpoint_url", "http://me:pw@x/"),
        ("accounts", []),
        ("pairs", {}),
        ("pairs.0", "x"),
        ("pairs.0.engagement", "eng-1"),
        ("pairs.0.resource", "O12345678901234567890"),
        ("pairs.0.resources", ["O1"]),
        ("pairs.1.resources", []),
        ("pairs.1.resources", "O1"),
        ("pairs.0.account", "a/b"),
        ("pairs.0.foo", "x"),
        ("include", "a.csv"),
        ("include", ["a.txt"]),
        ("include", ["/a.csv"]),
    ],
)
def test_schema_and_validation_refuse_the_same(schema, tmp_path, path, value):
    manifest.load(write(tmp_path, yaml.safe_dump(VALID)))
    wrong = copy.deepcopy(VALID)
    *parents, last = path.split(".")
    place: Any = wrong
    for one in parents:
        place = place[int(one) if one.isdigit() else one]
    place[int(last) if last.isdigit() else last] = value
    assert not schema.is_valid(wrong)
    with pytest.raises(ManifestError):
        manifest.load(write(tmp_path, yaml.safe_dump(wrong)))

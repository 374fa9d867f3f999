"""The JSON Schema, the template and the service's patterns agree with what validation accepts."""

from pathlib import Path

import yaml
from botocore.loaders import Loader
from jsonschema import Draft7Validator

from batch_snapshot import manifest
from batch_snapshot.manifest import service_model
from batch_snapshot.operations import SNAPSHOT
from tests import ROOT

EXAMPLES = ROOT / "manifests"


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
    Draft7Validator.check_schema(manifest.schema())
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

"""Payloads as columns: those of the model, whatever the service or an editor wrote."""

import csv
import json

import pytest

from batch_snapshot.export import tables
from batch_snapshot.export.records import HEAD
from tests.support.ledgers import row


def model_leaves(shape):
    """The paths of everything in botocore's shape that is no structure."""
    if shape.type_name != "structure":
        return [""]
    return [f"{name}.{rest}".rstrip(".") for name, one in shape.members.items() for rest in model_leaves(one)]


def test_columns_are_those_of_botocores_model():
    import botocore.session

    model = botocore.session.get_session().get_service_model("partnercentral-selling")
    payload = model.operation_model("GetResourceSnapshot").output_shape.members["Payload"]
    views = {path.partition(".")[2] for path in model_leaves(payload)}
    assert set(tables.payload_fields()) == views
    assert tables.payload_fields()["Lifecycle.Stage"] == "string"
    assert tables.payload_fields()["Project.DeliveryModels"] == "strings"
    assert tables.payload_fields()["Customer.Contacts"] == "json"


def test_a_payload_of_an_unknown_kind_is_not_known():
    assert tables.is_known({"OpportunitySummary": {}})
    assert not tables.is_known({"SDK_UNKNOWN_MEMBER": {"name": "Other"}})


@pytest.mark.parametrize(
    ("fields", "selected"),
    [
        ((), {"Lifecycle": {"Stage": "Launched", "NextSteps": "x"}, "Customer": {"Contacts": [1]}}),
        (("Lifecycle.Stage",), {"Lifecycle": {"Stage": "Launched"}}),
        (
            ("Lifecycle", "Customer.Contacts"),
            {"Lifecycle": {"Stage": "Launched", "NextSteps": "x"}, "Customer": {"Contacts": [1]}},
        ),
        (("OpportunityType",), {}),
    ],
)
def test_only_fields_that_were_asked_for_are_selected(fields, selected):
    payload = {"Lifecycle": {"Stage": "Launched", "NextSteps": "x"}, "Customer": {"Contacts": [1]}}
    assert tables.select({"OpportunitySummary": payload}, fields) == {"OpportunitySummary": selected}


def written(tmp_path, payload, form, **more):
    """A table of one record."""
    path = tmp_path / "x.ndjson"
    given = {"revision": 1, "arn": "arn:1", "payload": payload, **more}
    record = {"type": "snapshot", **row(1)._asdict(), **given}
    line = json.dumps(record, separators=(",", ":")).encode()
    assert line.startswith(HEAD)
    path.write_bytes(line + b"\n")
    tables.write(path, form, tables.columns())
    return path.with_suffix(f".{form}")


#: Half of a surrogate pair, a formula, and values of other types than the model's.
ODD = {
    "OpportunityType": "half \ud800",
    "Lifecycle": {"NextSteps": "=1+1", "Stage": {"not": "a text"}},
    "Project": {"DeliveryModels": "one \ud800", "ExpectedCustomerSpend": [{"Amount": "1"}]},
    "Customer": "text",
    "Unknown": 1,
}


def test_odd_values_are_text_in_csv(tmp_path):
    path = written(tmp_path, {"OpportunitySummary": ODD}, "csv", revision="one", created_at="yesterday")
    with path.open(encoding="utf-8-sig", newline="") as file:
        [found] = csv.DictReader(file)
    assert found["OpportunityType"] == "half ?"
    assert found["Lifecycle.NextSteps"] == "'=1+1"
    assert found["Lifecycle.Stage"] == '{"not": "a text"}'
    assert (found["revision"], found["created_at"], found["Customer.Account.Duns"]) == ("", "", "")


def test_odd_values_keep_their_columns_types_in_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    more = {"revision": True, "created_at": "2026-01-31T00:00:00.000Z", "created_by": 12}
    table = parquet.read_table(written(tmp_path, {"OpportunitySummary": ODD}, "parquet", **more))
    [found] = table.to_pylist()
    assert found["Project.DeliveryModels"] == ["one ?"]
    assert json.loads(found["Project.ExpectedCustomerSpend"]) == [{"Amount": "1"}]
    assert found["OpportunityType"] == "half ?"
    assert (found["created_at"].year, found["created_by"]) == (2026, "12")
    assert table.column_names == [*tables.columns()]


@pytest.mark.parametrize("payload", [{}, {"OpportunitySummary": {}}, {"OpportunitySummary": None}])
def test_a_record_without_a_payload_has_empty_columns(tmp_path, payload):
    with written(tmp_path, payload, "csv").open(encoding="utf-8-sig", newline="") as file:
        [found] = csv.DictReader(file)
    assert (found["resource"], found["Lifecycle.Stage"]) == (row(1).resource, "")

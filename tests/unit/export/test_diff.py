"""What changed between two exports, field by field."""

import json

from batch_snapshot.export import diff
from tests.support.ledgers import row


def write(path, *records):
    lines = [
        {"type": "snapshot", **row(number)._asdict(), "revision": at, "arn": "a", "payload": {"View": view}}
        for number, at, view in records
    ]
    path.write_text("".join(json.dumps(one, separators=(",", ":")) + "\n" for one in lines), "utf-8")
    return path


def contact(name):
    return {"Contacts": [{"Name": "Sam"}, {"Name": name}]}


def test_every_kind_of_change_is_named_by_its_field(tmp_path):
    before = write(
        tmp_path / "a.ndjson",
        (1, 1, {"Stage": "Qualified", "Same": 1, "Needs": ["x"], "Gone": "y"}),
        (2, 1, contact("Alex")),
        (3, 1, {"Stage": "Launched"}),
        (4, 1, {}),
    )
    after = write(
        tmp_path / "b.ndjson",
        (2, 2, contact("Kim")),
        (1, 3, {"Stage": "Committed", "Same": 1, "Needs": ["x", "z"]}),
        # An older revision that was fetched later does not count.
        (1, 2, {"Stage": "Prospect"}),
        (3, 2, {"Stage": "Launched"}),
        (5, 1, {}),
    )
    found = diff.diff(before, after)
    assert (found.rows_before, found.rows_after, found.rows_changed) == (4, 4, 2)
    assert (found.only_before, found.only_after) == (1, 1)
    assert found.fields == {"Stage": 1, "Needs": 1, "Gone": 1, "Contacts.Name": 1}
    assert {change.row.resource: change.fields for change in found.changes} == {
        row(1).resource: {
            "Stage": ("Qualified", "Committed"),
            "Needs": (["x"], ["x", "z"]),
            "Gone": ("y", None),
        },
        row(2).resource: {"Contacts[1].Name": ("Alex", "Kim")},
    }
    text = diff.as_text(found)
    assert "    Stage: Qualified → Committed\n    Needs: x → x, z\n    Gone: y → nothing" in text
    assert "      2 changed\n" in text
    [first, _] = diff.as_json(found)["changes"]
    assert (first["resource"], first["revision_after"]) == (row(1).resource, 3)
    assert json.loads(json.dumps(first))["fields"]["Stage"] == ["Qualified", "Committed"]


def test_the_text_names_a_few_rows_and_says_how_many_more(tmp_path):
    before = write(tmp_path / "a.ndjson", *((number, 1, {"Stage": "a"}) for number in range(15)))
    after = write(tmp_path / "b.ndjson", *((number, 2, {"Stage": "b" * 99}) for number in range(15)))
    text = diff.as_text(diff.diff(before, after))
    assert text.endswith("… and 5 more: --format json names them")
    assert max(map(len, text.splitlines()[1:])) < 80

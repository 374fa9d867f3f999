"""The table of manifest keys: everything that lists keys follows it."""

from dataclasses import fields
from typing import Any

import orjson
import pytest
import yaml

from batch_snapshot import manifest
from batch_snapshot.ledger import records
from batch_snapshot.manifest import keys
from batch_snapshot.manifest.filters import Filters
from batch_snapshot.models import Account, Quota

#: A valid value for each key of an account.
SETTINGS = {
    "profile": "partner",
    "region": "us-east-1",
    "role_arn": "arn:aws:iam::123456789012:role/Snapshot",
    "external_id": "abc-123",
    "session_name": "nightly",
    "endpoint_url": "http://127.0.0.1:8000",
    "quota": {"per_second": 2, "per_minute": 60, "per_hour": 100, "per_day": 1000, "reserve": 5},
    "tags": ["production"],
}


@pytest.mark.parametrize(
    ("section", "cls", "besides"),
    [(keys.ACCOUNT, Account, {"name"}), (keys.QUOTA, Quota, set()), (keys.DISCOVER, Filters, set())],
)
def test_every_key_of_the_table_is_a_field_and_every_field_a_key(section, cls, besides):
    assert keys.names(section) == {field.name for field in fields(cls)} - besides


def test_every_account_key_reaches_the_ledger_and_returns_the_same(tmp_path):
    assert SETTINGS.keys() == keys.names(keys.ACCOUNT)
    path = tmp_path / "m.yaml"
    pair = {"engagement": "eng-0123456789abcd", "resource": "O1", "catalog": "AWS"}
    path.write_text(yaml.dump({"version": 1, "name": "n", "accounts": {"a": SETTINGS}, "pairs": [pair]}))
    account = manifest.load(path).accounts["a"]
    kept = records.encode_account(account)
    assert kept.keys() == SETTINGS.keys()
    assert records.decode_account("a", orjson.loads(orjson.dumps(kept))) == account


def test_the_ledger_keeps_the_fields_of_an_account_in_their_old_order():
    assert orjson.dumps(records.encode_account(Account("a"))) == (
        b'{"role_arn":null,"profile":null,"region":null}'
    )
    whole = records.encode_account(
        Account("a", external_id="e", session_name="s", endpoint_url="u", quota=Quota(per_day=9), tags=("t",))
    )
    assert list(whole) == [
        "role_arn", "profile", "region", "external_id", "session_name", "endpoint_url", "quota", "tags",
    ]  # fmt: skip


def test_the_template_shows_every_key_that_has_a_sample():
    text = manifest.template()
    for section in (keys.CONTEXT, keys.ACCOUNT, keys.QUOTA, keys.DISCOVER):
        for key in section:
            if key.sample:
                assert f"{key.name}: {key.sample[0]}" in text
    properties: Any = manifest.schema()["properties"]
    assert all(f"{key}:" in text for key in properties)


def test_the_template_is_valid_with_its_accounts_uncommented(tmp_path):
    head, accounts, rest = manifest.template().partition("# accounts:")
    lines = (accounts + rest).splitlines(keepends=True)
    end = lines.index("\n")
    uncommented = "".join(line.removeprefix("# ") for line in lines[:end])
    path = tmp_path / "m.yaml"
    text = (head + uncommented + "".join(lines[end:])).replace("# account: main", "account: main")
    path.write_text(text)
    assert manifest.load(path).accounts["acme"].tags == ("emea", "pilot")

"""Which accounts of a manifest are called for: by name, by tag, and out of a ledger."""

import pytest

from batch_snapshot.aws import profiles
from batch_snapshot.config.accounts import resolve_targets
from batch_snapshot.config.options import Options
from batch_snapshot.errors import InputError
from batch_snapshot.models import Account
from batch_snapshot.simulator import serve
from tests.support.processes import Place, of_type, pairs

TAGGED = {"north": {"tags": ["emea", "pilot"]}, "south": {"tags": ["emea"]}, "west": {"tags": ["amer"]}}


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ((), ["north", "south", "west"]),
        (("tag:emea",), ["north", "south"]),
        (("west", "tag:emea"), ["west", "north", "south"]),
        (("north", "tag:emea", "tag:pilot", "north"), ["north", "south"]),
    ],
)
def test_accounts_are_selected_by_name_and_by_tag(words, names):
    accounts = {name: Account(name, tags=tuple(each["tags"])) for name, each in TAGGED.items()}
    assert (
        list(resolve_targets(accounts, Options(simulate=True, accounts=words), profiles.endpoints).accounts)
        == names
    )


@pytest.mark.parametrize(
    ("word", "tags", "message"),
    [
        ("tag:apac", ("emea", "amer"), "no account has this tag; there are: amer, emea"),
        ("tag:apac", (), "no account has a tag"),
        ("tag:", ("emea",), "no account has this tag; there are: emea"),
        ("emea", ("emea",), "no such account; there are: main"),
    ],
)
def test_a_selection_without_accounts_names_the_choices(word, tags, message):
    with pytest.raises(InputError, match=f"--accounts {word}: {message}"):
        resolve_targets(
            {"main": Account("main", tags=tags)}, Options(simulate=True, accounts=(word,)), profiles.endpoints
        )


@pytest.mark.asyncio
async def test_a_retry_knows_the_tags_from_the_ledger_alone(tmp_path):
    place = Place(tmp_path)
    rows = [one for n, name in enumerate(TAGGED) for one in pairs(3, first=10 * n, account=name)]
    place.manifest(rows, accounts=TAGGED)
    async with serve() as (url, simulator):
        assert simulator
        where = ["--endpoint-url", url, "--rate", "1000"]
        ran = await place.call("run", "trial.yaml", *where, "--accounts", "tag:emea", "--format", "json")
        assert ran.code == 1, "the others' rows are left"
        assert ran.json["counts"]["succeeded"] == 6
        assert ran.json["accounts"].keys() == {"north", "south"}
        (tmp_path / "trial.yaml").unlink()
        for words, code in ((["tag:pilot"], 1), (["tag:amer"], 2)):
            result = await place.call("retry", place.ledger, *where, "--accounts", *words, "--all")
            assert result.code == code, result.stderr
        assert "no account has this tag; there are: emea, pilot" in result.stderr
    (head, *_) = of_type(place.ledger, "run")
    assert head["accounts"]["north"]["tags"] == ["emea", "pilot"]
    assert head["settings"]["accounts"] == ["tag:emea"]

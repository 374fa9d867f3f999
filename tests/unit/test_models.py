"""The values: a token is a pure, injective function; a key stands for its row."""

import dataclasses
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from batch_snapshot.errors import (
    BatchSnapshotError,
    InputError,
    LedgerError,
    LedgerWriteError,
    LockedError,
    ManifestError,
    StorageError,
)
from batch_snapshot.models import ApiError, ErrorKind, Failure, Request, Row, Status, Verdict, client_token
from tests.support import strategies
from tests.support.strategies import patient

ROW = Row("main", "Sandbox", "eng-0123456789abcd", "Opportunity", "O1234567", "OpportunitySummaryView")

identities = st.tuples(strategies.texts, strategies.rows, st.integers(0, 100))


@pytest.mark.parametrize(
    ("generation", "token"),
    [(0, "0a2f6f93-61ec-56c1-b3ca-98cdaf7784f0"), (1, "6b803e91-40d2-5a6c-83ca-68af0cdf28e9")],
)
def test_a_token_is_the_same_in_every_version(generation, token):
    assert client_token("night-1", ROW, generation) == token


def test_a_row_has_the_same_key_in_every_version():
    assert ROW.key.hex() == "926206be79ef74ccf644716d18e6ba0d"


def test_the_fields_of_a_row_keep_the_order_that_is_hashed():
    assert Row._fields == ("account", "catalog", "engagement", "resource_type", "resource", "template")


@given(identities)
@patient
def test_a_token_is_pure_and_fits_every_service_model(identity):
    run_id, row, generation = identity
    token = client_token(run_id, row, generation)
    assert token == client_token(run_id, Row(*row), generation)
    assert re.fullmatch(r"[!-~]{1,64}", token)


@given(identities, identities)
@patient
def test_tokens_are_equal_only_for_the_same_run_row_and_generation(one, other):
    assert (client_token(*one) == client_token(*other)) is (one == other)


@given(strategies.texts, strategies.rows, st.integers(0, 100), st.data())
@patient
def test_another_run_row_field_or_generation_gives_another_token(run_id, row, generation, data):
    token = client_token(run_id, row, generation)
    assert client_token(run_id, row, generation + 1) != token
    assert client_token(run_id + "x", row, generation) != token
    field = data.draw(st.sampled_from(Row._fields))
    assert client_token(run_id, row._replace(**{field: getattr(row, field) + "x"}), generation) != token


@given(
    st.lists(strategies.texts, min_size=7, max_size=7),
    st.integers(0, 5),
    st.sampled_from(["x", '"', ",", '","', '", "', "\0", "|", "/"]),
)
@example(["1", "2", "", "", "", "", ""], 0, "0")
@patient
def test_text_that_moves_between_fields_gives_another_token_and_key(parts, border, joint):
    """Two rows whose fields make one and the same text when they are joined."""
    one, other = parts.copy(), parts.copy()
    one[border] += joint
    other[border + 1] = joint + other[border + 1]
    assert "".join(one) == "".join(other)
    assert client_token(one[0], Row(*one[1:]), 0) != client_token(other[0], Row(*other[1:]), 0)
    if border:
        assert Row(*one[1:]).key != Row(*other[1:]).key


def test_a_generation_does_not_run_into_the_template():
    assert client_token("r", ROW._replace(template="View"), 11) != client_token(
        "r", ROW._replace(template="View1"), 1
    )


@given(strategies.rows, strategies.rows)
@patient
def test_keys_have_16_bytes_and_are_equal_only_for_equal_rows(one, other):
    assert len(one.key) == 16
    assert one.key == Row(*one).key
    assert (one.key == other.key) is (one == other)


def test_values_are_frozen():
    request = Request(ROW, "token")
    for name in ("client_token", "generation"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(request, name, "another")


def test_enum_values_are_those_of_the_ledger_contract():
    assert [str(status) for status in Status] == ["succeeded", "failed", "in_doubt"]
    assert [str(kind) for kind in ErrorKind] == [
        "transient",
        "conflict",
        "quota",
        "denied",
        "not_found",
        "invalid",
        "unknown",
    ]


def test_an_api_error_carries_and_shows_its_failure():
    failure = Failure(ErrorKind.DENIED, "AccessDeniedException", "no", Verdict.REFUSED, may_have_landed=False)
    error = ApiError(failure)
    assert error.failure is failure
    assert str(error) == "AccessDeniedException: no"


@pytest.mark.parametrize(
    ("error", "parent", "code"),
    [
        (InputError, BatchSnapshotError, 2),
        (ManifestError, InputError, 2),
        (LedgerError, InputError, 2),
        (StorageError, BatchSnapshotError, 5),
        (LockedError, StorageError, 5),
        (LedgerWriteError, StorageError, 5),
    ],
)
def test_every_error_has_its_place_in_the_tree_and_its_exit_code(error, parent, code):
    assert issubclass(error, parent)
    assert error.exit_code == code


def test_a_manifest_error_shows_its_problems_and_how_many_more_there_are():
    assert str(ManifestError(["a:1: x", "a:2: y"])) == "a:1: x\na:2: y"
    error = ManifestError(["a:1: x", "a:2: y"], total=1202)
    assert str(error) == "a:1: x\na:2: y\n… and 1,200 more (validate --all-problems)"
    assert (error.problems, error.total) == (["a:1: x", "a:2: y"], 1202)

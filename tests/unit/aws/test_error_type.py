"""Errors whose code stands in the header `x-amzn-ErrorType` alone."""

import json

import pytest

from batch_snapshot.models import ErrorKind, Verdict
from tests.unit.aws.test_client import answering, credentials, http, outcome_of

pytestmark = [pytest.mark.asyncio, pytest.mark.usefixtures(credentials.__name__)]

FORMS = [
    "{}",
    "{}:",
    "{}:http://internal.amazon.com/coral/com.amazon.coral.validate/",
    "com.amazon.coral.service#{}",
    "com.amazon.coral.service#{}:http://internal.amazon.com/coral/",
]
BODIES = [b"", b"{}", b"<html>no</html>", b'{"message": "no"}', b"[]", b'"no"', b"null", b"\xff\xfe"]


async def refused(status, body, header, *, plain):
    head = f"X-Amzn-ErrorType: {header}"
    return await outcome_of(answering(http(status, body, head)), plain=plain)


@pytest.mark.parametrize("plain", [True, False])
async def test_error_code_in_the_header_is_read_in_every_form_and_with_any_body(plain):
    cases = [(FORMS[0], body) for body in BODIES] + [(form, b"") for form in FORMS[1:]]
    for form, body in cases:
        failure = await refused(400, body, form.format("ThrottlingException"), plain=plain)
        assert (failure.code, failure.verdict) == ("ThrottlingException", Verdict.THROTTLED), (form, body)


@pytest.mark.parametrize("plain", [True, False])
async def test_error_code_in_the_body_wins_over_the_header(plain):
    body = json.dumps({"__type": "ConflictException", "message": "twice"}).encode()
    failure = await refused(400, body, "ThrottlingException", plain=plain)
    assert (failure.code, failure.message) == ("ConflictException", "twice")


@pytest.mark.parametrize("plain", [True, False])
async def test_message_and_reason_of_the_body_are_kept(plain):
    body = json.dumps({"Message": "not allowed", "Reason": "ACCESS_DENIED"}).encode()
    failure = await refused(403, body, "a#AccessDeniedException:http://x/", plain=plain)
    assert (failure.kind, failure.message) == (ErrorKind.DENIED, "not allowed")
    assert not failure.may_have_landed


@pytest.mark.parametrize("plain", [True, False])
async def test_server_error_with_another_code_in_the_header_stays_ambiguous(plain):
    failure = await refused(500, b"", "ValidationException", plain=plain)
    assert failure.may_have_landed
    failure = await refused(400, b"", ":", plain=plain)
    assert failure.code == "400"

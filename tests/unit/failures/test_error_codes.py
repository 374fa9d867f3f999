"""Every error of the service model, of botocore and of aiohttp has a rule."""

import inspect

import aiohttp
import botocore.exceptions
import botocore.parsers
import pytest
from botocore.loaders import Loader
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.failures import error_codes
from batch_snapshot.models import ErrorKind, Verdict

MODEL = Loader().load_service_model("partnercentral-selling", "service-2")
ERROR_SHAPES = sorted(name for name, shape in MODEL["shapes"].items() if shape.get("exception"))


@pytest.mark.parametrize("shape", ERROR_SHAPES)
def test_every_error_shape_of_the_service_has_a_rule(shape):
    assert shape in error_codes.SERVICE_RULES


def test_the_operations_errors_are_what_the_rules_say():
    rules = {code: error_codes.SERVICE_RULES[code] for code in ERROR_SHAPES}
    assert {code: (rule.kind, rule.verdict) for code, rule in rules.items()} == {
        "AccessDeniedException": (ErrorKind.DENIED, Verdict.REFUSED),
        "ConflictException": (ErrorKind.CONFLICT, Verdict.RETRY),
        "InternalServerException": (ErrorKind.TRANSIENT, Verdict.RETRY),
        "ResourceNotFoundException": (ErrorKind.NOT_FOUND, Verdict.REFUSED),
        "ServiceQuotaExceededException": (ErrorKind.QUOTA, Verdict.REFUSED),
        "ThrottlingException": (ErrorKind.TRANSIENT, Verdict.THROTTLED),
        "ValidationException": (ErrorKind.INVALID, Verdict.REFUSED),
    }
    assert [code for code, rule in rules.items() if rule.may_have_landed] == ["InternalServerException"]


@pytest.mark.parametrize("code", sorted(error_codes.SERVICE_RULES))
def test_the_code_decides_not_the_status(code):
    rule = error_codes.SERVICE_RULES[code]
    for status in (400, 402, 403, 404, 409, 429, None):
        failure = error_codes.service_failure(code=code, message="", http_status=status)
        assert judged(failure) == rule, status


@pytest.mark.parametrize("code", [*ERROR_SHAPES, "SomethingNew"])
def test_a_5xx_may_always_have_been_carried_out(code):
    assert error_codes.service_failure(code=code, message="", http_status=500).may_have_landed


@pytest.mark.parametrize(("code", "status"), [("503", 503), ("502", 502), ("504", None), ("NewTrouble", 500)])
def test_an_unknown_5xx_is_transient(code, status):
    failure = error_codes.service_failure(code=code, message="<html>", http_status=status)
    assert (failure.kind, failure.verdict) == (ErrorKind.TRANSIENT, Verdict.RETRY)
    assert failure.may_have_landed


def test_an_unknown_4xx_is_a_refusal_of_a_kind_of_its_own():
    failure = error_codes.service_failure(code="BrandNewException", message="no", http_status=400)
    assert (failure.kind, failure.verdict) == (ErrorKind.UNKNOWN, Verdict.REFUSED)
    assert not failure.may_have_landed


def classes(module, root=Exception):
    return [
        pytest.param(cls, id=f"{module.__name__}.{name}")
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and issubclass(cls, root) and not issubclass(cls, Warning)
    ]


def judged(failure):
    return failure.kind, failure.verdict, failure.may_have_landed


def classify(cls):
    return error_codes.client_failure([parent.__name__ for parent in cls.__mro__], "message")


NEVER_LEFT = {
    "ClientConnectorError",
    "ClientConnectorDNSError",
    "ClientConnectorCertificateError",
    "ClientConnectorSSLError",
    "ClientSSLError",
    "ClientProxyConnectionError",
    "ClientHttpProxyError",
    "ServerFingerprintMismatch",
    "ConnectionTimeoutError",
}


@pytest.mark.parametrize("cls", classes(aiohttp))
def test_only_a_connection_never_established_proves_that_nothing_was_sent(cls):
    assert classify(cls).may_have_landed == (cls.__name__ not in NEVER_LEFT)


@pytest.mark.parametrize("cls", classes(aiohttp, aiohttp.ClientError))
def test_every_failure_of_the_connection_is_retried(cls):
    failure = classify(cls)
    assert (failure.kind, failure.verdict) == (ErrorKind.TRANSIENT, Verdict.RETRY)


HTTP_CLASSES = classes(botocore.exceptions, botocore.exceptions.HTTPClientError)


@pytest.mark.parametrize("cls", HTTP_CLASSES)
def test_every_http_failure_of_botocore_may_have_been_carried_out(cls):
    """Without the cause beneath, a reset and a refused connection are one class."""
    failure = classify(cls)
    assert judged(failure) == (ErrorKind.TRANSIENT, Verdict.RETRY, True)


SIGNING = ["Credential", "SSO", "Profile", "Token", "Config", "MFA", "Metadata"]


@pytest.mark.parametrize("cls", classes(botocore.exceptions, botocore.exceptions.BotoCoreError))
def test_every_exception_of_botocore_is_classified(cls):
    failure = classify(cls)
    if failure.verdict is Verdict.STOP_ACCOUNT:
        assert any(word in cls.__name__ for word in [*SIGNING, "Dependency"])
    if not failure.may_have_landed:
        assert failure.verdict is Verdict.STOP_ACCOUNT or failure.kind is ErrorKind.INVALID


@pytest.mark.parametrize("name", ["ResponseParserError", "ResponseParserFactory"])
def test_parser_errors_exist_as_named(name):
    assert hasattr(botocore.parsers, name)


@pytest.mark.parametrize(
    "cls", [TimeoutError, ConnectionResetError, BrokenPipeError, UnicodeDecodeError, OSError]
)
def test_os_errors_are_ambiguous_and_retried(cls):
    failure = classify(cls)
    assert (failure.verdict, failure.may_have_landed) == (Verdict.RETRY, True)


@pytest.mark.parametrize("cls", [RuntimeError, ZeroDivisionError, MemoryError])
def test_an_unknown_exception_is_in_doubt_and_not_repeated(cls):
    failure = classify(cls)
    assert judged(failure) == (ErrorKind.UNKNOWN, Verdict.REFUSED, True)


def test_credential_failures_stop_the_account_and_prove_that_nothing_left():
    failure = error_codes.credentials_failure(classify(TimeoutError))
    assert (failure.verdict, failure.may_have_landed) == (Verdict.STOP_ACCOUNT, False)


@given(st.text(), st.integers(1, 50))
def test_cleaned_text_is_bounded_printable_and_valid(text, limit):
    cleaned = error_codes.clean_text(text + "\ud800\x1b[31m\r\n", limit)
    assert len(cleaned) <= limit + 1
    assert cleaned.isprintable()
    cleaned.encode("utf-8")

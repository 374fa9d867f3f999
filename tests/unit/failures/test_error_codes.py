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
LOST = (ErrorKind.TRANSIENT, Verdict.RETRY, True)
UNKNOWN = (ErrorKind.UNKNOWN, Verdict.REFUSED, True)
ERROR_SHAPES = sorted(name for name, shape in MODEL["shapes"].items() if shape.get("exception"))


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


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        *((code, status, LOST) for code, status in [("503", 503), ("502", 502), ("504", None), ("New", 500)]),
        ("BrandNewException", 400, (ErrorKind.UNKNOWN, Verdict.REFUSED, False)),
        # Not the service's own answer: a filter may have put it in the place of that.
        *((code, 403, UNKNOWN) for code in ("403", "Unknown")),
        ("408", 408, LOST),
        ("429", 429, (ErrorKind.TRANSIENT, Verdict.THROTTLED, False)),
    ],
)
def test_an_unknown_5xx_is_transient_and_an_unknown_4xx_a_refusal_of_its_own_kind(code, status, expected):
    failure = error_codes.service_failure(code=code, message="<html>", http_status=status)
    assert judged(failure) == expected


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
    "ClientConnectorError", "ClientConnectorDNSError", "ClientConnectorCertificateError",
    "ClientConnectorSSLError", "ClientSSLError", "ClientProxyConnectionError", "ClientHttpProxyError",
    "ServerFingerprintMismatch", "ConnectionTimeoutError",
}  # fmt: skip


@pytest.mark.parametrize("cls", classes(aiohttp))
def test_only_a_connection_never_established_proves_that_nothing_was_sent(cls):
    failure = classify(cls)
    assert failure.may_have_landed == (cls.__name__ not in NEVER_LEFT)
    if issubclass(cls, aiohttp.ClientError):
        assert judged(failure)[:2] == LOST[:2], "every failure of the connection is retried"


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        # Of botocore's, without the cause beneath, a reset and a refused connection are one class.
        *((one.values[0], LOST) for one in classes(botocore.exceptions, botocore.exceptions.HTTPClientError)),
        *((one, LOST) for one in (TimeoutError, BrokenPipeError, UnicodeDecodeError, OSError)),
        (botocore.parsers.ResponseParserError, LOST),
        *((one, UNKNOWN) for one in (RuntimeError, ZeroDivisionError, MemoryError)),
    ],
)
def test_any_other_exception_may_have_been_carried_out_and_an_unknown_one_is_not_repeated(cls, expected):
    assert judged(classify(cls)) == expected


SIGNING = ["Credential", "SSO", "Profile", "Token", "Config", "MFA", "Metadata"]


@pytest.mark.parametrize("cls", classes(botocore.exceptions, botocore.exceptions.BotoCoreError))
def test_every_exception_of_botocore_is_classified(cls):
    failure = classify(cls)
    if failure.verdict is Verdict.STOP_ACCOUNT:
        assert any(word in cls.__name__ for word in [*SIGNING, "Dependency"])
    if not failure.may_have_landed:
        assert failure.verdict is Verdict.STOP_ACCOUNT or failure.kind is ErrorKind.INVALID


def test_credential_failures_stop_the_account_and_prove_that_nothing_left():
    failure = error_codes.credentials_failure(classify(TimeoutError))
    assert (failure.verdict, failure.may_have_landed) == (Verdict.STOP_ACCOUNT, False)


@given(st.text(), st.integers(1, 50))
def test_cleaned_text_is_bounded_printable_and_valid(text, limit):
    cleaned = error_codes.clean_text(text + "\ud800\x1b[31m\r\n", limit)
    assert len(cleaned) <= limit + 1
    assert cleaned.isprintable()
    cleaned.encode("utf-8")

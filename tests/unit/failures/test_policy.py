"""Every way a try can fail has a kind, a verdict, and an answer to "may it have been carried out?"."""

import inspect
from datetime import UTC, datetime, timedelta
from random import Random

import aiohttp
import botocore.exceptions
import botocore.parsers
import pytest
from botocore.loaders import Loader
from hypothesis import given
from hypothesis import strategies as st

from batch_snapshot.errors import InputError
from batch_snapshot.failures import policy
from batch_snapshot.failures.policy import ErrorResponse, FailureLimit
from batch_snapshot.models import ErrorKind, Verdict

MODEL = Loader().load_service_model("partnercentral-selling", "service-2")
ERROR_SHAPES = sorted(name for name, shape in MODEL["shapes"].items() if shape.get("exception"))


@pytest.mark.parametrize("shape", ERROR_SHAPES)
def test_every_error_shape_of_the_service_has_a_rule(shape):
    assert shape in policy.SERVICE_RULES


def test_the_operations_errors_are_what_the_rules_say():
    rules = {code: policy.SERVICE_RULES[code] for code in ERROR_SHAPES}
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


@pytest.mark.parametrize("code", sorted(policy.SERVICE_RULES))
def test_the_code_decides_not_the_status(code):
    rule = policy.SERVICE_RULES[code]
    for status in (400, 402, 403, 404, 409, 429, None):
        failure = policy.service_failure(ErrorResponse(code=code, message="", http_status=status))
        assert judged(failure) == rule, status


@pytest.mark.parametrize("code", [*ERROR_SHAPES, "SomethingNew"])
def test_a_5xx_may_always_have_been_carried_out(code):
    assert policy.service_failure(ErrorResponse(code=code, message="", http_status=500)).may_have_landed


@pytest.mark.parametrize(("code", "status"), [("503", 503), ("502", 502), ("504", None), ("NewTrouble", 500)])
def test_an_unknown_5xx_is_transient(code, status):
    failure = policy.service_failure(ErrorResponse(code=code, message="<html>", http_status=status))
    assert (failure.kind, failure.verdict) == (ErrorKind.TRANSIENT, Verdict.RETRY)
    assert failure.may_have_landed


def test_an_unknown_4xx_is_a_refusal_of_a_kind_of_its_own():
    failure = policy.service_failure(ErrorResponse(code="BrandNewException", message="no", http_status=400))
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
    return policy.client_failure([parent.__name__ for parent in cls.__mro__], "message")


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
def test_only_a_connection_that_never_stood_proves_that_nothing_was_sent(cls):
    assert classify(cls).may_have_landed == (cls.__name__ not in NEVER_LEFT)


@pytest.mark.parametrize("cls", classes(aiohttp, aiohttp.ClientError))
def test_every_failure_of_the_connection_is_worth_another_try(cls):
    failure = classify(cls)
    assert (failure.kind, failure.verdict) == (ErrorKind.TRANSIENT, Verdict.RETRY)


HTTP_CLASSES = classes(botocore.exceptions, botocore.exceptions.HTTPClientError)


@pytest.mark.parametrize("cls", HTTP_CLASSES)
def test_every_http_failure_of_botocore_may_have_been_carried_out(cls):
    """Without the cause beneath, a reset and a refused connection are one class."""
    failure = classify(cls)
    assert judged(failure) == (
        ErrorKind.TRANSIENT,
        Verdict.RETRY,
        True,
    )


SIGNING = ["Credential", "SSO", "Profile", "Token", "Config", "MFA", "Metadata"]


@pytest.mark.parametrize("cls", classes(botocore.exceptions, botocore.exceptions.BotoCoreError))
def test_every_exception_of_botocore_is_told_apart(cls):
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
def test_trouble_from_beneath_is_ambiguous_and_retried(cls):
    failure = classify(cls)
    assert (failure.verdict, failure.may_have_landed) == (Verdict.RETRY, True)


@pytest.mark.parametrize("cls", [RuntimeError, ZeroDivisionError, MemoryError])
def test_what_nobody_foresaw_is_in_doubt_and_not_repeated(cls):
    failure = classify(cls)
    assert judged(failure) == (
        ErrorKind.UNKNOWN,
        Verdict.REFUSED,
        True,
    )


def test_credentials_stop_the_account_and_prove_that_nothing_left():
    failure = policy.credentials_failure(classify(TimeoutError))
    assert (failure.verdict, failure.may_have_landed) == (Verdict.STOP_ACCOUNT, False)


@given(st.text(), st.integers(1, 50))
def test_cleaned_text_is_bounded_printable_and_valid(text, limit):
    cleaned = policy.clean(text + "\ud800\x1b[31m\r\n", limit)
    assert len(cleaned) <= limit + 1
    assert cleaned.isprintable()
    cleaned.encode("utf-8")


@given(st.integers(1, 10_000), st.integers())
def test_the_backoff_is_bounded_and_never_negative(attempt, seed):
    assert 0 <= policy.backoff(attempt, Random(seed)) <= policy.BACKOFF_CAP


def test_the_backoff_uses_the_whole_range():
    drawn = sorted(policy.backoff(4, Random(seed)) for seed in range(2000))
    assert drawn[0] < 0.05
    assert drawn[-1] > 3.95
    assert sum(drawn) / len(drawn) == pytest.approx(2.0, rel=0.05)


def test_the_backoff_doubles():
    bounds = [max(policy.backoff(attempt, Random(seed)) for seed in range(500)) for attempt in (1, 2, 3)]
    assert bounds == pytest.approx([0.5, 1.0, 2.0], rel=0.02)


NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("ambiguous", "age", "look"),
    [(True, 601, True), (True, 600, False), (False, 6000, False), (True, None, False)],
)
def test_only_old_ambiguity_is_looked_up(ambiguous, age, look):
    first = None if age is None else policy.ClockReading(NOON - timedelta(seconds=age))
    now = policy.ClockReading(NOON)
    assert policy.look_first(ambiguous=ambiguous, known_since=first, now=now, token_ttl=600) is look


@pytest.mark.parametrize(
    ("age", "then", "now", "look"),
    [
        # Ours was set back since: by the service's clock two hours are over, or five minutes.
        (300, -6900.0, 0.0, True),
        (-6900, -7200.0, 0.0, True),
        (600, 7200.0, 7200.0, False),
        # What was not known then: as now, or none.
        (600, None, 0.0, False),
        (600, None, 120.0, True),
        (0, None, -7200.0, True),
        # Nobody knows the age of what comes from the future; a skew is off by a second or two.
        (-60, None, None, True),
        (1, 2.0, 0.0, False),
        (598, 0.0, 2.0, False),
        (1, 5.0, 0.0, True),
    ],
)
def test_a_token_ages_by_the_services_clock(age, then, now, look):
    sent = policy.ClockReading(NOON - timedelta(seconds=age), then)
    today = policy.ClockReading(NOON, now)
    assert policy.look_first(ambiguous=True, known_since=sent, now=today, token_ttl=600) is look


moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))  # noqa: DTZ001
errors = st.floats(-10_000, 10_000)


@given(sent=moments, made=st.floats(-20_000, 20_000), then=errors, now=st.none() | errors)
def test_whatever_the_clocks_say_a_snapshot_is_ours_if_it_was_made_after_the_try(sent, made, then, now):
    """`sent` and `made` by the service's clock; ours was off by `then` and is by `now`."""
    first = policy.ClockReading(sent - timedelta(seconds=then), then)
    created_at = sent + timedelta(seconds=made)
    assert policy.made_since(created_at, first, now) is (made >= -policy.SKEW_ERROR) or abs(made + 1.5) < 0.01
    unknown = policy.made_since(created_at, first._replace(skew=None), now)
    if unknown is not None and now in {then, None} and then == 0:
        assert unknown is (made >= -policy.SKEW_ERROR) or abs(made + 1.5) < 0.01


def test_where_the_clocks_cannot_be_reconciled_a_snapshot_settles_nothing():
    first = policy.ClockReading(NOON)
    for created, answer in ((-3700, False), (-1800, None), (5, True)):
        found = policy.made_since(NOON + timedelta(seconds=created), first, -3600.0)
        assert found is answer


@pytest.mark.parametrize(
    ("limit", "bad", "done", "exceeded"),
    [
        (FailureLimit(), 1000, 1000, False),
        (FailureLimit(count=0), 1, 1, True),
        (FailureLimit(count=3), 3, 3, False),
        (FailureLimit(count=3), 4, 400, True),
        (FailureLimit(percent=10), 50, 99, False),
        (FailureLimit(percent=10), 10, 100, False),
        (FailureLimit(percent=10), 11, 100, True),
        (FailureLimit(percent=0), 1, 100, True),
    ],
)
def test_the_failure_limit(limit, bad, done, exceeded):
    assert limit.exceeded(bad=bad, done=done) is exceeded


@pytest.mark.parametrize(
    ("text", "limit"),
    [("50", FailureLimit(count=50)), ("0", FailureLimit(count=0)), ("2.5%", FailureLimit(percent=2.5))],
)
def test_the_failure_limit_is_read(text, limit):
    assert FailureLimit.parse(text) == limit


@pytest.mark.parametrize("text", ["", "%", "many", "-1", "100%", "1.5", "nan%", "inf%"])
def test_a_failure_limit_that_makes_no_sense_is_refused(text):
    with pytest.raises(InputError, match="--max-failures"):
        FailureLimit.parse(text)

"""What a failed attempt means: its kind, its verdict, and whether it may have been carried out.

Pure tables and functions. Errors of the service are classified by their **code**, never by their
HTTP status: statuses differ between versions of the service model. Errors on this side are classified
by the names of their exception classes, so that none of those libraries is imported here.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from batch_snapshot.models import INVALID_RESPONSE, ErrorKind, Failure, Verdict
from batch_snapshot.text import without_control_characters

#: Characters of a service message that are kept: an answer can be megabytes of HTML.
MESSAGE_LIMIT = 2_000


class Rule(NamedTuple):
    kind: ErrorKind
    verdict: Verdict
    may_have_landed: bool


_THROTTLED = Rule(ErrorKind.TRANSIENT, Verdict.THROTTLED, may_have_landed=False)
_SERVER_SIDE = Rule(ErrorKind.TRANSIENT, Verdict.RETRY, may_have_landed=True)
_NEVER_LEFT = Rule(ErrorKind.TRANSIENT, Verdict.RETRY, may_have_landed=False)
_NO_ANSWER = Rule(ErrorKind.TRANSIENT, Verdict.RETRY, may_have_landed=True)
_DENIED = Rule(ErrorKind.DENIED, Verdict.REFUSED, may_have_landed=False)
_CONFLICT = Rule(ErrorKind.CONFLICT, Verdict.RETRY, may_have_landed=False)
_NOT_FOUND = Rule(ErrorKind.NOT_FOUND, Verdict.REFUSED, may_have_landed=False)
_QUOTA = Rule(ErrorKind.QUOTA, Verdict.REFUSED, may_have_landed=False)
_CREDENTIALS = Rule(ErrorKind.DENIED, Verdict.STOP_ACCOUNT, may_have_landed=False)
_MALFORMED = Rule(ErrorKind.INVALID, Verdict.REFUSED, may_have_landed=False)
_MISCONFIGURED = Rule(ErrorKind.INVALID, Verdict.STOP_ACCOUNT, may_have_landed=False)
_UNKNOWN_REFUSAL = Rule(ErrorKind.UNKNOWN, Verdict.REFUSED, may_have_landed=False)
_UNKNOWN = Rule(ErrorKind.UNKNOWN, Verdict.REFUSED, may_have_landed=True)


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _by_name(*rules: tuple[Rule, *tuple[str, ...]]) -> Mapping[str, Rule]:
    """The rule by name; a line holds names with blanks between them."""
    return {name: rule for rule, *lines in rules for line in lines for name in line.split()}


#: Error codes of the service and of the AWS front end before it.
#: https://docs.aws.amazon.com/partner-central/latest/APIReference/CommonErrors.html
SERVICE_RULES = _by_name(
    (_DENIED, "AccessDeniedException AccessDenied NotAuthorized"),
    (_CONFLICT, "ConflictException"),
    (_NOT_FOUND, "ResourceNotFoundException"),
    (_QUOTA, "ServiceQuotaExceededException"),
    (
        _THROTTLED,
        "ThrottlingException Throttling ThrottledException BandwidthLimitExceeded LimitExceededException",
        "PriorRequestNotComplete RequestLimitExceeded RequestThrottled RequestThrottledException SlowDown",
        "TooManyRequestsException 429",
    ),
    (
        _SERVER_SIDE,
        "InternalServerException InternalError InternalFailure InternalServerError RequestTimeout",
        "RequestTimeoutException ServiceUnavailable ServiceUnavailableException 408",
    ),
    (
        _MALFORMED,
        "ValidationException ValidationError MalformedQueryString SerializationException",
        "UnknownOperationException",
    ),
    (
        _CREDENTIALS,
        "AuthFailure ExpiredToken ExpiredTokenException IncompleteSignature IncompleteSignatureException",
        "InvalidAccessKeyId InvalidClientTokenId InvalidSignatureException InvalidToken",
        "MissingAuthenticationToken MissingAuthenticationTokenException OptInRequired RequestExpired",
        "RequestTimeTooSkewed SignatureDoesNotMatch UnrecognizedClientException",
    ),
)

#: The code of a proxy's 407.
PROXY_LOGIN = "ProxyAuthenticationError"

#: Exception classes of botocore, aiohttp and Python by name; the nearest ancestor decides.
#: "Never left" needs proof: botocore raises the same class for a reset in mid-exchange as for a refused
#: connection (`aws.answers` looks at the cause).
CLIENT_RULES = _by_name(
    # aiohttp, wrapped by botocore: the connection was never established. It raises ConnectionTimeoutError
    # only while connecting.
    (
        _NEVER_LEFT,
        "ClientConnectorError ClientConnectorDNSError ClientConnectorSSLError",
        "ClientConnectorCertificateError ClientProxyConnectionError ClientHttpProxyError",
        "UnixClientConnectorError ServerFingerprintMismatch ConnectionTimeoutError gaierror",
    ),
    # Ours: the proxy settings are wrong, so no call of the account can leave; and before the end of the TLS
    # handshake (see `aws.tls`).
    (
        _MISCONFIGURED,
        "InvalidProxyError ProxyAuthenticationError CertificateRefusedError TrustFileError",
        "UnverifiedError",
    ),
    # The root of aiohttp's tree; botocore's class of this name has a code.
    (_NO_ANSWER, "ClientError"),
    # botocore: the exchange failed at some point.
    (
        _NO_ANSWER,
        "HTTPClientError ResponseStreamingError IncompleteReadError ChecksumError ResponseParserError",
    ),
    # Python: no answer in time, or none that can be read.
    (_NO_ANSWER, "TimeoutError OSError"),
    # Valid JSON of the wrong shape, on which botocore's parsers fail: [] instead of an object.
    (_NO_ANSWER, "AttributeError LookupError RecursionError TypeError ValueError"),
    # botocore: no credentials. CredentialsError is ours: the configured source gives none that work.
    (
        _CREDENTIALS,
        "NoCredentialsError PartialCredentialsError CredentialRetrievalError UnknownCredentialError",
        "CredentialsError InvalidConfigError InfiniteLoopConfigError ConfigNotFound ConfigParseError",
        "MetadataRetrievalError MissingDependencyException NoAuthTokenError ProfileNotFound",
        "RefreshWithMFAUnsupportedError SSOError TokenRetrievalError",
    ),
    # botocore: refused before anything was sent.
    (_MALFORMED, "ParamValidationError MissingParametersError ValidationError"),
    # Anything else: it may have been carried out.
    (_UNKNOWN, "Exception"),
)


def service_failure(
    code: str,
    message: str,
    *,
    reason: str | None = None,
    http_status: int | None = None,
    request_id: str | None = None,
    retry_after: float | None = None,
) -> Failure:
    """Classify an error answer by its code; of the status only 5xx, 3xx and 407 matter."""
    status = http_status or 0
    server_side = status >= 500 or re.fullmatch("[5-9][0-9]{2}", code) is not None
    # The service never redirects: a login page or a proxy does.
    redirect = 300 <= status < 400
    default = "a redirect, which is not followed" if redirect else "no message"
    unknown = _SERVER_SIDE if server_side else _NO_ANSWER if redirect else _UNKNOWN_REFUSAL
    if unknown is _UNKNOWN_REFUSAL and is_foreign(code):
        # A filter that reads answers may have replaced that of a call that was carried out.
        unknown = _UNKNOWN
    rule = SERVICE_RULES.get(code, unknown)
    if status == 407:
        # The service never answers 407: the proxy does, and it has forwarded nothing.
        return client_failure([PROXY_LOGIN], "the proxy answered 407: it wants a user and a password")
    return _failure(
        rule._replace(may_have_landed=rule.may_have_landed or server_side),
        code,
        message or default,
        reason=_shortened(reason),
        http_status=http_status,
        request_id=_shortened(request_id),
        retry_after=retry_after,
    )


def is_foreign(code: str) -> bool:
    """Whether an error answer is not the service's: it names no code, so its status stands for one."""
    return re.fullmatch("[1-4][0-9]{2}|Unknown", code) is not None


def client_failure(class_names: Iterable[str], message: str, *, unconnected: bool = False) -> Failure:
    """Classify an exception on this side by the names of its class and its ancestors, the nearest first.

    If it was raised while `unconnected`, nothing was sent.
    """
    names = list(class_names)
    rule = next((CLIENT_RULES[name] for name in names if name in CLIENT_RULES), _UNKNOWN)
    if unconnected and rule.may_have_landed:
        rule = _NEVER_LEFT
    return _failure(rule, names[0], message or "no message", never_left=not rule.may_have_landed)


def invalid_response(message: str, *, http_status: int | None, request_id: str | None) -> Failure:
    """A 2xx answer that names no snapshot; the snapshot may exist all the same."""
    return _failure(
        _NO_ANSWER, INVALID_RESPONSE, message, http_status=http_status, request_id=_shortened(request_id)
    )


def _failure(rule: Rule, code: str, message: str, **more: Any) -> Failure:
    return Failure(code=clean_text(code, 100), message=clean_text(message), **rule._asdict(), **more)


def _shortened(text: str | None) -> str | None:
    return clean_text(text, 200) if text else None


#: botocore's errors about a setting: they quote its value, which is not secret.
SETTING_ERRORS = _names(
    """
    EndpointVariantError InvalidChecksumConfigError InvalidConfigError InvalidDefaultsMode
    InvalidEndpointConfigurationError InvalidEndpointDiscoveryConfigurationError
    InvalidIMDSEndpointError InvalidIMDSEndpointModeError InvalidMaxRetryAttemptsError
    InvalidRegionError InvalidRetryConfigurationError InvalidRetryModeError
    InvalidS3AddressingStyleError InvalidS3UsEast1RegionalEndpointConfigError
    InvalidSTSRegionalEndpointsConfigError NoRegionError UnknownEndpointError UnknownFIPSEndpointError
    UnknownRegionError UnsupportedS3ConfigurationError
    """
)

#: Errors about a file that cannot be parsed.
PARSER_ERRORS = _names(
    """
    ConfigParseError DuplicateOptionError DuplicateSectionError MissingSectionHeaderError ParsingError
    UnicodeDecodeError
    """
)

#: Errors of credential providers whose messages quote no secret: only names, paths and addresses.
#: botocore raises RuntimeError for refreshed credentials that are expired already.
_SHOWN_ERRORS = SETTING_ERRORS | _names(
    """
    CertificateRefusedError ConfigNotFound CredentialsError InfiniteLoopConfigError MfaCodeError
    NoCredentialsError PartialCredentialsError InvalidProxyError ProfileNotFound
    ProxyAuthenticationError RefreshWithMFAUnsupportedError RuntimeError SSOTokenLoadError TimeoutError
    TrustFileError UnauthorizedSSOTokenError UnknownCredentialError UnverifiedError
    """
)


def credentials_failure(failure: Failure) -> Failure:
    """The same failure while fetching credentials: nothing was sent, and it stops the account.

    The providers have already retried. Messages of a provider, a parser or a helper process may quote
    credentials, so only messages that are known not to are kept.
    """
    of_the_network = failure.kind is ErrorKind.TRANSIENT and failure.verdict is Verdict.RETRY
    if failure.http_status is None and failure.code not in _SHOWN_ERRORS and not of_the_network:
        hidden = "getting credentials failed; the message may contain them, so it is not shown"
        failure = replace(failure, message=hidden)
    return replace(failure, verdict=Verdict.STOP_ACCOUNT, may_have_landed=False, never_left=True)


def is_clock_error(failure: Failure) -> bool:
    if failure.code in {"RequestTimeTooSkewed", "RequestExpired"}:
        return True
    if failure.code not in {"InvalidSignatureException", "SignatureDoesNotMatch"}:
        return False
    return "Signature expired" in failure.message or "Signature not yet current" in failure.message


def clean_text(text: str, limit: int = MESSAGE_LIMIT) -> str:
    return without_control_characters(text, limit)

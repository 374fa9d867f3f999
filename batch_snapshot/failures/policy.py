"""What a failed try means: its kind, its verdict, and whether it may have been carried out.

Pure tables and functions. Errors of the service are told apart by their **code**, never by their
HTTP status: the statuses differ between versions of the service model. Failures on this side are
told apart by the names of their exception classes, so that this room needs none of them imported.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from batch_snapshot.errors import InputError
from batch_snapshot.models import INVALID_RESPONSE, ErrorKind, Failure, RowError, Status, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from random import Random

#: The service's message is kept for people, not for ever: a body can be megabytes of HTML.
MESSAGE_LIMIT = 2_000

#: A conflict that follows no ambiguous try will hardly go away: a concurrent change, at best.
CONFLICT_ATTEMPTS = 3

#: First and largest bound of the backoff, in seconds. Doubled from try to try and drawn in full
#: ("full jitter"): https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
BACKOFF_BASE = 0.5
BACKOFF_CAP = 20.0


#: Seconds by which a skew can be off that was read from a Date header: those have whole seconds.
SKEW_ERROR = 1.5

#: Seconds after a call before its snapshot is sure to show in reads: 3 s have been reported.
READ_LAG = 4.0


class Rule(NamedTuple):
    """How one class of failures is treated."""

    kind: ErrorKind
    verdict: Verdict
    may_have_landed: bool


_THROTTLED = Rule(ErrorKind.TRANSIENT, Verdict.THROTTLED, may_have_landed=False)
_SERVER_SIDE = Rule(ErrorKind.TRANSIENT, Verdict.RETRY, may_have_landed=True)
_NEVER_LEFT = Rule(ErrorKind.TRANSIENT, Verdict.RETRY, may_have_landed=False)
_NO_ANSWER = Rule(ErrorKind.TRANSIENT, Verdict.RETRY, may_have_landed=True)
_CREDENTIALS = Rule(ErrorKind.DENIED, Verdict.STOP_ACCOUNT, may_have_landed=False)
_MALFORMED = Rule(ErrorKind.INVALID, Verdict.REFUSED, may_have_landed=False)
_MISCONFIGURED = Rule(ErrorKind.INVALID, Verdict.STOP_ACCOUNT, may_have_landed=False)
_UNKNOWN_REFUSAL = Rule(ErrorKind.UNKNOWN, Verdict.REFUSED, may_have_landed=False)
_UNKNOWN = Rule(ErrorKind.UNKNOWN, Verdict.REFUSED, may_have_landed=True)

#: Error codes of the service and of the AWS front end before it.
#: https://docs.aws.amazon.com/partner-central/latest/APIReference/CommonErrors.html
SERVICE_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "AccessDeniedException": Rule(ErrorKind.DENIED, Verdict.REFUSED, may_have_landed=False),
        "ConflictException": Rule(ErrorKind.CONFLICT, Verdict.RETRY, may_have_landed=False),
        "InternalServerException": _SERVER_SIDE,
        "ResourceNotFoundException": Rule(ErrorKind.NOT_FOUND, Verdict.REFUSED, may_have_landed=False),
        "ServiceQuotaExceededException": Rule(ErrorKind.QUOTA, Verdict.REFUSED, may_have_landed=False),
        "ThrottlingException": _THROTTLED,
        "ValidationException": _MALFORMED,
        # The front end's words for the same things.
        "AccessDenied": Rule(ErrorKind.DENIED, Verdict.REFUSED, may_have_landed=False),
        "NotAuthorized": Rule(ErrorKind.DENIED, Verdict.REFUSED, may_have_landed=False),
        "BandwidthLimitExceeded": _THROTTLED,
        "LimitExceededException": _THROTTLED,
        "PriorRequestNotComplete": _THROTTLED,
        "RequestLimitExceeded": _THROTTLED,
        "RequestThrottled": _THROTTLED,
        "RequestThrottledException": _THROTTLED,
        "SlowDown": _THROTTLED,
        "Throttling": _THROTTLED,
        "ThrottledException": _THROTTLED,
        "TooManyRequestsException": _THROTTLED,
        "429": _THROTTLED,
        "InternalError": _SERVER_SIDE,
        "InternalFailure": _SERVER_SIDE,
        "InternalServerError": _SERVER_SIDE,
        "RequestTimeout": _SERVER_SIDE,
        "RequestTimeoutException": _SERVER_SIDE,
        "ServiceUnavailable": _SERVER_SIDE,
        "ServiceUnavailableException": _SERVER_SIDE,
        "MalformedQueryString": _MALFORMED,
        "SerializationException": _MALFORMED,
        "UnknownOperationException": _MALFORMED,
        "ValidationError": _MALFORMED,
        "AuthFailure": _CREDENTIALS,
        "ExpiredToken": _CREDENTIALS,
        "ExpiredTokenException": _CREDENTIALS,
        "IncompleteSignature": _CREDENTIALS,
        "IncompleteSignatureException": _CREDENTIALS,
        "InvalidAccessKeyId": _CREDENTIALS,
        "InvalidClientTokenId": _CREDENTIALS,
        "InvalidSignatureException": _CREDENTIALS,
        "InvalidToken": _CREDENTIALS,
        "MissingAuthenticationToken": _CREDENTIALS,
        "MissingAuthenticationTokenException": _CREDENTIALS,
        "OptInRequired": _CREDENTIALS,
        "RequestExpired": _CREDENTIALS,
        "RequestTimeTooSkewed": _CREDENTIALS,
        "SignatureDoesNotMatch": _CREDENTIALS,
        "UnrecognizedClientException": _CREDENTIALS,
    }
)

#: The code of a proxy's 407.
PROXY_LOGIN = "ProxyAuthenticationError"

#: Exception classes of botocore, aiohttp and Python by name; the nearest ancestor decides.
#: "Never left" needs proof: a reset in mid-exchange bears the same class of botocore's as a refused
#: connection (`answers` looks at the error beneath it).
CLIENT_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        # aiohttp, where botocore wrapped it: the connection never stood.
        "ClientConnectorError": _NEVER_LEFT,
        "ClientConnectorDNSError": _NEVER_LEFT,
        "ClientConnectorSSLError": _NEVER_LEFT,
        "ClientConnectorCertificateError": _NEVER_LEFT,
        "ClientProxyConnectionError": _NEVER_LEFT,
        "ClientHttpProxyError": _NEVER_LEFT,
        "UnixClientConnectorError": _NEVER_LEFT,
        "ServerFingerprintMismatch": _NEVER_LEFT,
        "ConnectionTimeoutError": _NEVER_LEFT,  # aiohttp raises it only while it connects
        # Of our own: the settings of the proxy are wrong, so no call of the account can leave.
        "InvalidProxyError": _MISCONFIGURED,
        "ProxyAuthenticationError": _MISCONFIGURED,
        # Of our own, out of the handshake or before it (see `tls`).
        "CertificateRefusedError": _MISCONFIGURED,
        "TrustFileError": _MISCONFIGURED,
        "ClientError": _NO_ANSWER,  # the root of aiohttp's tree; botocore's namesake has a code
        "gaierror": _NEVER_LEFT,
        # botocore: the exchange broke somewhere.
        "HTTPClientError": _NO_ANSWER,
        "ResponseStreamingError": _NO_ANSWER,
        "IncompleteReadError": _NO_ANSWER,
        "ChecksumError": _NO_ANSWER,
        "ResponseParserError": _NO_ANSWER,
        # Python, from beneath: no answer within the time, or none that can be read.
        "TimeoutError": _NO_ANSWER,
        "OSError": _NO_ANSWER,
        # Well-formed nonsense, over which botocore's parsers stumble: [] where an object should be.
        "AttributeError": _NO_ANSWER,
        "LookupError": _NO_ANSWER,
        "RecursionError": _NO_ANSWER,
        "TypeError": _NO_ANSWER,
        "ValueError": _NO_ANSWER,
        # botocore: nothing to sign with.
        "NoCredentialsError": _CREDENTIALS,
        "PartialCredentialsError": _CREDENTIALS,
        "CredentialRetrievalError": _CREDENTIALS,
        "UnknownCredentialError": _CREDENTIALS,
        "CredentialsError": _CREDENTIALS,  # ours: what is configured gives none that can be used
        "InvalidConfigError": _CREDENTIALS,
        "InfiniteLoopConfigError": _CREDENTIALS,
        "ConfigNotFound": _CREDENTIALS,
        "ConfigParseError": _CREDENTIALS,
        "MetadataRetrievalError": _CREDENTIALS,
        "MissingDependencyException": _CREDENTIALS,
        "NoAuthTokenError": _CREDENTIALS,
        "ProfileNotFound": _CREDENTIALS,
        "RefreshWithMFAUnsupportedError": _CREDENTIALS,
        "SSOError": _CREDENTIALS,
        "TokenRetrievalError": _CREDENTIALS,
        # botocore: refused before anything was sent.
        "ParamValidationError": _MALFORMED,
        "MissingParametersError": _MALFORMED,
        "ValidationError": _MALFORMED,
        # Whatever else: nobody can say that it was not carried out.
        "Exception": _UNKNOWN,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorResponse:
    """An error answer of the service, as it came."""

    code: str
    message: str
    reason: str | None = None
    http_status: int | None = None
    request_id: str | None = None
    retry_after: float | None = None


def service_failure(answer: ErrorResponse) -> Failure:
    """Classify an error answer by its code; the status only says whether it was a 5xx."""
    status = answer.http_status or 0
    server_side = status >= 500 or re.fullmatch("[5-9][0-9]{2}", answer.code) is not None
    # The service redirects nobody: a portal or a proxy does, for as long as it stands between.
    redirect = 300 <= status < 400
    unknown = _SERVER_SIDE if server_side else _NO_ANSWER if redirect else _UNKNOWN_REFUSAL
    rule = SERVICE_RULES.get(answer.code, unknown)
    if status == 407:
        # The service answers no such thing: it is the proxy's, which has passed nothing on.
        return client_failure([PROXY_LOGIN], "the proxy answered 407: it wants a user and a password")
    return Failure(
        kind=rule.kind,
        code=clean(answer.code, 100),
        message=clean(answer.message or ("a redirect, which is not followed" if redirect else "no message")),
        verdict=rule.verdict,
        may_have_landed=rule.may_have_landed or server_side,
        reason=clean(answer.reason, 200) if answer.reason else None,
        http_status=answer.http_status,
        request_id=clean(answer.request_id, 200) if answer.request_id else None,
        retry_after=answer.retry_after,
    )


def client_failure(class_names: Iterable[str], message: str, *, unconnected: bool = False) -> Failure:
    """Classify a failure on this side by its class names, the nearest first.

    Args:
        class_names: of the exception and its ancestors.
        message: for people.
        unconnected: it was raised while the connection was being made, so that nothing was sent.
    """
    names = list(class_names)
    rule = next((CLIENT_RULES[name] for name in names if name in CLIENT_RULES), _UNKNOWN)
    if unconnected and rule.may_have_landed:
        rule = _NEVER_LEFT
    return Failure(
        never_left=not rule.may_have_landed,
        kind=rule.kind,
        code=names[0],
        message=clean(message or "no message"),
        verdict=rule.verdict,
        may_have_landed=rule.may_have_landed,
    )


def nonsense(message: str, *, http_status: int | None, request_id: str | None) -> Failure:
    """A success that names no snapshot: garbage looks like that, and so may a snapshot's answer."""
    return Failure(
        kind=ErrorKind.TRANSIENT,
        code=INVALID_RESPONSE,
        message=clean(message),
        verdict=Verdict.RETRY,
        may_have_landed=True,
        http_status=http_status,
        request_id=clean(request_id, 200) if request_id else None,
    )


#: botocore's errors over a setting: they quote its value, which is no secret.
_SETTINGS = frozenset(
    {
        "EndpointVariantError",
        "InvalidChecksumConfigError",
        "InvalidConfigError",
        "InvalidDefaultsMode",
        "InvalidEndpointConfigurationError",
        "InvalidEndpointDiscoveryConfigurationError",
        "InvalidIMDSEndpointError",
        "InvalidIMDSEndpointModeError",
        "InvalidMaxRetryAttemptsError",
        "InvalidRegionError",
        "InvalidRetryConfigurationError",
        "InvalidRetryModeError",
        "InvalidS3AddressingStyleError",
        "InvalidS3UsEast1RegionalEndpointConfigError",
        "InvalidSTSRegionalEndpointsConfigError",
        "NoRegionError",
        "UnknownEndpointError",
        "UnknownFIPSEndpointError",
        "UnknownRegionError",
        "UnsupportedS3ConfigurationError",
    }
)

#: Failures to get credentials whose words quote none: names, paths, and addresses.
_TELLABLE = frozenset(
    {
        "CertificateRefusedError",
        "ConfigNotFound",
        "CredentialsError",
        "InfiniteLoopConfigError",
        "MfaCodeError",
        "NoCredentialsError",
        *_SETTINGS,
        "PartialCredentialsError",
        "InvalidProxyError",
        "ProfileNotFound",
        "ProxyAuthenticationError",
        "RefreshWithMFAUnsupportedError",
        "RuntimeError",  # botocore: refreshed credentials that are expired already
        "SSOTokenLoadError",
        "TimeoutError",
        "TrustFileError",
        "UnauthorizedSSOTokenError",
        "UnknownCredentialError",
    }
)


def credentials_failure(failure: Failure) -> Failure:
    """The same failure, met while credentials were fetched: nothing was sent, for any row.

    The providers have retried on their own by then, so it stops the account. What a provider, a
    parser or a helper process says may quote credentials, so only what is known not to is told.
    """
    of_the_network = failure.kind is ErrorKind.TRANSIENT and failure.verdict is Verdict.RETRY
    if failure.http_status is None and failure.code not in _TELLABLE and not of_the_network:
        hidden = "getting credentials failed, and what was said may quote them, so it is not shown"
        failure = replace(failure, message=hidden)
    return replace(failure, verdict=Verdict.STOP_ACCOUNT, may_have_landed=False, never_left=True)


_CORRECT_FILE = "correct that file and run the same command again"

#: What to do about credentials that don't work, by the error's code; else the general advice.
_CREDENTIALS_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "NoCredentialsError": "name a profile or a role_arn in the manifest, or set AWS_PROFILE",
        "ProfileNotFound": "name one that `aws configure list-profiles` shows",
        "SSOTokenLoadError": "run: aws sso login{profile}",
        "UnauthorizedSSOTokenError": "run: aws sso login{profile}",
        "TokenRetrievalError": "run: aws sso login{profile}",
        "MfaCodeError": "then run the same command again",
        "RequestTimeTooSkewed": "set this machine's clock",
        "RequestExpired": "set this machine's clock",
        "CertificateRefusedError": "nothing was sent; if a proxy of your company opens TLS, name the "
        "file with its CA certificate in AWS_CA_BUNDLE, else check the endpoint URL, HTTPS_PROXY and the "
        "machine's clock",
        "TrustFileError": "name a readable PEM file there, or remove the setting",
        "InvalidProxyError": "correct HTTPS_PROXY or HTTP_PROXY (http://host:port), or name the endpoint's "
        "host in NO_PROXY",
        "ProxyAuthenticationError": "put the proxy's user and password into HTTPS_PROXY or HTTP_PROXY "
        "(http://user:password@host:port), or name the endpoint's host in NO_PROXY",
        "CredentialsError": "correct that and run the same command again",
        "ConfigParseError": _CORRECT_FILE,
        "DuplicateOptionError": _CORRECT_FILE,
        "DuplicateSectionError": _CORRECT_FILE,
        "MissingSectionHeaderError": _CORRECT_FILE,
        "ParsingError": _CORRECT_FILE,
        "UnicodeDecodeError": _CORRECT_FILE,
        **dict.fromkeys(
            _SETTINGS, "correct that setting in the AWS config file or the environment (AWS_…) and run again"
        ),
    }
)

#: The same by the provider of the credentials, as botocore names it.
_PROVIDER_ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "assume-role": "check role_arn{of} and what it is assumed with (source_profile, credential_source), "
        "and let the role's trust policy name whose credentials those are",
        "assume-role-with-web-identity": "check the web identity token file and the role{of} (or "
        "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN), and let its trust policy name who issues the token",
        "container-role": "check the task role (ECS) or the pod identity (EKS) of this container, and "
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "custom-process": "run the credential_process{of} by hand to see why",
        "env": "renew the credentials and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
        "iam-role": "check that this instance has an instance profile, and that its role may be used",
        "sso": "run: aws sso login{profile}",
    }
)


def credentials_advice(code: str, profile: str | None, provider: str | None = None) -> str:
    """Say what a person can do about credentials of `provider` that failed with `code`."""
    general = "renew the credentials{of} and run the same command again"
    advice = _CREDENTIALS_ADVICE.get(code) or _PROVIDER_ADVICE.get(provider or "", general)
    flag, of = (f" --profile {profile}", f" of profile {profile}") if profile else ("", "")
    return advice.format(profile=flag, of=of)


def role_advice(failure: Failure, role: str, profile: str | None) -> str:
    """Say what a person can do about a role that could not be assumed."""
    of = f" of profile {profile}" if profile else ""
    if failure.kind is ErrorKind.TRANSIENT:
        return f"STS could not be had for role {role} in several tries: run the same command again later"
    if failure.code in {"AccessDenied", "AccessDeniedException"}:
        return (
            f"let the trust policy of {role} name whose the credentials{of} are, and the external_id of the "
            "manifest if there is one, and let these call sts:AssumeRole; then run the same command again"
        )
    return credentials_advice(failure.code, profile)


def blames_clock(failure: Failure) -> bool:
    """Whether a signature was refused for its time: our clock is off, or the service's."""
    if failure.code in {"RequestTimeTooSkewed", "RequestExpired"}:
        return True
    if failure.code not in {"InvalidSignatureException", "SignatureDoesNotMatch"}:
        return False
    return "Signature expired" in failure.message or "Signature not yet current" in failure.message


def clean(text: str, limit: int = MESSAGE_LIMIT) -> str:
    """`text` as it can be stored and shown: valid Unicode, no control characters, bounded."""
    text = text[: limit + 1].encode("utf-8", "replace").decode()
    if not text.isprintable():
        text = "".join(char if char.isprintable() else " " for char in text)
    return text if len(text) <= limit else text[:limit] + "…"


def worth_another_try(failure: Failure, *, attempt: int, ambiguous: bool) -> bool:
    """Whether the row is tried again after attempt number `attempt` (from 1) failed like this.

    After an ambiguous try a conflict says that the earlier one landed or still runs, and its
    replay will answer in time; without one, few tries tell whether the conflict passes.
    """
    if failure.verdict is not Verdict.RETRY:
        return False
    return failure.kind is not ErrorKind.CONFLICT or ambiguous or attempt < CONFLICT_ATTEMPTS


def backoff(attempt: int, rng: Random) -> float:
    """Seconds to wait after attempt number `attempt` (from 1): exponential, full jitter."""
    bound = min(BACKOFF_CAP, BACKOFF_BASE * 2.0 ** min(attempt - 1, 30))
    return rng.uniform(0, bound)


class ClockReading(NamedTuple):
    """What our clock said, and how far the service's was ahead of it then."""

    at: datetime
    #: The service's clock less ours, in seconds; None: the service had not told.
    skew: float | None = None


def service_times(then: ClockReading, skew_now: float | None) -> tuple[datetime, ...]:
    """What the service's clock may have said at a moment that ours has noted, earliest first.

    Our clock may have been set since, so that only the skew of that moment counts. Where it was not
    known, our clock was as far off as it is now, or right.
    """
    skews = {skew_now or 0.0, 0.0} if then.skew is None else {then.skew}
    return tuple(then.at + timedelta(seconds=skew) for skew in sorted(skews))


def look_first(
    *, ambiguous: bool, known_since: ClockReading | None, now: ClockReading, token_ttl: float
) -> bool:
    """Whether a snapshot must be looked for before the token is sent again.

    Nobody knows how long the service remembers a token; for `token_ttl` seconds it is trusted to, by our
    clock and by the service's: the one may have been set since, the other misread by a second or two. A
    token from the future is of an age that nobody knows.
    """
    if not ambiguous or known_since is None:
        return False
    waited = (now.at - known_since.at).total_seconds()
    today = now.at + timedelta(seconds=now.skew or 0.0)
    passed = [(today - since).total_seconds() for since in service_times(known_since, now.skew)]
    young = all(-2 * SKEW_ERROR <= age <= token_ttl for age in passed)
    return not (0 <= waited <= token_ttl and young)


def made_since(created_at: datetime, first: ClockReading, skew_now: float | None) -> bool | None:
    """Whether a snapshot was made after a first try, by the service's clock; None: nobody can tell."""
    margin = timedelta(seconds=SKEW_ERROR)
    answers = {created_at >= since - margin for since in service_times(first, skew_now)}
    return answers.pop() if len(answers) == 1 else None


#: A found snapshot that nobody can tell from one that was there before.
CLOCKS_DISAGREE = Failure(
    kind=ErrorKind.TRANSIENT,
    code="ClocksDisagree",
    message="a snapshot is there, but whether this row's try made it cannot be told: this machine's clock is "
    "off, and by how much it was when the row was first sent is not known; compare the snapshot with "
    "first_sent_at, and to make one all the same use --resend-in-doubt",
    verdict=Verdict.REFUSED,
    may_have_landed=False,
)


def look_after(failure: Failure, *, ambiguous: bool) -> bool:
    """Whether a failure hints that an earlier, ambiguous try landed, so that looking may settle it."""
    return ambiguous and failure.kind is ErrorKind.CONFLICT


def read_lag_left(last_sent_at: datetime, now: datetime, read_lag: float) -> float:
    """Seconds to wait before a look can be trusted to show what was sent last."""
    return min(read_lag, max(0.0, read_lag - (now - last_sent_at).total_seconds()))


def final_status(*, ambiguous: bool) -> Status:
    """What a row is that will not be tried again: refused for good only where no try is open."""
    return Status.IN_DOUBT if ambiguous else Status.FAILED


def row_error(failure: Failure) -> RowError:
    """The part of a failure that the ledger keeps."""
    return RowError(failure.kind, failure.code, failure.message, failure.reason, failure.http_status)


@dataclass(frozen=True, slots=True)
class FailureLimit:
    """`--max-failures N|P%`: more failed or doubtful rows than this stop the run."""

    count: int | None = None
    #: Counts from `PERCENT_FROM` rows on, so that one early failure is not 100 %.
    percent: float | None = None

    PERCENT_FROM = 100

    @classmethod
    def parse(cls, text: str) -> FailureLimit:
        """Read `50` or `5%`.

        Raises:
            InputError: for anything else.
        """
        number = text.removesuffix("%").strip()
        try:
            if text.endswith("%"):
                if 0 <= float(number) < 100:
                    return cls(percent=float(number))
            elif int(number) >= 0:
                return cls(count=int(number))
        except ValueError:
            pass
        raise InputError(f"--max-failures {text}: give a number of rows (50) or a share under 100 % (5%)")

    def exceeded(self, *, bad: int, done: int) -> bool:
        """Whether `bad` of `done` rows are more than allowed."""
        if self.count is not None:
            return bad > self.count
        if self.percent is not None:
            return done >= self.PERCENT_FROM and bad * 100 > self.percent * done
        return False


#: Failed rows never stop the run.
NO_LIMIT = FailureLimit()

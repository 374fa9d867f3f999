"""What a person can do about credentials that do not work. Pure."""

from collections.abc import Mapping

from batch_snapshot.failures.error_codes import PARSER_ERRORS, SETTING_ERRORS
from batch_snapshot.models import ErrorKind, Failure

#: By error code.
_CREDENTIALS_ADVICE: Mapping[str, str] = {
    "NoCredentialsError": "name a profile or a role_arn in the manifest, or set AWS_PROFILE",
    "ProfileNotFound": "name one that `aws configure list-profiles` shows",
    "SSOTokenLoadError": "run: aws sso login{profile}",
    "UnauthorizedSSOTokenError": "run: aws sso login{profile}",
    "TokenRetrievalError": "run: aws sso login{profile}",
    "MfaCodeError": "then run the same command again",
    "RequestTimeTooSkewed": "set this machine's clock",
    "RequestExpired": "set this machine's clock",
    "CertificateRefusedError": "nothing was sent; if your company's proxy inspects TLS, name the "
    "file with its CA certificate in AWS_CA_BUNDLE, else check the endpoint URL, HTTPS_PROXY and the "
    "machine's clock",
    "TrustFileError": "name a readable PEM file there, or remove the setting",
    "UnverifiedError": "nothing was sent; install the versions in requirements.lock",
    "InvalidProxyError": "correct HTTPS_PROXY or HTTP_PROXY (http://host:port), or name the endpoint's "
    "host in NO_PROXY",
    "ProxyAuthenticationError": "put the proxy's user and password into HTTPS_PROXY or HTTP_PROXY "
    "(http://user:password@host:port), or name the endpoint's host in NO_PROXY",
    "CredentialsError": "correct that and run the same command again",
    **dict.fromkeys(PARSER_ERRORS, "correct that file and run the same command again"),
    **dict.fromkeys(
        SETTING_ERRORS,
        "correct that setting in the AWS config file or the environment (AWS_…) and run again",
    ),
}

#: By the credential provider, as botocore names it.
_PROVIDER_ADVICE: Mapping[str, str] = {
    "assume-role": "check role_arn{of} and the credentials that assume it (source_profile, "
    "credential_source), and allow their owner in the role's trust policy",
    "assume-role-with-web-identity": "check the web identity token file and the role{of} (or "
    "AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN), and allow the issuer of the token in its trust "
    "policy",
    "container-role": "check the task role (ECS) or the pod identity (EKS) of this container, and "
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "custom-process": "run the credential_process{of} by hand to see why",
    "env": "renew the credentials and set AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN",
    "iam-role": "check that this instance has an instance profile, and that its role may be used",
    "sso": "run: aws sso login{profile}",
}


def credentials_advice(code: str, profile: str | None, provider: str | None = None) -> str:
    """What to do about credentials of `provider` that failed with `code`."""
    general = "renew the credentials{of} and run the same command again"
    advice = _CREDENTIALS_ADVICE.get(code) or _PROVIDER_ADVICE.get(provider or "", general)
    flag, of = (f" --profile {profile}", f" of profile {profile}") if profile else ("", "")
    return advice.format(profile=flag, of=of)


def role_advice(failure: Failure, role: str, profile: str | None) -> str:
    of = f" of profile {profile}" if profile else ""
    if failure.kind is ErrorKind.TRANSIENT:
        return f"STS did not answer for role {role} in several tries: run the same command again later"
    if failure.code in {"AccessDenied", "AccessDeniedException"}:
        return (
            f"allow the owner of the credentials{of} in the trust policy of {role}, with the external_id "
            "of the manifest if it has one, and allow them sts:AssumeRole; then run the same command again"
        )
    return credentials_advice(failure.code, profile)

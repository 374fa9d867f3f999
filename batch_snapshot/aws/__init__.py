"""AWS: the only package that imports aioboto3, aiobotocore and botocore.

Exports clients that make one HTTP exchange a call (`client`), credentials and who signs (`credentials`,
`providers`, `mfa`, `profiles`), the HTTP transport (`http`, `tls`), where calls go
(`target`), and messages to SNS topics (`sns`).
It knows errors and values, but neither ledgers, nor paces, nor jobs.
"""

__all__ = [
    "client",
    "credentials",
    "http",
    "mfa",
    "profiles",
    "providers",
    "sns",
    "target",
    "tls",
]

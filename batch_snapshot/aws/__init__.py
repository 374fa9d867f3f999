"""AWS: the only package that imports aioboto3, aiobotocore and botocore.

Exports clients that make one HTTP exchange a call (`client`), where calls go (`target`), the HTTP transport
(`http`, `tls`), the endpoints that profiles name (`profiles`), prompts for MFA codes (`mfa`), messages to SNS
topics (`sns`), and warnings about versions of the AWS libraries (`sdk`). Inside, `credentials`, `providers`
and `signing` find out who signs, `fast_call` makes the create calls, and `answers` turns what came back into
receipts and failures.
It knows errors, values and operations, but neither ledgers, nor paces, nor jobs.
"""

__all__ = ["client", "http", "mfa", "profiles", "sdk", "sns", "target", "tls"]

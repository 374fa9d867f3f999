"""moto's STS and IAM in a process of its own: IAM policies decide who may assume which role.

It checks signatures, keys and policies, and issues keys that expire. It has no trust policies (the external
id only shows in what it records), and it never throttles or fails.
"""

import json
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.request import Request, urlopen

import boto3

_POLICY = "assume"


class StsServer(NamedTuple):
    """A running STS."""

    url: str

    def user(self, name: str, *roles: str) -> tuple[str, str]:
        """Make a user who may assume these roles; its access key's id and secret."""
        self._enforced(on=False)
        self._iam.create_user(UserName=name)
        key = self._iam.create_access_key(UserName=name)["AccessKey"]
        self.allow(name, *roles)
        return key["AccessKeyId"], key["SecretAccessKey"]

    def allow(self, name: str, *roles: str) -> None:
        """Let a user assume these roles from now on, and no others."""
        self._enforced(on=False)
        statement = {
            "Effect": "Allow",
            "Action": "sts:AssumeRole",
            "Resource": [*roles, "arn:aws:iam::0:role/-"],
        }
        document = {"Version": "2012-10-17", "Statement": [statement]}
        self._iam.put_user_policy(UserName=name, PolicyName=_POLICY, PolicyDocument=json.dumps(document))
        self._enforced(on=True)

    @property
    def assumed(self) -> list[dict[str, Any]]:
        """The role of each call of AssumeRole."""
        with urlopen(f"{self.url}/moto-api/data.json") as answer:
            found: list[dict[str, Any]] = json.load(answer)["sts"]["AssumedRole"]
        return found

    def reset(self) -> None:
        """Forget users and roles."""
        self._enforced(on=False)
        self._post("reset", "")

    @property
    def _iam(self) -> Any:
        keys = {"aws_access_key_id": "setup", "aws_secret_access_key": "setup"}
        return boto3.client("iam", region_name="us-east-1", endpoint_url=self.url, **keys)

    def _enforced(self, *, on: bool) -> None:
        self._post("reset-auth", "0" if on else "inf")

    def _post(self, what: str, body: str) -> None:
        headers = {"Content-Type": "application/octet-stream"}
        request = Request(f"{self.url}/moto-api/{what}", body.encode(), headers, method="POST")
        with urlopen(request) as answer:
            assert answer.status == 200


@contextmanager
def serve_sts() -> Iterator[StsServer]:
    """Serve on loopback for the length of the block."""
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
    with (
        subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process,
        ThreadPoolExecutor(1) as reader,
    ):
        try:
            assert process.stdout
            lines = (re.search(rb"Running on (http://\S+)", line) for line in process.stdout)
            url = next(filter(None, lines), None)
            assert url, "moto has ended"
            # Drain the rest of its output, so that it never blocks.
            reader.submit(deque, process.stdout, 0)
            yield StsServer(url[1].decode())
        finally:
            process.terminate()

"""An S3 server that checks who asks: access keys, signatures, and IAM policies.

moto, with its authorization on. It compares actions and resources, not conditions.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import boto3

from support.stores import make_bucket, running_moto

_EVERYTHING = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}],
}
_numbers = itertools.count(1)


@dataclass(frozen=True)
class User:
    """An IAM user with one access key."""

    name: str
    secret: Mapping[str, str]

    @property
    def as_lines(self) -> str:
        """The secret as `credential add` reads it."""
        return "\n".join(f"{name}={value}" for name, value in self.secret.items())


class StrictS3:
    """The server at ``url``; buckets and users are its administrator's to make."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._admin: Mapping[str, str] = {"access_key_id": "AKIANOBODY", "secret_access_key": "x"}
        self._admin = self.user(_EVERYTHING).secret
        # From now on, as the first so many requests were let through.
        switch = Request(  # noqa: S310  # loopback
            f"{url}/moto-api/reset-auth", data=b"0", headers={"Content-Type": "text/plain"}
        )
        with urlopen(switch, timeout=30) as answer:  # noqa: S310  # loopback
            answer.read()

    def client(self, service: str) -> Any:
        """The administrator's client."""
        return boto3.client(  # type: ignore[call-overload]  # the stubs want literal names
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self._admin["access_key_id"],
            aws_secret_access_key=self._admin["secret_access_key"],
        )

    def bucket(self) -> str:
        """A new bucket."""
        return make_bucket(self.url, secret=self._admin)

    def user(self, policy: Mapping[str, Any]) -> User:
        """A new user with this policy and a key."""
        name = f"user-{next(_numbers)}"
        iam = self.client("iam")
        iam.create_user(UserName=name)
        iam.put_user_policy(UserName=name, PolicyName="given", PolicyDocument=json.dumps(policy))
        key = iam.create_access_key(UserName=name)["AccessKey"]
        iam.close()
        secret = {"access_key_id": key["AccessKeyId"], "secret_access_key": key["SecretAccessKey"]}
        return User(name, secret)

    def allow(self, user: User, policy: Mapping[str, Any]) -> None:
        """Replace the user's policy."""
        iam = self.client("iam")
        iam.put_user_policy(
            UserName=user.name, PolicyName="given", PolicyDocument=json.dumps(policy)
        )
        iam.close()

    def delete_key(self, user: User) -> None:
        """The user's key is refused from now on."""
        iam = self.client("iam")
        iam.delete_access_key(UserName=user.name, AccessKeyId=user.secret["access_key_id"])
        iam.close()


@contextmanager
def running_strict_s3() -> Iterator[StrictS3]:
    """The server on a free loopback port."""
    with running_moto() as url:
        yield StrictS3(url)

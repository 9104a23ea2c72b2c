"""The rights that a stream needs at its store and no more, as its cloud takes them."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

import orjson

from auditstore.streams import Stream

_BLOBS: Final = "Microsoft.Storage/storageAccounts/blobServices/containers/blobs"


@dataclass(frozen=True, slots=True)
class LeastPrivilege:
    """``document`` is a policy or role in the cloud's JSON; ``commands`` put it in force."""

    kind: str
    title: str
    document: dict[str, Any] | None = None
    commands: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def least_privilege(stream: Stream) -> LeastPrivilege:
    """What the credential of this stream must be allowed, exactly."""
    scheme = stream.destination.scheme
    if scheme == "s3":
        return _iam_policy(stream)
    return _azure_role(stream) if scheme == "azure" else _folder(stream)


# --- S3 ---------------------------------------------------------------------------


def _iam_policy(stream: Stream) -> LeastPrivilege:
    destination = stream.destination
    partition = _partition(stream.region)
    bucket = f"arn:{partition}:s3:::{destination.bucket}"
    prefix = f"{_literal(destination.prefix)}/" if destination.prefix else ""
    listing: dict[str, Any] = {
        "Sid": "ListForReconcilingAndAfterRestarts",
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": bucket,
    }
    if prefix:
        listing["Condition"] = {"StringLike": {"s3:prefix": f"{prefix}*"}}
    statements = [
        {
            "Sid": "WriteFiles",
            "Effect": "Allow",
            "Action": "s3:PutObject",
            "Resource": f"{bucket}/{prefix}*",
        },
        {
            "Sid": "ReadForComparing",
            "Effect": "Allow",
            "Action": "s3:GetObject",
            "Resource": f"{bucket}/{prefix}*",
        },
        listing,
    ]
    notes = ["Neither deleting nor anything outside of the prefix is needed."]
    if stream.options.get("sse", "").startswith("aws:kms"):
        key, remark = _kms(stream, partition)
        statements.append(key)
        notes.append(remark)
    return LeastPrivilege(
        "iam-policy", "IAM policy", {"Version": "2012-10-17", "Statement": statements},
        notes=tuple(notes),
    )  # fmt: skip


def _kms(stream: Stream, partition: str) -> tuple[dict[str, Any], str]:
    statement: dict[str, Any] = {
        "Sid": "UseTheKey",
        "Effect": "Allow",
        "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
    }
    key = stream.options.get("kms_key_id", "alias/aws/s3")
    region = stream.region or "*"
    if key.startswith("arn:"):
        # An alias of another account is named by its ARN; a policy needs the key's own.
        region, _, name = key.split(":", 5)[3:6]
        account = key.split(":", 5)[4]
    else:
        account, name = "*", key
    if name.startswith("alias/"):
        statement["Resource"] = f"arn:{partition}:kms:{region}:{account}:key/*"
        statement["Condition"] = {"ForAnyValue:StringEquals": {"kms:ResourceAliases": name}}
    else:
        resource = name if name.startswith("key/") else f"key/{name}"
        statement["Resource"] = f"arn:{partition}:kms:{region}:{account}:{resource}"
    return statement, "The key's own policy must let the account's IAM policies decide."


def _partition(region: str | None) -> str:
    for start, partition in (("cn-", "aws-cn"), ("us-gov-", "aws-us-gov")):
        if (region or "").startswith(start):
            return partition
    return "aws"


def _literal(text: str) -> str:
    """As a policy writes it, where ``*``, ``?`` and ``$`` mean something."""
    return re.sub(r"[*?$]", lambda found: f"${{{found[0]}}}", text)


# --- Azure ------------------------------------------------------------------------


def _azure_role(stream: Stream) -> LeastPrivilege:
    destination = stream.destination
    account = _account(stream)
    name = "Audit store exporter"
    subscription = "/subscriptions/<subscription>"
    scope = (
        f"{subscription}/resourceGroups/<group>/providers/Microsoft.Storage/storageAccounts/"
        f"{account}/blobServices/default/containers/{destination.bucket}"
    )
    role: dict[str, Any] = {
        "Name": name,
        "Description": "Add new blobs, read and list them; no overwriting, no deleting",
        "Actions": [],
        "DataActions": [f"{_BLOBS}/add/action", f"{_BLOBS}/read"],
        "AssignableScopes": [subscription],
    }
    return LeastPrivilege(
        "azure-role", "Azure role", role,
        (
            f"az role definition create --role-definition {shlex.quote(_compact(role))}",
            (
                f"az role assignment create --role {shlex.quote(name)} --assignee <identity>"
                f" --scope {shlex.quote(scope)}"
            ),
        ),
        (
            "It is given for the container: Azure's roles know no prefix.",
            (
                f"For a SAS instead: az storage container generate-sas --account-name {account}"
                f" --name {destination.bucket} --permissions crl --https-only --expiry <date>"
            ),
        ),
    )  # fmt: skip


def _account(stream: Stream) -> str:
    host = urlsplit(stream.destination.endpoint_url or "").hostname or ""
    return host.partition(".")[0] if ".blob." in host else "<account>"


def _compact(value: object) -> str:
    return orjson.dumps(value).decode()


# --- a folder ---------------------------------------------------------------------


def _folder(stream: Stream) -> LeastPrivilege:
    folder = shlex.quote(stream.destination.bucket)
    return LeastPrivilege(
        "folder", "Permissions", None,
        (f"install -d -m 750 -o <exporter's user> -g <readers' group> {folder}",),
        (
            (
                "The exporter's user reads and writes the folder and all below, and passes through"
                " every folder above."
            ),
            "The file system has hard links, by which files appear whole and none is overwritten.",
        ),
    )  # fmt: skip

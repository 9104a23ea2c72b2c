"""The rights that a stream needs, as each cloud takes them."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import pytest
from sqlalchemy import Engine

from auditstore import streams
from auditstore.cli.doctor.least_privilege import LeastPrivilege, least_privilege
from auditstore.cli.store_test import verification_key
from auditstore.layout import join, static_prefix
from auditstore.sql.server import clock
from auditstore.streams import NewStream, Stream


def add(engine: Engine, url: str, **more: Any) -> Stream:
    """A stream to this place."""
    with engine.begin() as connection:
        return streams.add(connection, NewStream("flow/1", url, **more), actor="me")


def statement(rights: LeastPrivilege, sid: str) -> dict[str, Any]:
    """One statement of a policy."""
    assert rights.document is not None
    (found,) = [each for each in rights.document["Statement"] if each["Sid"].startswith(sid)]
    return dict(found)


def test_a_policy_for_a_prefix(engine: Engine) -> None:
    """Three actions, and each listing that we make has a prefix that the condition allows."""
    stream = add(engine, "s3://some-bucket/some/prefix")
    rights = least_privilege(stream)
    assert rights.document is not None
    assert [each["Action"] for each in rights.document["Statement"]] == [
        "s3:PutObject", "s3:GetObject", "s3:ListBucket",
    ]  # fmt: skip
    assert statement(rights, "Write")["Resource"] == "arn:aws:s3:::some-bucket/some/prefix/*"
    listing = statement(rights, "List")
    assert listing["Resource"] == "arn:aws:s3:::some-bucket"
    pattern = listing["Condition"]["StringLike"]["s3:prefix"]
    prefix = stream.destination.prefix
    with engine.connect() as connection:
        tested = verification_key(stream, clock(connection))
    history = static_prefix(
        stream.key_template, prefix=prefix, flow_id=stream.flow_id, stream_id=stream.stream_id
    )
    for listed in (tested, history, join(prefix, "")):
        assert fnmatchcase(listed, pattern)
    assert not fnmatchcase("some/prefix2/x", pattern)


def test_a_policy_for_a_whole_bucket(engine: Engine) -> None:
    """Without a prefix there is nothing to condition."""
    rights = least_privilege(add(engine, "s3://some-bucket"))
    assert statement(rights, "Write")["Resource"] == "arn:aws:s3:::some-bucket/*"
    assert "Condition" not in statement(rights, "List")


def test_what_means_something_in_a_policy_is_written_so_that_it_does_not(engine: Engine) -> None:
    """A prefix may hold stars and dollar signs."""
    rights = least_privilege(add(engine, "s3://some-bucket/a*b$c"))
    assert statement(rights, "Write")["Resource"].endswith(":some-bucket/a${*}b${$}c/*")


@pytest.mark.parametrize(
    ("region", "partition"),
    [("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")],
)
def test_other_partitions_have_other_names(engine: Engine, region: str, partition: str) -> None:
    """China and the government clouds."""
    rights = least_privilege(add(engine, "s3://some-bucket", region=region))
    assert statement(rights, "List")["Resource"] == f"arn:{partition}:s3:::some-bucket"


@pytest.mark.parametrize(
    ("key", "resource", "alias"),
    [
        (None, "arn:aws:kms:eu-west-1:*:key/*", "alias/aws/s3"),
        ("alias/mine", "arn:aws:kms:eu-west-1:*:key/*", "alias/mine"),
        ("1234-5678", "arn:aws:kms:eu-west-1:*:key/1234-5678", None),
        ("arn:aws:kms:eu-west-2:111122223333:key/1-2", "arn:aws:kms:eu-west-2:111122223333:key/1-2",
         None),
        ("arn:aws:kms:eu-west-2:111122223333:alias/a", "arn:aws:kms:eu-west-2:111122223333:key/*",
         "alias/a"),
    ],
)  # fmt: skip
def test_an_encryption_key_is_named_as_a_policy_takes_it(
    engine: Engine, key: str | None, resource: str, alias: str | None
) -> None:
    """Ids and ARNs are resources; an alias can only be a condition."""
    options = {"sse": "aws:kms"} | ({"kms_key_id": key} if key else {})
    stream = add(engine, "s3://some-bucket", region="eu-west-1", options=options)
    found = statement(least_privilege(stream), "Use")
    assert found["Action"] == ["kms:GenerateDataKey", "kms:Decrypt"]
    assert found["Resource"] == resource
    condition = found.get("Condition", {}).get("ForAnyValue:StringEquals", {})
    assert condition.get("kms:ResourceAliases") == alias


def test_without_a_key_service_none_is_asked_for(engine: Engine) -> None:
    """SSE-S3 needs no right of its own."""
    rights = least_privilege(add(engine, "s3://some-bucket", options={"sse": "AES256"}))
    assert rights.document is not None
    assert "kms" not in str(rights.document)


def test_an_azure_role_can_add_and_neither_overwrite_nor_delete(engine: Engine) -> None:
    """With the commands that make it and give it for the container."""
    stream = add(engine, "azure://some-container/p",
                 endpoint_url="https://leads.blob.core.windows.net")  # fmt: skip
    rights = least_privilege(stream)
    assert rights.document is not None
    actions = rights.document["DataActions"]
    assert [action.rpartition("blobs/")[2] for action in actions] == ["add/action", "read"]
    define, assign = rights.commands
    assert define.startswith("az role definition create --role-definition '{")
    assert "/storageAccounts/leads/blobServices/default/containers/some-container" in assign
    assert "--permissions crl" in rights.notes[1]
    unnamed = least_privilege(add(engine, "azure://other-container"))
    assert "/storageAccounts/<account>/" in unnamed.commands[1]


def test_a_folder_has_permissions(engine: Engine) -> None:
    """A command for a shell, whatever the folder is called."""
    rights = least_privilege(add(engine, "file:///srv/it%27s%20here"))
    assert rights.document is None
    assert rights.commands[0].endswith("""'/srv/it'"'"'s here'""")

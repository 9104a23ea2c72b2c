"""What a bucket says of itself: versions, Object Lock, and the server's clock."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from botocore.exceptions import ClientError

from auditstore.objects import Fact, Inspection
from exporters.stores.server_clock import clock_ahead

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_NOT_OFFERED: Final = "not offered by this server"
_NO_LOCK: Final = frozenset(
    {"ObjectLockConfigurationNotFoundError", "NoSuchObjectLockConfiguration"}
)
_UNKNOWN_REQUESTS: Final = frozenset({"NotImplemented", "MethodNotAllowed"})


def inspect_bucket(
    client: S3Client, common: Mapping[str, Any], now: Callable[[], datetime]
) -> Inspection:
    """Ask; raises ClientError for what is neither an answer nor a matter of permissions."""
    before = now()
    versioning, headers = _asked(lambda: client.get_bucket_versioning(**common))
    ahead = clock_ahead(headers.get("date"), before, now())
    lock, _ = _asked(lambda: client.get_object_lock_configuration(**common))
    return Inspection(
        (
            Fact("versioning", _versioning(versioning), "s3:GetBucketVersioning"),
            Fact("object lock", _lock(lock), "s3:GetBucketObjectLockConfiguration"),
        ),
        ahead,
    )


def _asked(ask: Callable[[], Any]) -> tuple[Any, Mapping[str, str]]:
    """The answer, or the code of a refusal; and the headers of either."""
    try:
        answer = ask()
    except ClientError as error:
        meta: Mapping[str, Any] = error.response.get("ResponseMetadata", {})
        code = str(error.response.get("Error", {}).get("Code") or "")
        status = meta.get("HTTPStatusCode")
        if code in _NO_LOCK:
            said = "off"
        elif code in _UNKNOWN_REQUESTS or status in {405, 501}:
            said = _NOT_OFFERED
        elif status == 403:
            said = ""
        else:
            raise
        return said, meta.get("HTTPHeaders", {})
    return answer, answer["ResponseMetadata"]["HTTPHeaders"]


def _versioning(answer: Any) -> str | None:
    if isinstance(answer, str):
        return answer or None
    return {"Enabled": "on", "Suspended": "suspended"}.get(answer.get("Status", ""), "off")


def _lock(answer: Any) -> str | None:
    if isinstance(answer, str):
        return answer or None
    configuration = answer.get("ObjectLockConfiguration", {})
    if configuration.get("ObjectLockEnabled") != "Enabled":
        return "off"
    rule = configuration.get("Rule", {}).get("DefaultRetention", {})
    if not rule:
        return "on, without a default retention"
    length = f"{rule['Days']} days" if "Days" in rule else f"{rule.get('Years')} years"
    return f"on, {rule.get('Mode', '').lower()} for {length}"

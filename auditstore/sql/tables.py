"""The tables, as the migrations leave them; ``alembic check`` compares the two."""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSON, JSONB

SCHEMA: Final = "auditstore"

metadata = MetaData(schema=SCHEMA)

# Byte order, whatever the database's locale: ids sort by time, keys as the stores list them.
_BYTES = Text(collation="C")
_TIME = DateTime(timezone=True)
_NOW = text("clock_timestamp()")

events = Table(
    "events",
    metadata,
    Column("position", BigInteger, Identity(always=True, cache=1), nullable=False),
    Column("event_id", _BYTES, nullable=False),
    Column("flow_id", _BYTES, nullable=False),
    Column("lead_id", _BYTES),
    Column("type", Text),
    Column("outcome", Text),
    Column("reason", Text),
    Column("step_id", Text),
    Column("started_at", _TIME),
    Column("ended_at", _TIME),
    Column("recorded_at", _TIME, nullable=False, server_default=_NOW),
    # json, not jsonb: the snapshot byte for byte.
    Column("payload", JSON, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    PrimaryKeyConstraint("flow_id", "event_id"),
    CheckConstraint("event_id ~ '^[0-9a-f]{24}$'", name="events_event_id_check"),
    CheckConstraint("octet_length(sha256) = 32", name="events_sha256_check"),
    CheckConstraint("octet_length(flow_id) BETWEEN 1 AND 255", name="events_flow_id_check"),
    CheckConstraint("octet_length(lead_id) BETWEEN 1 AND 255", name="events_lead_id_check"),
    CheckConstraint("size_bytes = octet_length(payload::text)", name="events_size_check"),
    CheckConstraint(
        "strpos(payload::text, E'\\n') = 0 AND strpos(payload::text, E'\\r') = 0",
        name="events_line_check",
    ),
    # What sealing reads: cutting a batch never touches a payload.
    Index(
        "events_tail_idx", "flow_id", "position", postgresql_include=["size_bytes", "recorded_at"]
    ),
    Index("events_event_id_idx", "event_id"),
    Index("events_lead_idx", "lead_id", "event_id", postgresql_where=text("lead_id IS NOT NULL")),
    postgresql_partition_by="RANGE (event_id)",
)

credentials = Table(
    "credentials",
    metadata,
    Column("credential_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("ciphertext", LargeBinary, nullable=False),
    # What may be shown: the key id or the account, masked.
    Column("hint", Text, nullable=False),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("changed_at", _TIME, nullable=False, server_default=_NOW),
    UniqueConstraint("name"),
    CheckConstraint("kind IN ('s3', 'azure', 'leadconduit')", name="credentials_kind_check"),
)

streams = Table(
    "streams",
    metadata,
    Column("stream_id", BigInteger, Identity(always=True), primary_key=True),
    Column("flow_id", _BYTES, nullable=False),
    Column("url", Text, nullable=False),
    Column("endpoint_url", Text),
    Column("location", _BYTES, nullable=False),
    Column("region", Text),
    Column("credential_id", BigInteger, ForeignKey(credentials.c.credential_id)),
    Column("options", JSONB, nullable=False, server_default=text("'{}'")),
    Column("format", Text, nullable=False),
    Column("key_template", Text, nullable=False),
    Column("max_bytes", BigInteger, nullable=False),
    Column("max_events", Integer, nullable=False),
    Column("max_delay", Float, nullable=False),
    # When its reconciliations are due, by level: a cron expression in UTC, or off.
    Column("reconcile_files", Text, nullable=False, server_default=text("'0 * * * *'")),
    Column("reconcile_events", Text, nullable=False, server_default=text("'0 3 * * *'")),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("changed_at", _TIME, nullable=False, server_default=_NOW),
    # Where the exporter stands. Both marks only move forward.
    Column("sealed_sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("sealed_position", BigInteger, nullable=False, server_default=text("0")),
    Column("delivered_sequence", BigInteger, nullable=False, server_default=text("0")),
    Column("delivered_position", BigInteger, nullable=False, server_default=text("0")),
    Column("chain_hash", LargeBinary, nullable=False),
    # The server whose history the marks were taken from.
    Column("history", JSONB, nullable=False, server_default=text("'{}'")),
    # What an operator sees.
    Column("state", Text, nullable=False, server_default=text("'streaming'")),
    Column("state_code", Text),
    Column("state_cause", Text),
    Column("state_hint", Text),
    Column("state_since", _TIME, nullable=False, server_default=_NOW),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    Column("next_try_at", _TIME),
    # A lease saves double work; correctness never depends on it.
    Column("lease_owner", Text),
    Column("lease_until", _TIME),
    CheckConstraint("format IN ('ndjson.gz', 'json')", name="streams_format_check"),
    CheckConstraint(
        "state IN ('streaming', 'retrying', 'blocked', 'halted')", name="streams_state_check"
    ),
    CheckConstraint(
        "max_bytes BETWEEN 1 AND 1073741824 AND max_events BETWEEN 1 AND 1000000"
        " AND max_delay BETWEEN 0 AND 3600",
        name="streams_limits_check",
    ),
    CheckConstraint("jsonb_typeof(options) = 'object'", name="streams_options_check"),
    Index("streams_location_key", "location", unique=True, postgresql_where=text("enabled")),
    Index("streams_flow_idx", "flow_id"),
)

stream_intervals = Table(
    "stream_intervals",
    metadata,
    # A stream covers the events of its flow with from_position < position <= to_position.
    Column("stream_id", BigInteger, ForeignKey(streams.c.stream_id), nullable=False),
    Column("from_position", BigInteger, nullable=False),
    Column("to_position", BigInteger),
    Column("opened_at", _TIME, nullable=False, server_default=_NOW),
    Column("closed_at", _TIME),
    PrimaryKeyConstraint("stream_id", "from_position", "opened_at"),
    CheckConstraint("to_position >= from_position", name="stream_intervals_order_check"),
    Index(
        "stream_intervals_open_key",
        "stream_id",
        unique=True,
        postgresql_where=text("to_position IS NULL"),
    ),
)

files = Table(
    "files",
    metadata,
    Column("stream_id", BigInteger, ForeignKey(streams.c.stream_id), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    # Sealed: frozen before anything leaves the database.
    Column("first_position", BigInteger, nullable=False),
    Column("last_position", BigInteger, nullable=False),
    Column("event_count", Integer, nullable=False),
    Column("content_bytes", BigInteger, nullable=False),
    Column("first_recorded_at", _TIME, nullable=False),
    Column("last_recorded_at", _TIME, nullable=False),
    Column("format", Text, nullable=False),
    Column("encoder", Text, nullable=False),
    Column("object_key", _BYTES, nullable=False),
    Column("sealed_at", _TIME, nullable=False),
    # Delivered: set once, in order of sequence.
    Column("delivered_at", _TIME),
    Column("content_sha256", LargeBinary),
    Column("object_bytes", BigInteger),
    Column("object_sha256", LargeBinary),
    Column("etag", Text),
    Column("version_id", Text),
    Column("previous_hash", LargeBinary),
    Column("row_hash", LargeBinary),
    PrimaryKeyConstraint("stream_id", "sequence"),
    CheckConstraint(
        "sequence > 0 AND event_count > 0 AND first_position <= last_position",
        name="files_range_check",
    ),
    CheckConstraint(
        "num_nulls(delivered_at, content_sha256, object_bytes, object_sha256, previous_hash,"
        " row_hash) IN (0, 6)",
        name="files_delivered_check",
    ),
    Index(
        "files_waiting_idx", "stream_id", "sequence", postgresql_where=text("delivered_at IS NULL")
    ),
    # A last guard: no template lets two files of a stream share a key.
    Index(
        "files_object_key",
        "stream_id",
        "object_key",
        unique=True,
        postgresql_where=text("format = 'ndjson.gz'"),
    ),
    Index("files_recorded_idx", "stream_id", "last_recorded_at"),
)

changes = Table(
    "changes",
    metadata,
    Column("change_id", BigInteger, Identity(always=True), primary_key=True),
    Column("changed_at", _TIME, nullable=False, server_default=_NOW),
    # The database's word for who it was, and the client's own.
    Column("database_user", Text, nullable=False, server_default=text("session_user")),
    Column("actor", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("subject_id", BigInteger, nullable=False),
    Column("action", Text, nullable=False),
    # NULL, not JSON's null, where there is nothing before or after.
    Column("before", JSONB(none_as_null=True)),
    Column("after", JSONB(none_as_null=True)),
    CheckConstraint(
        "subject IN ('stream', 'credential', 'user', 'api key')", name="changes_subject_check"
    ),
    Index("changes_subject_idx", "subject", "subject_id", "change_id"),
)

# Written by the trigger `record_state`, in the transaction that changes the state.
state_changes = Table(
    "state_changes",
    metadata,
    Column("change_id", BigInteger, Identity(always=True), primary_key=True),
    Column("stream_id", BigInteger, ForeignKey(streams.c.stream_id), nullable=False),
    Column("changed_at", _TIME, nullable=False, server_default=_NOW),
    Column("from_state", Text, nullable=False),
    Column("from_code", Text),
    Column("to_state", Text, nullable=False),
    Column("to_code", Text),
    Column("cause", Text),
    # How many tries had failed by then.
    Column("attempts", Integer, nullable=False),
    Index("state_changes_stream_idx", "stream_id", "change_id"),
)

daemons = Table(
    "daemons",
    metadata,
    Column("daemon_id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("version", Text, nullable=False),
    Column("started_at", _TIME, nullable=False, server_default=_NOW),
    Column("seen_at", _TIME, nullable=False, server_default=_NOW),
    # The newest safe fence, and when it was the last position handed out.
    Column("fence_position", BigInteger),
    Column("fence_at", _TIME),
)

# --- who may use the console and the HTTP API ---------------------------------------

_ROLES: Final = "role IN ('viewer', 'operator', 'administrator')"

users = Table(
    "users",
    metadata,
    Column("user_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", _BYTES, nullable=False),
    Column("password_hash", Text, nullable=False),
    Column("role", Text, nullable=False),
    # NULL for all flows.
    Column("flows", ARRAY(Text)),
    Column("enabled", Boolean, nullable=False, server_default=text("true")),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("changed_at", _TIME, nullable=False, server_default=_NOW),
    UniqueConstraint("name", name="users_name_key"),
    CheckConstraint(_ROLES, name="users_role_check"),
)

# Of tokens and keys only digests: who reads the database cannot use them.
sessions = Table(
    "sessions",
    metadata,
    Column("token_sha256", LargeBinary, primary_key=True),
    Column("user_id", BigInteger, ForeignKey(users.c.user_id), nullable=False),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("expires_at", _TIME, nullable=False),
    Index("sessions_user_idx", "user_id"),
)

login_failures = Table(
    "login_failures",
    metadata,
    Column("name", _BYTES, nullable=False),
    Column("address", Text, nullable=False),
    Column("failed_at", _TIME, nullable=False, server_default=_NOW),
    Index("login_failures_name_idx", "name", "failed_at"),
    Index("login_failures_address_idx", "address", "failed_at"),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("key_id", BigInteger, Identity(always=True), primary_key=True),
    Column("name", Text, nullable=False),
    Column("key_sha256", LargeBinary, nullable=False),
    Column("role", Text, nullable=False),
    Column("flows", ARRAY(Text)),
    Column("created_at", _TIME, nullable=False, server_default=_NOW),
    Column("expires_at", _TIME),
    Column("revoked_at", _TIME),
    UniqueConstraint("key_sha256", name="api_keys_key_sha256_key"),
    CheckConstraint(_ROLES, name="api_keys_role_check"),
)

# Who opened which event: lead data is personal.
readings = Table(
    "readings",
    metadata,
    Column("reading_id", BigInteger, Identity(always=True), primary_key=True),
    Column("read_at", _TIME, nullable=False, server_default=_NOW),
    Column("actor", Text, nullable=False),
    Column("flow_id", _BYTES, nullable=False),
    Column("event_id", _BYTES, nullable=False),
    Index("readings_event_idx", "flow_id", "event_id", "reading_id"),
)

# What each reconciliation reported, so that it can be shown later as it was.
reconciliations = Table(
    "reconciliations",
    metadata,
    Column("reconciliation_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kept_at", _TIME, nullable=False, server_default=_NOW),
    Column("started_at", _TIME, nullable=False),
    Column("ended_at", _TIME, nullable=False),
    # The database's word for who it was, and the client's own.
    Column("database_user", Text, nullable=False, server_default=text("session_user")),
    Column("actor", Text, nullable=False),
    Column("scope", JSONB, nullable=False),
    Column("result", Text, nullable=False),
    # How many findings of each kind, at the end.
    Column("counts", JSONB, nullable=False),
    # The ledger's head of each stream: sequence and hash.
    Column("heads", JSONB, nullable=False),
    # The canonical JSON that the hash is of: json keeps a text as it is, jsonb does not.
    Column("report", JSON, nullable=False),
    Column("sha256", LargeBinary, nullable=False),
    CheckConstraint(
        "result IN ('reconciled', 'differences', 'not compared')",
        name="reconciliations_result_check",
    ),
    CheckConstraint(
        "sha256 = sha256(convert_to(report::text, 'UTF8'))", name="reconciliations_sha256_check"
    ),
)
Index(
    "reconciliations_flow", reconciliations.c.scope["flow"].astext,
    reconciliations.c.reconciliation_id,
)  # fmt: skip

# Events that came from another view than the flow engine. Ordinary appends touch neither table.
imports = Table(
    "imports",
    metadata,
    Column("import_id", BigInteger, Identity(always=True), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("actor", Text, nullable=False),
    Column("database_user", Text, nullable=False, server_default=text("session_user")),
    Column("started_at", _TIME, nullable=False, server_default=_NOW),
    # Without it, the import was cut short; what it appended by then is appended.
    Column("finished_at", _TIME),
    Column("offered", BigInteger, nullable=False, server_default=text("0")),
    Column("appended", BigInteger, nullable=False, server_default=text("0")),
    Column("existing", BigInteger, nullable=False, server_default=text("0")),
    Column("refused", BigInteger, nullable=False, server_default=text("0")),
    CheckConstraint("kind IN ('import', 'adopt')", name="imports_kind_check"),
)

imported_events = Table(
    "imported_events",
    metadata,
    Column("position", BigInteger, primary_key=True, autoincrement=False),
    Column("import_id", BigInteger, ForeignKey(imports.c.import_id), nullable=False),
    Index("imported_events_import_idx", "import_id", "position"),
)

# Up to where each stream was compared, at each level.
verified = Table(
    "verified",
    metadata,
    Column("stream_id", BigInteger, ForeignKey(streams.c.stream_id), nullable=False),
    Column("level", Text, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    # The ledger's head at that file: whoever rewrites what came before changes it.
    Column("row_hash", LargeBinary, nullable=False),
    Column("verified_at", _TIME, nullable=False),
    # The files up to there that were not clean.
    Column("unclean", ARRAY(BigInteger), nullable=False, server_default=text("'{}'")),
    # The last file that was read again as a sample.
    Column("sampled_sequence", BigInteger, nullable=False, server_default=text("0")),
    # When the whole listing was looked at last; NULL asks for it at the next run.
    Column("looked_at", _TIME),
    # Of two runs at once, the later to end does not undo what the other has written.
    Column("version", BigInteger, nullable=False, server_default=text("1")),
    PrimaryKeyConstraint("stream_id", "level"),
    CheckConstraint("level IN ('files', 'events')", name="verified_level_check"),
    CheckConstraint("sequence > 0 AND sampled_sequence >= 0", name="verified_sequence_check"),
)

# When the next run of each stream is due, at each level, and what came of the last.
schedules = Table(
    "schedules",
    metadata,
    Column("stream_id", BigInteger, ForeignKey(streams.c.stream_id), nullable=False),
    Column("level", Text, nullable=False),
    # The setting that `next_run_at` follows from.
    Column("cron", Text, nullable=False),
    Column("next_run_at", _TIME),
    Column("lease_owner", Text),
    Column("lease_until", _TIME),
    Column("began_at", _TIME),
    Column("ended_at", _TIME),
    Column("result", Text),
    # How many of each kind.
    Column("differences", JSONB, nullable=False, server_default=text("'{}'")),
    Column("seconds", Float),
    Column("files", BigInteger),
    Column("error_code", Text),
    Column("error_cause", Text),
    Column("error_hint", Text),
    PrimaryKeyConstraint("stream_id", "level"),
    CheckConstraint("level IN ('files', 'events')", name="schedules_level_check"),
    CheckConstraint(
        "result IN ('reconciled', 'differences', 'not compared')", name="schedules_result_check"
    ),
    Index("schedules_due_idx", "next_run_at"),
)

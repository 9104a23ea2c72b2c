"""The outbox, its streams and their ledger

Revision: outbox, 2026-11-24
"""

from __future__ import annotations

import logging

from alembic import op
from sqlalchemy import text

from auditstore.settings import Settings

revision = "outbox"
down_revision = None
branch_labels = None
depends_on = None

log = logging.getLogger("auditstore.migrate")

ROLES = {
    "auditstore_writer": "appends events, and reads nothing",
    "auditstore_exporter": "reads events, keeps the ledger and the marks of the streams",
    "auditstore_reader": "reads events",
}

EVENTS = """
CREATE TABLE auditstore.events (
    position     bigint GENERATED ALWAYS AS IDENTITY (CACHE 1),
    event_id     text COLLATE "C" NOT NULL,
    flow_id      text COLLATE "C" NOT NULL,
    lead_id      text COLLATE "C",
    type         text,
    outcome      text,
    reason       text,
    step_id      text,
    started_at   timestamptz,
    ended_at     timestamptz,
    recorded_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    payload      json NOT NULL,
    size_bytes   integer NOT NULL,
    sha256       bytea NOT NULL,
    PRIMARY KEY (flow_id, event_id),
    CONSTRAINT events_event_id_check CHECK (event_id ~ '^[0-9a-f]{24}$'),
    CONSTRAINT events_sha256_check CHECK (octet_length(sha256) = 32),
    -- A writer that goes past auditstore can lie about the hash, which reconciling finds, but not
    -- stop a stream by a wrong size, nor put two lines into a file by one event.
    CONSTRAINT events_flow_id_check CHECK (octet_length(flow_id) BETWEEN 1 AND 255),
    CONSTRAINT events_lead_id_check CHECK (octet_length(lead_id) BETWEEN 1 AND 255),
    CONSTRAINT events_size_check CHECK (size_bytes = octet_length(payload::text)),
    CONSTRAINT events_line_check CHECK (strpos(payload::text, E'\\n') = 0 AND strpos(payload::text, E'\\r') = 0)
) PARTITION BY RANGE (event_id);

CREATE INDEX events_tail_idx ON auditstore.events (flow_id, position) INCLUDE (size_bytes, recorded_at);
CREATE INDEX events_event_id_idx ON auditstore.events (event_id);
CREATE INDEX events_lead_idx ON auditstore.events (lead_id, event_id) WHERE lead_id IS NOT NULL;
"""

# Measured in docs/decisions/0002-payload-storage.md.
STORAGE_LZ4 = "ALTER TABLE auditstore.events ALTER COLUMN payload SET COMPRESSION lz4"
STORAGE_PLAIN = "ALTER TABLE auditstore.events ALTER COLUMN payload SET STORAGE EXTERNAL"

IMMUTABLE = """
CREATE FUNCTION auditstore.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%.% is append-only: % refused', TG_TABLE_SCHEMA, TG_TABLE_NAME, TG_OP
        USING ERRCODE = 'restrict_violation';
END $$;

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON auditstore.events
    FOR EACH ROW EXECUTE FUNCTION auditstore.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.events
    FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change();
"""

# Callable by a daemon that owns nothing. A range is made only while no row of it lies in the
# default partition, since immutable rows cannot be moved; such rows stay where they are, found
# by every query, and `outcome` says so.
PARTITIONS = """
CREATE TABLE auditstore.events_default PARTITION OF auditstore.events DEFAULT;
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.events_default
    FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change();

CREATE FUNCTION auditstore.make_partitions(period text, first_at timestamptz, periods integer)
RETURNS TABLE (partition_name text, outcome text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' SET timezone = 'UTC'
AS $$
DECLARE
    step     interval := CASE period WHEN 'month' THEN interval '1 month' WHEN 'day' THEN interval '1 day' END;
    starts   timestamptz;
    low      text;
    high     text;
BEGIN
    IF step IS NULL THEN
        RAISE EXCEPTION 'partitions are made by month or by day, not by %', period;
    END IF;
    -- Who may call this owns nothing: no call may fill the catalog, nor go past the ids' 32 bits.
    IF periods NOT BETWEEN 0 AND 100 OR first_at NOT BETWEEN '1970-01-01' AND '2100-01-01' THEN
        RAISE EXCEPTION 'at most 100 partitions at a time, from 1970 to 2100';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('auditstore.make_partitions'));
    FOR n IN 0 .. periods - 1 LOOP
        starts := date_trunc(period, first_at) + n * step;
        partition_name := 'events_' || to_char(starts, CASE period WHEN 'month' THEN 'YYYY_MM' ELSE 'YYYY_MM_DD' END);
        IF to_regclass('auditstore.' || partition_name) IS NOT NULL THEN
            outcome := 'exists';
            RETURN NEXT;
            CONTINUE;
        END IF;
        low  := lpad(to_hex(extract(epoch FROM starts)::bigint), 8, '0');
        high := lpad(to_hex(extract(epoch FROM starts + step)::bigint), 8, '0');
        BEGIN
            EXECUTE format('CREATE TABLE auditstore.%I (LIKE auditstore.events INCLUDING DEFAULTS'
                ' INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMPRESSION)', partition_name);
            -- ATTACH, unlike CREATE ... PARTITION OF, lets writers of other partitions go on.
            EXECUTE format('ALTER TABLE auditstore.events ATTACH PARTITION auditstore.%I'
                ' FOR VALUES FROM (%L) TO (%L)', partition_name, low, high);
            EXECUTE format('CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.%I'
                ' FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change()', partition_name);
            outcome := 'created';
        EXCEPTION
            WHEN invalid_object_definition THEN outcome := 'overlaps';
            WHEN check_violation THEN outcome := 'rows-in-default';
        END;
        RETURN NEXT;
    END LOOP;
END $$;
"""

# LeadConduit keeps 90 days, so that much history may be imported. Days begin with this month,
# since a range that a month covers cannot be divided afterwards.
FIRST_PARTITIONS = {
    "month": "SELECT auditstore.make_partitions('month', clock_timestamp() - interval '3 months', 6)",
    "day": """
        SELECT auditstore.make_partitions('month', clock_timestamp() - interval '3 months', 3);
        SELECT auditstore.make_partitions('day', date_trunc('month', clock_timestamp(), 'UTC'), 62);
    """,
}

FUNCTIONS = """
-- The position handed out last, 0 before the first: the fence's H.
CREATE FUNCTION auditstore.last_position() RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM auditstore.events_position_seq);
END $$;

-- A writer may learn the hash of an event whose id it knows, and nothing else.
CREATE FUNCTION auditstore.stored_hashes(flow_ids text[], event_ids text[])
RETURNS TABLE (flow_id text, event_id text, sha256 bytea)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT e.flow_id, e.event_id, e.sha256
    FROM unnest(flow_ids, event_ids) AS asked (flow_id, event_id)
    JOIN auditstore.events e
      ON e.flow_id = asked.flow_id COLLATE "C" AND e.event_id = asked.event_id COLLATE "C"
$$;

-- Who has appended and is not over. The exporter must be able to name a writer that holds it back,
-- and may see nothing else of other sessions, which pg_read_all_stats would show it.
CREATE FUNCTION auditstore.open_writers()
RETURNS TABLE (virtualtransaction text, pid integer, user_name text, application text, state text,
               prepared text, age double precision)
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    -- One moment for all, or the one that is looked at last would seem older than it is.
    WITH moment AS MATERIALIZED (SELECT clock_timestamp() AS now),
    writers AS MATERIALIZED (
        SELECT DISTINCT l.virtualtransaction, l.pid
        FROM pg_locks l
        WHERE l.locktype = 'relation' AND l.mode = 'RowExclusiveLock' AND l.granted
          AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND l.relation IN (SELECT relid FROM pg_partition_tree('auditstore.events')))
    SELECT w.virtualtransaction, w.pid, a.usename, a.application_name, a.state, p.gid,
           extract(epoch FROM m.now - coalesce(a.xact_start, p.prepared))::double precision
    FROM moment m
    CROSS JOIN writers w
    LEFT JOIN pg_stat_activity a ON a.pid = w.pid
    -- A prepared transaction has no pid; each of its savepoints has a transaction id of its own.
    LEFT JOIN LATERAL (
        SELECT x.gid, x.prepared
        FROM pg_locks t JOIN pg_prepared_xacts x ON x.transaction = t.transactionid
        WHERE w.pid IS NULL AND t.locktype = 'transactionid' AND t.virtualtransaction = w.virtualtransaction
        LIMIT 1) p ON true
$$;
"""

STREAMS = """
CREATE TABLE auditstore.credentials (
    credential_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text NOT NULL UNIQUE,
    kind           text NOT NULL CONSTRAINT credentials_kind_check CHECK (kind IN ('s3', 'azure', 'leadconduit')),
    ciphertext     bytea NOT NULL,
    hint           text NOT NULL,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE auditstore.streams (
    stream_id           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    flow_id             text COLLATE "C" NOT NULL,
    url                 text NOT NULL,
    endpoint_url        text,
    location            text COLLATE "C" NOT NULL,
    region              text,
    credential_id       bigint REFERENCES auditstore.credentials,
    options             jsonb NOT NULL DEFAULT '{}',
    format              text NOT NULL,
    key_template        text NOT NULL,
    max_bytes           bigint NOT NULL,
    max_events          integer NOT NULL,
    max_delay           double precision NOT NULL,
    reconcile_files     text NOT NULL DEFAULT '0 * * * *',
    reconcile_events    text NOT NULL DEFAULT '0 3 * * *',
    enabled             boolean NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    sealed_sequence     bigint NOT NULL DEFAULT 0,
    sealed_position     bigint NOT NULL DEFAULT 0,
    delivered_sequence  bigint NOT NULL DEFAULT 0,
    delivered_position  bigint NOT NULL DEFAULT 0,
    chain_hash          bytea NOT NULL,
    history             jsonb NOT NULL DEFAULT '{}',
    state               text NOT NULL DEFAULT 'streaming',
    state_code          text,
    state_cause         text,
    state_hint          text,
    state_since         timestamptz NOT NULL DEFAULT clock_timestamp(),
    attempts            integer NOT NULL DEFAULT 0,
    next_try_at         timestamptz,
    lease_owner         text,
    lease_until         timestamptz,
    CONSTRAINT streams_format_check CHECK (format IN ('ndjson.gz', 'json')),
    CONSTRAINT streams_state_check CHECK (state IN ('streaming', 'retrying', 'blocked', 'halted')),
    CONSTRAINT streams_limits_check CHECK (
        max_bytes BETWEEN 1 AND 1073741824 AND max_events BETWEEN 1 AND 1000000 AND max_delay BETWEEN 0 AND 3600),
    CONSTRAINT streams_options_check CHECK (jsonb_typeof(options) = 'object')
);
CREATE UNIQUE INDEX streams_location_key ON auditstore.streams (location) WHERE enabled;
CREATE INDEX streams_flow_idx ON auditstore.streams (flow_id);

CREATE TABLE auditstore.stream_intervals (
    stream_id      bigint NOT NULL REFERENCES auditstore.streams,
    from_position  bigint NOT NULL,
    to_position    bigint,
    opened_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    closed_at      timestamptz,
    PRIMARY KEY (stream_id, from_position, opened_at),
    CONSTRAINT stream_intervals_order_check CHECK (to_position >= from_position)
);
CREATE UNIQUE INDEX stream_intervals_open_key ON auditstore.stream_intervals (stream_id) WHERE to_position IS NULL;

CREATE TABLE auditstore.files (
    stream_id          bigint NOT NULL REFERENCES auditstore.streams,
    sequence           bigint NOT NULL,
    first_position     bigint NOT NULL,
    last_position      bigint NOT NULL,
    event_count        integer NOT NULL,
    content_bytes      bigint NOT NULL,
    first_recorded_at  timestamptz NOT NULL,
    last_recorded_at   timestamptz NOT NULL,
    format             text NOT NULL,
    encoder            text NOT NULL,
    object_key         text COLLATE "C" NOT NULL,
    sealed_at          timestamptz NOT NULL,
    delivered_at       timestamptz,
    content_sha256     bytea,
    object_bytes       bigint,
    object_sha256      bytea,
    etag               text,
    version_id         text,
    previous_hash      bytea,
    row_hash           bytea,
    PRIMARY KEY (stream_id, sequence),
    CONSTRAINT files_range_check CHECK (sequence > 0 AND event_count > 0 AND first_position <= last_position),
    CONSTRAINT files_delivered_check CHECK (
        num_nulls(delivered_at, content_sha256, object_bytes, object_sha256, previous_hash, row_hash) IN (0, 6))
);
CREATE INDEX files_waiting_idx ON auditstore.files (stream_id, sequence) WHERE delivered_at IS NULL;
CREATE UNIQUE INDEX files_object_key ON auditstore.files (stream_id, object_key) WHERE format = 'ndjson.gz';
CREATE INDEX files_recorded_idx ON auditstore.files (stream_id, last_recorded_at);

CREATE TABLE auditstore.changes (
    change_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    changed_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    database_user  text NOT NULL DEFAULT session_user,
    actor          text NOT NULL,
    subject        text NOT NULL CONSTRAINT changes_subject_check CHECK (subject IN ('stream', 'credential', 'user', 'api key')),
    subject_id     bigint NOT NULL,
    action         text NOT NULL,
    before         jsonb,
    after          jsonb
);
CREATE INDEX changes_subject_idx ON auditstore.changes (subject, subject_id, change_id);

CREATE TABLE auditstore.state_changes (
    change_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    stream_id   bigint NOT NULL REFERENCES auditstore.streams,
    changed_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    from_state  text NOT NULL,
    from_code   text,
    to_state    text NOT NULL,
    to_code     text,
    cause       text,
    attempts    integer NOT NULL
);
CREATE INDEX state_changes_stream_idx ON auditstore.state_changes (stream_id, change_id);

CREATE TABLE auditstore.daemons (
    daemon_id       text PRIMARY KEY,
    host            text NOT NULL,
    pid             integer NOT NULL,
    version         text NOT NULL,
    started_at      timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
    fence_position  bigint,
    fence_at        timestamptz
);
"""

# Who may use the console and the HTTP API. Only the owner, as whom they run, sees any of it.
ACCOUNTS = """
CREATE TABLE auditstore.users (
    user_id        bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text COLLATE "C" NOT NULL CONSTRAINT users_name_key UNIQUE,
    password_hash  text NOT NULL,
    role           text NOT NULL CONSTRAINT users_role_check CHECK (role IN ('viewer', 'operator', 'administrator')),
    flows          text[],
    enabled        boolean NOT NULL DEFAULT true,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    changed_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE auditstore.sessions (
    token_sha256  bytea PRIMARY KEY,
    user_id       bigint NOT NULL REFERENCES auditstore.users,
    created_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at    timestamptz NOT NULL
);
CREATE INDEX sessions_user_idx ON auditstore.sessions (user_id);

CREATE TABLE auditstore.login_failures (
    name       text COLLATE "C" NOT NULL,
    address    text NOT NULL,
    failed_at  timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX login_failures_name_idx ON auditstore.login_failures (name, failed_at);
CREATE INDEX login_failures_address_idx ON auditstore.login_failures (address, failed_at);

CREATE TABLE auditstore.api_keys (
    key_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name        text NOT NULL,
    key_sha256  bytea NOT NULL CONSTRAINT api_keys_key_sha256_key UNIQUE,
    role        text NOT NULL CONSTRAINT api_keys_role_check CHECK (role IN ('viewer', 'operator', 'administrator')),
    flows       text[],
    created_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at  timestamptz,
    revoked_at  timestamptz
);

CREATE TABLE auditstore.readings (
    reading_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    read_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    actor       text NOT NULL,
    flow_id     text COLLATE "C" NOT NULL,
    event_id    text COLLATE "C" NOT NULL
);
CREATE INDEX readings_event_idx ON auditstore.readings (flow_id, event_id, reading_id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON auditstore.readings
    FOR EACH ROW EXECUTE FUNCTION auditstore.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.readings
    FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change();
"""

# In the transaction that changes the state, whoever changes it, so that none is missed; and nobody
# needs the right to write the record. Another try in the same trouble is no change.
STATE_RECORD = """
CREATE FUNCTION auditstore.record_state() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    before  text := CASE WHEN OLD.enabled THEN OLD.state ELSE 'disabled' END;
    after   text := CASE WHEN NEW.enabled THEN NEW.state ELSE 'disabled' END;
    was     text := CASE WHEN OLD.enabled THEN OLD.state_code END;
    is_now  text := CASE WHEN NEW.enabled THEN NEW.state_code END;
BEGIN
    IF (before, was) IS DISTINCT FROM (after, is_now) THEN
        INSERT INTO auditstore.state_changes
            (stream_id, from_state, from_code, to_state, to_code, cause, attempts)
        VALUES (NEW.stream_id, before, was, after, is_now,
                CASE WHEN NEW.enabled THEN NEW.state_cause END, greatest(OLD.attempts, NEW.attempts));
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER record_state AFTER UPDATE OF enabled, state, state_code ON auditstore.streams
    FOR EACH ROW EXECUTE FUNCTION auditstore.record_state();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON auditstore.state_changes
    FOR EACH ROW EXECUTE FUNCTION auditstore.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.state_changes
    FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change();
"""

# The ledger's rows are written twice: sealed, then delivered. Neither can be taken back.
LEDGER_GUARD = """
CREATE FUNCTION auditstore.guard_file() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.delivered_at IS NOT NULL THEN
        RAISE EXCEPTION 'file % of stream % is delivered: its ledger row is final', OLD.sequence, OLD.stream_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.stream_id, NEW.sequence, NEW.first_position, NEW.last_position, NEW.event_count, NEW.content_bytes,
        NEW.first_recorded_at, NEW.last_recorded_at, NEW.format, NEW.encoder, NEW.object_key, NEW.sealed_at)
       IS DISTINCT FROM
       (OLD.stream_id, OLD.sequence, OLD.first_position, OLD.last_position, OLD.event_count, OLD.content_bytes,
        OLD.first_recorded_at, OLD.last_recorded_at, OLD.format, OLD.encoder, OLD.object_key, OLD.sealed_at) THEN
        RAISE EXCEPTION 'file % of stream % is sealed: its range and key are final', OLD.sequence, OLD.stream_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER sealed_once BEFORE UPDATE ON auditstore.files
    FOR EACH ROW EXECUTE FUNCTION auditstore.guard_file();
CREATE TRIGGER append_only BEFORE DELETE ON auditstore.files
    FOR EACH ROW EXECUTE FUNCTION auditstore.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.files
    FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change();

CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON auditstore.changes
    FOR EACH ROW EXECUTE FUNCTION auditstore.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.changes
    FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change();
"""

# Events that came from LeadConduit's view or a bucket of its own, and not from the flow engine.
IMPORTS = """
CREATE TABLE auditstore.imports (
    import_id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind           text NOT NULL CONSTRAINT imports_kind_check CHECK (kind IN ('import', 'adopt')),
    source         text NOT NULL,
    actor          text NOT NULL,
    database_user  text NOT NULL DEFAULT session_user,
    started_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at    timestamptz,
    offered        bigint NOT NULL DEFAULT 0,
    appended       bigint NOT NULL DEFAULT 0,
    existing       bigint NOT NULL DEFAULT 0,
    refused        bigint NOT NULL DEFAULT 0
);

CREATE TABLE auditstore.imported_events (
    position   bigint PRIMARY KEY,
    import_id  bigint NOT NULL REFERENCES auditstore.imports
);
CREATE INDEX imported_events_import_idx ON auditstore.imported_events (import_id, position);

CREATE FUNCTION auditstore.guard_import() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF OLD.finished_at IS NOT NULL THEN
        RAISE EXCEPTION 'import % is finished: its record is final', OLD.import_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    IF (NEW.import_id, NEW.kind, NEW.source, NEW.actor, NEW.database_user, NEW.started_at)
       IS DISTINCT FROM
       (OLD.import_id, OLD.kind, OLD.source, OLD.actor, OLD.database_user, OLD.started_at) THEN
        RAISE EXCEPTION 'import %: who imported what, and when, is final', OLD.import_id
            USING ERRCODE = 'restrict_violation';
    END IF;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION auditstore.guard_import() FROM PUBLIC;

CREATE TRIGGER finished_once BEFORE UPDATE ON auditstore.imports
    FOR EACH ROW EXECUTE FUNCTION auditstore.guard_import();
CREATE TRIGGER append_only BEFORE DELETE ON auditstore.imports
    FOR EACH ROW EXECUTE FUNCTION auditstore.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.imports
    FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON auditstore.imported_events
    FOR EACH ROW EXECUTE FUNCTION auditstore.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.imported_events
    FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change();
"""
IMPORTS_GRANTS = {
    "auditstore_exporter": "GRANT SELECT ON auditstore.imports, auditstore.imported_events TO auditstore_exporter",
}
# What was verified, so that a run costs what is new; and when the next run of each stream is due.
RECONCILING = """
CREATE TABLE auditstore.verified (
    stream_id         bigint NOT NULL REFERENCES auditstore.streams,
    level             text NOT NULL,
    sequence          bigint NOT NULL,
    row_hash          bytea NOT NULL,
    verified_at       timestamptz NOT NULL,
    unclean           bigint[] NOT NULL DEFAULT '{}',
    sampled_sequence  bigint NOT NULL DEFAULT 0,
    looked_at         timestamptz,
    version           bigint NOT NULL DEFAULT 1,
    PRIMARY KEY (stream_id, level),
    CONSTRAINT verified_level_check CHECK (level IN ('files', 'events')),
    CONSTRAINT verified_sequence_check CHECK (sequence > 0 AND sampled_sequence >= 0)
);

CREATE TABLE auditstore.schedules (
    stream_id    bigint NOT NULL REFERENCES auditstore.streams,
    level        text NOT NULL,
    cron         text NOT NULL,
    next_run_at  timestamptz,
    lease_owner  text,
    lease_until  timestamptz,
    began_at     timestamptz,
    ended_at     timestamptz,
    result       text,
    differences  jsonb NOT NULL DEFAULT '{}',
    seconds      double precision,
    files        bigint,
    error_code   text,
    error_cause  text,
    error_hint   text,
    PRIMARY KEY (stream_id, level),
    CONSTRAINT schedules_level_check CHECK (level IN ('files', 'events')),
    CONSTRAINT schedules_result_check CHECK (result IN ('reconciled', 'differences', 'not compared'))
);
CREATE INDEX schedules_due_idx ON auditstore.schedules (next_run_at);
"""

REVOKES = """
REVOKE ALL ON FUNCTION auditstore.refuse_change() FROM PUBLIC;
REVOKE ALL ON FUNCTION auditstore.guard_file() FROM PUBLIC;
REVOKE ALL ON FUNCTION auditstore.make_partitions(text, timestamptz, integer) FROM PUBLIC;
REVOKE ALL ON FUNCTION auditstore.last_position() FROM PUBLIC;
REVOKE ALL ON FUNCTION auditstore.stored_hashes(text[], text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION auditstore.record_state() FROM PUBLIC;
REVOKE ALL ON FUNCTION auditstore.open_writers() FROM PUBLIC;
"""

GRANTS = {
    "auditstore_writer": """
        GRANT USAGE ON SCHEMA auditstore TO auditstore_writer;
        GRANT INSERT (event_id, flow_id, lead_id, type, outcome, reason, step_id, started_at, ended_at,
                      payload, size_bytes, sha256) ON auditstore.events TO auditstore_writer;
        GRANT EXECUTE ON FUNCTION auditstore.stored_hashes(text[], text[]) TO auditstore_writer;
    """,
    "auditstore_exporter": """
        GRANT USAGE ON SCHEMA auditstore TO auditstore_exporter;
        GRANT SELECT ON auditstore.events, auditstore.streams, auditstore.stream_intervals, auditstore.files,
                        auditstore.credentials, auditstore.changes, auditstore.state_changes, auditstore.daemons,
                        auditstore.alembic_version
            TO auditstore_exporter;
        GRANT INSERT (stream_id, sequence, first_position, last_position, event_count, content_bytes,
                      first_recorded_at, last_recorded_at, format, encoder, object_key, sealed_at)
            ON auditstore.files TO auditstore_exporter;
        GRANT UPDATE (delivered_at, content_sha256, object_bytes, object_sha256, etag, version_id,
                      previous_hash, row_hash) ON auditstore.files TO auditstore_exporter;
        GRANT UPDATE (sealed_sequence, sealed_position, delivered_sequence, delivered_position, chain_hash, history,
                      state, state_code, state_cause, state_hint, state_since, attempts, next_try_at,
                      lease_owner, lease_until) ON auditstore.streams TO auditstore_exporter;
        GRANT INSERT, UPDATE, DELETE ON auditstore.daemons TO auditstore_exporter;
        GRANT SELECT, INSERT, UPDATE, DELETE ON auditstore.verified TO auditstore_exporter;
        GRANT SELECT, INSERT, UPDATE ON auditstore.schedules TO auditstore_exporter;
        GRANT EXECUTE ON FUNCTION auditstore.last_position() TO auditstore_exporter;
        GRANT EXECUTE ON FUNCTION auditstore.open_writers() TO auditstore_exporter;
        GRANT EXECUTE ON FUNCTION auditstore.make_partitions(text, timestamptz, integer) TO auditstore_exporter;
    """,
    "auditstore_reader": """
        GRANT USAGE ON SCHEMA auditstore TO auditstore_reader;
        GRANT SELECT ON auditstore.events TO auditstore_reader;
    """,
}

# The reports of reconciliations: whoever may keep one can neither change nor remove any.
RECONCILIATIONS = """
CREATE TABLE auditstore.reconciliations (
    reconciliation_id  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kept_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at         timestamptz NOT NULL,
    ended_at           timestamptz NOT NULL,
    database_user      text NOT NULL DEFAULT session_user,
    actor              text NOT NULL,
    scope              jsonb NOT NULL,
    result             text NOT NULL,
    counts             jsonb NOT NULL,
    heads              jsonb NOT NULL,
    report             json NOT NULL,
    sha256             bytea NOT NULL,
    CONSTRAINT reconciliations_result_check CHECK (result IN ('reconciled', 'differences', 'not compared')),
    CONSTRAINT reconciliations_sha256_check CHECK (sha256 = sha256(convert_to(report::text, 'UTF8')))
);

CREATE INDEX reconciliations_flow ON auditstore.reconciliations ((scope ->> 'flow'), reconciliation_id);
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON auditstore.reconciliations
    FOR EACH ROW EXECUTE FUNCTION auditstore.refuse_change();
CREATE TRIGGER never_truncated BEFORE TRUNCATE ON auditstore.reconciliations
    FOR EACH STATEMENT EXECUTE FUNCTION auditstore.refuse_change();
"""

RECONCILIATIONS_GRANTS = """
GRANT SELECT ON auditstore.reconciliations TO auditstore_exporter;
GRANT INSERT (started_at, ended_at, actor, scope, result, counts, heads, report, sha256)
    ON auditstore.reconciliations TO auditstore_exporter;
"""
GRANTS["auditstore_exporter"] += RECONCILIATIONS_GRANTS


def upgrade() -> None:
    connection = op.get_bind()
    op.execute(EVENTS)
    has_lz4 = connection.scalar(
        text(
            "SELECT 'lz4' = ANY (enumvals) FROM pg_settings WHERE name = 'default_toast_compression'"
        )
    )
    op.execute(STORAGE_LZ4 if has_lz4 else STORAGE_PLAIN)
    op.execute(IMMUTABLE)
    op.execute(PARTITIONS)
    op.execute(FIRST_PARTITIONS[Settings.from_environment().partitions])
    op.execute(FUNCTIONS)
    op.execute(STREAMS)
    op.execute(ACCOUNTS)
    op.execute(STATE_RECORD)
    op.execute(LEDGER_GUARD)
    op.execute(IMPORTS)
    op.execute(RECONCILING)
    op.execute(RECONCILIATIONS)
    op.execute(REVOKES)
    for role, purpose in ROLES.items():
        if make_role(role, purpose):
            op.execute(GRANTS[role])
            if role in IMPORTS_GRANTS:
                op.execute(IMPORTS_GRANTS[role])


def make_role(role: str, purpose: str) -> bool:
    """Make a group role unless it is there; without the right to, say so and go on."""
    connection = op.get_bind()
    here = connection.scalar(
        text("SELECT true FROM pg_roles WHERE rolname = :role"), {"role": role}
    )
    if here:
        return True
    may = connection.scalar(
        text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
    )
    if not may:
        log.warning(
            "role %s (%s) was not made: this user may not create roles. Have an administrator run"
            " CREATE ROLE %s NOLOGIN and the grants of %s",
            role,
            purpose,
            role,
            __file__.rpartition("/")[2],
        )
        return False
    # Another database of this server may be migrating at the same moment.
    op.execute(
        f"DO $$ BEGIN CREATE ROLE {role} NOLOGIN;"
        " EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"
    )
    op.execute(f"COMMENT ON ROLE {role} IS 'auditstore: {purpose}'")
    return True


def downgrade() -> None:
    """There is no way down: dropping an audit store's tables is nobody's migration."""
    raise RuntimeError("auditstore has no downgrade; restore a backup instead")

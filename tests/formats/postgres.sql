SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE SCHEMA thingctl;
CREATE FUNCTION thingctl.now() RETURNS double precision
    LANGUAGE sql PARALLEL SAFE
    AS $$SELECT extract(epoch FROM clock_timestamp())::double precision$$;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE thingctl.about (
    product text NOT NULL,
    version integer NOT NULL
);
CREATE TABLE thingctl.documents (
    kind text NOT NULL,
    name text NOT NULL,
    value bytea NOT NULL
);
CREATE TABLE thingctl.executions (
    execution_id uuid NOT NULL,
    status text NOT NULL,
    thing text NOT NULL,
    action text NOT NULL,
    command_id text NOT NULL,
    params text NOT NULL,
    ttl integer NOT NULL,
    created_at double precision NOT NULL,
    requested_by text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint text NOT NULL,
    post_back_uri text NOT NULL,
    result text,
    reason text,
    progress text,
    late_status text,
    late_at double precision,
    late_delay double precision,
    late_result text,
    late_reason text,
    attempts integer DEFAULT 0 NOT NULL,
    conflicts integer DEFAULT 0 NOT NULL,
    published_at double precision,
    delivered_at double precision,
    started_at double precision,
    cancel_requested_at double precision,
    cancel_grace double precision,
    ended_at double precision,
    due_at double precision,
    retry_at double precision,
    unhanded_since double precision,
    tell_at double precision
)
PARTITION BY RANGE (execution_id);
CREATE TABLE thingctl.executions_2026_09 (
    execution_id uuid NOT NULL,
    status text NOT NULL,
    thing text NOT NULL,
    action text NOT NULL,
    command_id text NOT NULL,
    params text NOT NULL,
    ttl integer NOT NULL,
    created_at double precision NOT NULL,
    requested_by text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint text NOT NULL,
    post_back_uri text NOT NULL,
    result text,
    reason text,
    progress text,
    late_status text,
    late_at double precision,
    late_delay double precision,
    late_result text,
    late_reason text,
    attempts integer DEFAULT 0 NOT NULL,
    conflicts integer DEFAULT 0 NOT NULL,
    published_at double precision,
    delivered_at double precision,
    started_at double precision,
    cancel_requested_at double precision,
    cancel_grace double precision,
    ended_at double precision,
    due_at double precision,
    retry_at double precision,
    unhanded_since double precision,
    tell_at double precision
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05');
CREATE TABLE thingctl.executions_2026_11 (
    execution_id uuid NOT NULL,
    status text NOT NULL,
    thing text NOT NULL,
    action text NOT NULL,
    command_id text NOT NULL,
    params text NOT NULL,
    ttl integer NOT NULL,
    created_at double precision NOT NULL,
    requested_by text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint text NOT NULL,
    post_back_uri text NOT NULL,
    result text,
    reason text,
    progress text,
    late_status text,
    late_at double precision,
    late_delay double precision,
    late_result text,
    late_reason text,
    attempts integer DEFAULT 0 NOT NULL,
    conflicts integer DEFAULT 0 NOT NULL,
    published_at double precision,
    delivered_at double precision,
    started_at double precision,
    cancel_requested_at double precision,
    cancel_grace double precision,
    ended_at double precision,
    due_at double precision,
    retry_at double precision,
    unhanded_since double precision,
    tell_at double precision
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05');
CREATE TABLE thingctl.executions_2026_12 (
    execution_id uuid NOT NULL,
    status text NOT NULL,
    thing text NOT NULL,
    action text NOT NULL,
    command_id text NOT NULL,
    params text NOT NULL,
    ttl integer NOT NULL,
    created_at double precision NOT NULL,
    requested_by text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint text NOT NULL,
    post_back_uri text NOT NULL,
    result text,
    reason text,
    progress text,
    late_status text,
    late_at double precision,
    late_delay double precision,
    late_result text,
    late_reason text,
    attempts integer DEFAULT 0 NOT NULL,
    conflicts integer DEFAULT 0 NOT NULL,
    published_at double precision,
    delivered_at double precision,
    started_at double precision,
    cancel_requested_at double precision,
    cancel_grace double precision,
    ended_at double precision,
    due_at double precision,
    retry_at double precision,
    unhanded_since double precision,
    tell_at double precision
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05');
CREATE TABLE thingctl.executions_2027_01 (
    execution_id uuid NOT NULL,
    status text NOT NULL,
    thing text NOT NULL,
    action text NOT NULL,
    command_id text NOT NULL,
    params text NOT NULL,
    ttl integer NOT NULL,
    created_at double precision NOT NULL,
    requested_by text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint text NOT NULL,
    post_back_uri text NOT NULL,
    result text,
    reason text,
    progress text,
    late_status text,
    late_at double precision,
    late_delay double precision,
    late_result text,
    late_reason text,
    attempts integer DEFAULT 0 NOT NULL,
    conflicts integer DEFAULT 0 NOT NULL,
    published_at double precision,
    delivered_at double precision,
    started_at double precision,
    cancel_requested_at double precision,
    cancel_grace double precision,
    ended_at double precision,
    due_at double precision,
    retry_at double precision,
    unhanded_since double precision,
    tell_at double precision
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05');
CREATE TABLE thingctl.executions_2027_02 (
    execution_id uuid NOT NULL,
    status text NOT NULL,
    thing text NOT NULL,
    action text NOT NULL,
    command_id text NOT NULL,
    params text NOT NULL,
    ttl integer NOT NULL,
    created_at double precision NOT NULL,
    requested_by text NOT NULL,
    idempotency_key text NOT NULL,
    fingerprint text NOT NULL,
    post_back_uri text NOT NULL,
    result text,
    reason text,
    progress text,
    late_status text,
    late_at double precision,
    late_delay double precision,
    late_result text,
    late_reason text,
    attempts integer DEFAULT 0 NOT NULL,
    conflicts integer DEFAULT 0 NOT NULL,
    published_at double precision,
    delivered_at double precision,
    started_at double precision,
    cancel_requested_at double precision,
    cancel_grace double precision,
    ended_at double precision,
    due_at double precision,
    retry_at double precision,
    unhanded_since double precision,
    tell_at double precision
)
WITH (autovacuum_vacuum_scale_factor='0.05', autovacuum_analyze_scale_factor='0.05');
CREATE TABLE thingctl.idempotency_keys (
    requested_by text NOT NULL,
    key text NOT NULL,
    fingerprint text NOT NULL,
    execution_id uuid NOT NULL
);
CREATE TABLE thingctl.rollouts (
    command_id text NOT NULL,
    action text NOT NULL,
    params text NOT NULL,
    ttl integer,
    created_at double precision NOT NULL,
    requested_by text NOT NULL,
    things text[] NOT NULL,
    targeted integer NOT NULL,
    rules text NOT NULL,
    post_back_uri text NOT NULL,
    state text NOT NULL,
    sent integer NOT NULL,
    refused integer NOT NULL,
    refusals text NOT NULL,
    forgiven integer NOT NULL,
    moved_at double precision NOT NULL,
    lease_worker text,
    lease_until double precision,
    idempotency_key text DEFAULT ''::text NOT NULL,
    fingerprint text DEFAULT ''::text NOT NULL
)
WITH (fillfactor='70');
CREATE TABLE thingctl.workers (
    client_id text NOT NULL,
    lives_until double precision NOT NULL,
    adopter text,
    adopted_until double precision
);
ALTER TABLE ONLY thingctl.executions ATTACH PARTITION thingctl.executions_2026_09 FOR VALUES FROM ('01a05a43-fc00-7000-8000-000000000000') TO ('01a0f4c2-c400-7000-8000-000000000000');
ALTER TABLE ONLY thingctl.executions ATTACH PARTITION thingctl.executions_2026_11 FOR VALUES FROM ('01a19467-e800-7000-8000-000000000000') TO ('01a22ee6-b000-7000-8000-000000000000');
ALTER TABLE ONLY thingctl.executions ATTACH PARTITION thingctl.executions_2026_12 FOR VALUES FROM ('01a22ee6-b000-7000-8000-000000000000') TO ('01a2ce8b-d400-7000-8000-000000000000');
ALTER TABLE ONLY thingctl.executions ATTACH PARTITION thingctl.executions_2027_01 FOR VALUES FROM ('01a2ce8b-d400-7000-8000-000000000000') TO ('01a36e30-f800-7000-8000-000000000000');
ALTER TABLE ONLY thingctl.executions ATTACH PARTITION thingctl.executions_2027_02 FOR VALUES FROM ('01a36e30-f800-7000-8000-000000000000') TO ('01a3fe63-0800-7000-8000-000000000000');
INSERT INTO thingctl.about VALUES ('thingctl', 2);
INSERT INTO thingctl.executions_2026_09 VALUES ('01a0c442-b15a-7000-8000-000000000007', 'SUCCEEDED', 'lamp', 'set', 'of-900', '{"n": "\u0000é" }', 3600, 1789999100.25, 'ops', 'k1', 'f1', 'https://example.com/a', '{"a":[1,2]}', NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 1, 1789999101.25, 1789999101.75, 1789999102.25, NULL, NULL, 1789999102.25, NULL, NULL, NULL, NULL);
INSERT INTO thingctl.executions_2026_09 VALUES ('01a0c444-37fa-7000-8000-000000000007', 'FAILED', 'lamp', 'set', 'of-800', '{"n": "\u0000é" }', 3600, 1789999200.25, '', '', '', '', NULL, '{"reasonCode":"E","reasonDescription":"x\u0000y"}', NULL, NULL, NULL, NULL, NULL, NULL, 1, 0, 1789999200.25, NULL, 1789999209.25, NULL, NULL, 1789999209.25, NULL, NULL, NULL, NULL);
INSERT INTO thingctl.executions_2026_09 VALUES ('01a0c445-be9a-7000-8000-000000000007', 'REJECTED', 'lamp', 'set', 'of-700', '{"n": "\u0000é" }', 3600, 1789999300.25, '', '', '', '', NULL, '{"reasonCode":"REFUSED_BY_DEVICE"}', NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, 1789999301.25, NULL, NULL, NULL, NULL);
INSERT INTO thingctl.executions_2026_09 VALUES ('01a0c447-453a-7000-8000-000000000007', 'TIMED_OUT', 'lamp', 'set', 'of-600', '{"n": "\u0000é" }', 60, 1789999400.25, '', '', '', 'https://example.com/b', NULL, '{"reasonCode":"NO_RESPONSE","reasonDescription":"the thing has the request but did not answer within the TTL; it may have run"}', NULL, 'FAILED', 1789999490.25, 30, 'null', '{"reasonCode":"L"}', 1, 0, 1789999400.25, 1789999401.25, 1789999490.25, NULL, NULL, 1789999460.25, NULL, NULL, NULL, 1789999460.25);
INSERT INTO thingctl.executions_2026_09 VALUES ('01a0c448-cbda-7000-8000-000000000007', 'CANCELED', 'lamp', 'set', 'of-500', '{"n": "\u0000é" }', 3600, 1789999500.25, '', '', '', '', NULL, '{"reasonCode":"CANCELED","reasonDescription":"withdrawn before it was published"}', NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, 1789999505.25, NULL, 1789999505.25, NULL, NULL, NULL, NULL);
INSERT INTO thingctl.executions_2026_09 VALUES ('01a0c44f-a9aa-7000-8000-000000000007', 'IN_PROGRESS', 'lamp', 'set', 'of-50', '{"n": "\u0000é" }', 3600, 1789999950.25, 'ops', 'k2', 'f2', '', NULL, '{"reasonCode":"W"}', '{"percent":5.0,"message":"on"}', NULL, NULL, NULL, NULL, NULL, 2, 0, 1789999960.25, NULL, 1789999980.25, NULL, NULL, NULL, 1790003550.25, NULL, NULL, NULL);
INSERT INTO thingctl.executions_2026_09 VALUES ('01a0c44f-bd32-7000-8000-000000000007', 'SENT', 'lamp', 'set', 'of-45', '{"n": "\u0000é" }', 3600, 1789999955.25, '', '', '', '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 1, 0, 1789999956.25, NULL, NULL, 1789999957.25, 600, NULL, 1790000557.25, NULL, 1789999956.25, NULL);
INSERT INTO thingctl.executions_2026_09 VALUES ('01a0c450-45ea-7000-8000-000000000007', 'SENT', 'lamp', 'set', 'of-10', '{"n": "\u0000é" }', 3600, 1789999990.25, '', '', '', '', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, NULL, NULL, NULL, NULL, NULL, NULL, 1790003590.25, 1789999990.25, NULL, NULL);
INSERT INTO thingctl.idempotency_keys VALUES ('ops', 'k1', 'f1', '01a0c442-b15a-7000-8000-000000000007');
INSERT INTO thingctl.idempotency_keys VALUES ('ops', 'k2', 'f2', '01a0c44f-a9aa-7000-8000-000000000007');
ALTER TABLE ONLY thingctl.about
    ADD CONSTRAINT about_pkey PRIMARY KEY (product);
ALTER TABLE ONLY thingctl.documents
    ADD CONSTRAINT documents_pkey PRIMARY KEY (kind, name);
ALTER TABLE ONLY thingctl.executions
    ADD CONSTRAINT executions_pkey PRIMARY KEY (execution_id);
ALTER TABLE ONLY thingctl.executions_2026_09
    ADD CONSTRAINT executions_2026_09_pkey PRIMARY KEY (execution_id);
ALTER TABLE ONLY thingctl.executions_2026_11
    ADD CONSTRAINT executions_2026_11_pkey PRIMARY KEY (execution_id);
ALTER TABLE ONLY thingctl.executions_2026_12
    ADD CONSTRAINT executions_2026_12_pkey PRIMARY KEY (execution_id);
ALTER TABLE ONLY thingctl.executions_2027_01
    ADD CONSTRAINT executions_2027_01_pkey PRIMARY KEY (execution_id);
ALTER TABLE ONLY thingctl.executions_2027_02
    ADD CONSTRAINT executions_2027_02_pkey PRIMARY KEY (execution_id);
ALTER TABLE ONLY thingctl.idempotency_keys
    ADD CONSTRAINT idempotency_keys_pkey PRIMARY KEY (requested_by, key);
ALTER TABLE ONLY thingctl.rollouts
    ADD CONSTRAINT rollouts_pkey PRIMARY KEY (command_id);
ALTER TABLE ONLY thingctl.workers
    ADD CONSTRAINT workers_pkey PRIMARY KEY (client_id);
CREATE INDEX executions_command ON ONLY thingctl.executions USING btree (command_id, execution_id);
CREATE INDEX executions_2026_09_command_id_execution_id_idx ON thingctl.executions_2026_09 USING btree (command_id, execution_id);
CREATE INDEX executions_created ON ONLY thingctl.executions USING brin (created_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2026_09_created_at_idx ON thingctl.executions_2026_09 USING brin (created_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_due ON ONLY thingctl.executions USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX executions_2026_09_due_at_idx ON thingctl.executions_2026_09 USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX executions_ended ON ONLY thingctl.executions USING brin (ended_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2026_09_ended_at_idx ON thingctl.executions_2026_09 USING brin (ended_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_retry ON ONLY thingctl.executions USING btree (retry_at) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2026_09_retry_at_idx ON thingctl.executions_2026_09 USING btree (retry_at) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_untold ON ONLY thingctl.executions USING btree (tell_at) WHERE (tell_at IS NOT NULL);
CREATE INDEX executions_2026_09_tell_at_idx ON thingctl.executions_2026_09 USING btree (tell_at) WHERE (tell_at IS NOT NULL);
CREATE INDEX executions_thing ON ONLY thingctl.executions USING btree (thing, execution_id);
CREATE INDEX executions_2026_09_thing_execution_id_idx ON thingctl.executions_2026_09 USING btree (thing, execution_id);
CREATE INDEX executions_waiting ON ONLY thingctl.executions USING btree (thing, execution_id) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2026_09_thing_execution_id_idx1 ON thingctl.executions_2026_09 USING btree (thing, execution_id) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_unhanded ON ONLY thingctl.executions USING btree (unhanded_since) WHERE ((unhanded_since IS NOT NULL) AND (cancel_requested_at IS NULL));
CREATE INDEX executions_2026_09_unhanded_since_idx ON thingctl.executions_2026_09 USING btree (unhanded_since) WHERE ((unhanded_since IS NOT NULL) AND (cancel_requested_at IS NULL));
CREATE INDEX executions_2026_11_command_id_execution_id_idx ON thingctl.executions_2026_11 USING btree (command_id, execution_id);
CREATE INDEX executions_2026_11_created_at_idx ON thingctl.executions_2026_11 USING brin (created_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2026_11_due_at_idx ON thingctl.executions_2026_11 USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX executions_2026_11_ended_at_idx ON thingctl.executions_2026_11 USING brin (ended_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2026_11_retry_at_idx ON thingctl.executions_2026_11 USING btree (retry_at) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2026_11_tell_at_idx ON thingctl.executions_2026_11 USING btree (tell_at) WHERE (tell_at IS NOT NULL);
CREATE INDEX executions_2026_11_thing_execution_id_idx ON thingctl.executions_2026_11 USING btree (thing, execution_id);
CREATE INDEX executions_2026_11_thing_execution_id_idx1 ON thingctl.executions_2026_11 USING btree (thing, execution_id) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2026_11_unhanded_since_idx ON thingctl.executions_2026_11 USING btree (unhanded_since) WHERE ((unhanded_since IS NOT NULL) AND (cancel_requested_at IS NULL));
CREATE INDEX executions_2026_12_command_id_execution_id_idx ON thingctl.executions_2026_12 USING btree (command_id, execution_id);
CREATE INDEX executions_2026_12_created_at_idx ON thingctl.executions_2026_12 USING brin (created_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2026_12_due_at_idx ON thingctl.executions_2026_12 USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX executions_2026_12_ended_at_idx ON thingctl.executions_2026_12 USING brin (ended_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2026_12_retry_at_idx ON thingctl.executions_2026_12 USING btree (retry_at) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2026_12_tell_at_idx ON thingctl.executions_2026_12 USING btree (tell_at) WHERE (tell_at IS NOT NULL);
CREATE INDEX executions_2026_12_thing_execution_id_idx ON thingctl.executions_2026_12 USING btree (thing, execution_id);
CREATE INDEX executions_2026_12_thing_execution_id_idx1 ON thingctl.executions_2026_12 USING btree (thing, execution_id) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2026_12_unhanded_since_idx ON thingctl.executions_2026_12 USING btree (unhanded_since) WHERE ((unhanded_since IS NOT NULL) AND (cancel_requested_at IS NULL));
CREATE INDEX executions_2027_01_command_id_execution_id_idx ON thingctl.executions_2027_01 USING btree (command_id, execution_id);
CREATE INDEX executions_2027_01_created_at_idx ON thingctl.executions_2027_01 USING brin (created_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2027_01_due_at_idx ON thingctl.executions_2027_01 USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX executions_2027_01_ended_at_idx ON thingctl.executions_2027_01 USING brin (ended_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2027_01_retry_at_idx ON thingctl.executions_2027_01 USING btree (retry_at) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2027_01_tell_at_idx ON thingctl.executions_2027_01 USING btree (tell_at) WHERE (tell_at IS NOT NULL);
CREATE INDEX executions_2027_01_thing_execution_id_idx ON thingctl.executions_2027_01 USING btree (thing, execution_id);
CREATE INDEX executions_2027_01_thing_execution_id_idx1 ON thingctl.executions_2027_01 USING btree (thing, execution_id) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2027_01_unhanded_since_idx ON thingctl.executions_2027_01 USING btree (unhanded_since) WHERE ((unhanded_since IS NOT NULL) AND (cancel_requested_at IS NULL));
CREATE INDEX executions_2027_02_command_id_execution_id_idx ON thingctl.executions_2027_02 USING btree (command_id, execution_id);
CREATE INDEX executions_2027_02_created_at_idx ON thingctl.executions_2027_02 USING brin (created_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2027_02_due_at_idx ON thingctl.executions_2027_02 USING btree (due_at) WHERE (due_at IS NOT NULL);
CREATE INDEX executions_2027_02_ended_at_idx ON thingctl.executions_2027_02 USING brin (ended_at) WITH (pages_per_range='32', autosummarize='on');
CREATE INDEX executions_2027_02_retry_at_idx ON thingctl.executions_2027_02 USING btree (retry_at) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2027_02_tell_at_idx ON thingctl.executions_2027_02 USING btree (tell_at) WHERE (tell_at IS NOT NULL);
CREATE INDEX executions_2027_02_thing_execution_id_idx ON thingctl.executions_2027_02 USING btree (thing, execution_id);
CREATE INDEX executions_2027_02_thing_execution_id_idx1 ON thingctl.executions_2027_02 USING btree (thing, execution_id) WHERE (retry_at IS NOT NULL);
CREATE INDEX executions_2027_02_unhanded_since_idx ON thingctl.executions_2027_02 USING btree (unhanded_since) WHERE ((unhanded_since IS NOT NULL) AND (cancel_requested_at IS NULL));
CREATE INDEX idempotency_keys_execution ON thingctl.idempotency_keys USING btree (execution_id);
CREATE UNIQUE INDEX rollouts_key ON thingctl.rollouts USING btree (requested_by, idempotency_key) WHERE (idempotency_key <> ''::text);
CREATE INDEX rollouts_state ON thingctl.rollouts USING btree (state);
ALTER INDEX thingctl.executions_command ATTACH PARTITION thingctl.executions_2026_09_command_id_execution_id_idx;
ALTER INDEX thingctl.executions_created ATTACH PARTITION thingctl.executions_2026_09_created_at_idx;
ALTER INDEX thingctl.executions_due ATTACH PARTITION thingctl.executions_2026_09_due_at_idx;
ALTER INDEX thingctl.executions_ended ATTACH PARTITION thingctl.executions_2026_09_ended_at_idx;
ALTER INDEX thingctl.executions_pkey ATTACH PARTITION thingctl.executions_2026_09_pkey;
ALTER INDEX thingctl.executions_retry ATTACH PARTITION thingctl.executions_2026_09_retry_at_idx;
ALTER INDEX thingctl.executions_untold ATTACH PARTITION thingctl.executions_2026_09_tell_at_idx;
ALTER INDEX thingctl.executions_thing ATTACH PARTITION thingctl.executions_2026_09_thing_execution_id_idx;
ALTER INDEX thingctl.executions_waiting ATTACH PARTITION thingctl.executions_2026_09_thing_execution_id_idx1;
ALTER INDEX thingctl.executions_unhanded ATTACH PARTITION thingctl.executions_2026_09_unhanded_since_idx;
ALTER INDEX thingctl.executions_command ATTACH PARTITION thingctl.executions_2026_11_command_id_execution_id_idx;
ALTER INDEX thingctl.executions_created ATTACH PARTITION thingctl.executions_2026_11_created_at_idx;
ALTER INDEX thingctl.executions_due ATTACH PARTITION thingctl.executions_2026_11_due_at_idx;
ALTER INDEX thingctl.executions_ended ATTACH PARTITION thingctl.executions_2026_11_ended_at_idx;
ALTER INDEX thingctl.executions_pkey ATTACH PARTITION thingctl.executions_2026_11_pkey;
ALTER INDEX thingctl.executions_retry ATTACH PARTITION thingctl.executions_2026_11_retry_at_idx;
ALTER INDEX thingctl.executions_untold ATTACH PARTITION thingctl.executions_2026_11_tell_at_idx;
ALTER INDEX thingctl.executions_thing ATTACH PARTITION thingctl.executions_2026_11_thing_execution_id_idx;
ALTER INDEX thingctl.executions_waiting ATTACH PARTITION thingctl.executions_2026_11_thing_execution_id_idx1;
ALTER INDEX thingctl.executions_unhanded ATTACH PARTITION thingctl.executions_2026_11_unhanded_since_idx;
ALTER INDEX thingctl.executions_command ATTACH PARTITION thingctl.executions_2026_12_command_id_execution_id_idx;
ALTER INDEX thingctl.executions_created ATTACH PARTITION thingctl.executions_2026_12_created_at_idx;
ALTER INDEX thingctl.executions_due ATTACH PARTITION thingctl.executions_2026_12_due_at_idx;
ALTER INDEX thingctl.executions_ended ATTACH PARTITION thingctl.executions_2026_12_ended_at_idx;
ALTER INDEX thingctl.executions_pkey ATTACH PARTITION thingctl.executions_2026_12_pkey;
ALTER INDEX thingctl.executions_retry ATTACH PARTITION thingctl.executions_2026_12_retry_at_idx;
ALTER INDEX thingctl.executions_untold ATTACH PARTITION thingctl.executions_2026_12_tell_at_idx;
ALTER INDEX thingctl.executions_thing ATTACH PARTITION thingctl.executions_2026_12_thing_execution_id_idx;
ALTER INDEX thingctl.executions_waiting ATTACH PARTITION thingctl.executions_2026_12_thing_execution_id_idx1;
ALTER INDEX thingctl.executions_unhanded ATTACH PARTITION thingctl.executions_2026_12_unhanded_since_idx;
ALTER INDEX thingctl.executions_command ATTACH PARTITION thingctl.executions_2027_01_command_id_execution_id_idx;
ALTER INDEX thingctl.executions_created ATTACH PARTITION thingctl.executions_2027_01_created_at_idx;
ALTER INDEX thingctl.executions_due ATTACH PARTITION thingctl.executions_2027_01_due_at_idx;
ALTER INDEX thingctl.executions_ended ATTACH PARTITION thingctl.executions_2027_01_ended_at_idx;
ALTER INDEX thingctl.executions_pkey ATTACH PARTITION thingctl.executions_2027_01_pkey;
ALTER INDEX thingctl.executions_retry ATTACH PARTITION thingctl.executions_2027_01_retry_at_idx;
ALTER INDEX thingctl.executions_untold ATTACH PARTITION thingctl.executions_2027_01_tell_at_idx;
ALTER INDEX thingctl.executions_thing ATTACH PARTITION thingctl.executions_2027_01_thing_execution_id_idx;
ALTER INDEX thingctl.executions_waiting ATTACH PARTITION thingctl.executions_2027_01_thing_execution_id_idx1;
ALTER INDEX thingctl.executions_unhanded ATTACH PARTITION thingctl.executions_2027_01_unhanded_since_idx;
ALTER INDEX thingctl.executions_command ATTACH PARTITION thingctl.executions_2027_02_command_id_execution_id_idx;
ALTER INDEX thingctl.executions_created ATTACH PARTITION thingctl.executions_2027_02_created_at_idx;
ALTER INDEX thingctl.executions_due ATTACH PARTITION thingctl.executions_2027_02_due_at_idx;
ALTER INDEX thingctl.executions_ended ATTACH PARTITION thingctl.executions_2027_02_ended_at_idx;
ALTER INDEX thingctl.executions_pkey ATTACH PARTITION thingctl.executions_2027_02_pkey;
ALTER INDEX thingctl.executions_retry ATTACH PARTITION thingctl.executions_2027_02_retry_at_idx;
ALTER INDEX thingctl.executions_untold ATTACH PARTITION thingctl.executions_2027_02_tell_at_idx;
ALTER INDEX thingctl.executions_thing ATTACH PARTITION thingctl.executions_2027_02_thing_execution_id_idx;
ALTER INDEX thingctl.executions_waiting ATTACH PARTITION thingctl.executions_2027_02_thing_execution_id_idx1;
ALTER INDEX thingctl.executions_unhanded ATTACH PARTITION thingctl.executions_2027_02_unhanded_since_idx;

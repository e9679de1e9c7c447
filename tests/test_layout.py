"""The tree is as it should be: each module has its test module, each test module its module."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "protocol": ROOT / "shared" / "thingctl_protocol",
    "broker": ROOT / "broker_plugin" / "thingctl_broker",
    "agent": ROOT / "device_agent" / "thingctl_agent",
}
LINES_MAX = 400
LONGER = {
    "broker/commands/service.py": 475,
    "broker/mqtt/server/client.py": 470,
    "broker/mqtt/server/server.py": 410,
    "agent/runtime/loop.py": 485,
    "agent/core/session.py": 455,
}
"""Modules that are two things still, and how long each may be until it is split."""

TESTED_ELSEWHERE = {
    # Protocols, enums and plain records: nothing in them can go wrong by itself.
    "broker/cli/exits.py": "the exit codes are asked for by every test of the command line",
    "broker/cluster/link_port.py": "a port: its fakes are tested in testing/",
    "broker/cluster/store_port.py": "a port: its fakes are tested in testing/",
    "broker/commands/operations.py": "a port: commands/test_embedded.py and cluster/test_operations.py",
    "broker/commands/ports.py": "ports: testing/test_testing.py",
    "broker/errors.py": "http/test_problems.py turns each into its answer",
    "broker/http/dialects/dialect.py": "a port: test_navixy.py, test_graph.py",
    "broker/http/dialects/graph_resources.py": "plain records: http/dialects/test_graph.py",
    "broker/mqtt/protocol/codec.py": "a port: mqtt/protocol/test_codec3.py",
    "broker/mqtt/server/rights_lookup.py": "mqtt/amqtt/test_topic_rights.py",
    "broker/mqtt/amqtt/client_session.py": "mqtt/amqtt/test_host.py, test_gatekeeper.py",
    "broker/mqtt/engine/delivery.py": "plain records: mqtt/engine/test_session.py",
    "broker/mqtt/engine/outbox.py": "mqtt/engine/test_session.py",
    "broker/mqtt/engine/recording.py": "a port: mqtt/engine/test_restore.py",
    "broker/mqtt/engine/records.py": "mqtt/engine/test_restore.py",
    "broker/mqtt/engine/store.py": "a port: mqtt/engine/test_restore.py",
    "broker/mqtt/engine/totals.py": "mqtt/engine/test_session.py",
    "broker/mqtt/server/request_link.py": "system/test_protocol_device.py, mqtt/server/test_server.py",
    "broker/mqtt/server/limits.py": "app/test_config.py",
    "broker/rollouts/driver.py": "a port: rollouts/test_runner.py and cluster/test_rollouts.py",
    "broker/rollouts/store.py": "a port: rollouts/test_runner.py",
    "broker/security/audit_events.py": "audit/test_log.py",
    "broker/security/caller.py": "audit/test_log.py, http/test_auth.py",
    "broker/things/records.py": "storage/sqlite/test_registry.py",
    "agent/core/effects.py": "plain records: core/test_session.py",
    "agent/errors.py": "every test of the agent",
    # Compositions and commands: the system tests drive them as processes.
    "broker/app/worker.py": "tests/system/test_workers.py",
    "broker/cli/app.py": "cli/test_main.py, cli/test_help.py",
    "broker/cli/backup.py": "app/test_backup.py, tests/system/test_documentation.py",
    "broker/cli/bundles.py": "cli/test_things.py",
    "broker/cli/display.py": "cli/test_commands.py",
    "broker/cli/installed.py": "cli/test_install.py",
    "broker/cli/scripts.py": "cli/test_completion.py",
    "broker/cli/service_tls.py": "cli/test_install.py",
    "broker/cli/steps.py": "cli/test_install.py",
    "broker/cli/thing_types.py": "cli/test_collection.py, cli/test_commands.py",
    "broker/cli/tls.py": "tests/system/test_identity_tls.py",
    "broker/cli/unit.py": "cli/test_install.py",
    "agent/agent.py": "setup/test_cli.py, test_testing.py",
    "agent/runtime/leaving.py": "tests/system/test_agent_stop.py, runtime/test_loop.py",
    "agent/runtime/runner.py": "runtime/test_workers.py",
    "agent/setup/diagnostics.py": "setup/test_cli.py",
    "agent/setup/enrolment.py": "setup/test_install.py",
    "agent/setup/handler_loader.py": "setup/test_cli.py",
    "agent/setup/planning.py": "setup/test_install.py",
    "agent/setup/service.py": "setup/test_install.py",
    "agent/setup/systemd_unit.py": "setup/test_install.py",
    # What a neighbour's test drives whole.
    "broker/http/api/enrolment.py": "http/api/test_things.py",
    "broker/http/api/thing_resource.py": "http/api/test_things.py",
    "broker/mqtt/cluster/connection.py": "mqtt/test_gmqtt_contract.py, mqtt/cluster/test_link.py",
    "broker/mqtt/cluster/session.py": "mqtt/cluster/test_link.py",
    "broker/mqtt/server/client.py": "mqtt/server/test_server.py",
    "broker/security/outbound_urls.py": "webhooks/test_queue.py",
    "broker/storage/postgres/claim_sql.py": "storage/postgres/test_transition_sql.py, test_executions.py",
    "broker/storage/postgres/execution_batches.py": "storage/postgres/test_executions.py",
    "broker/storage/postgres/execution_rows.py": "storage/postgres/test_executions.py",
    "broker/storage/postgres/listing.py": "storage/postgres/test_executions.py",
    "broker/storage/postgres/partitions.py": "storage/postgres/test_schema.py",
    "broker/storage/postgres/statistics.py": "storage/postgres/test_executions.py",
    "broker/storage/postgres/store.py": "tests/system/test_workers.py",
    "broker/storage/rollout_files.py": "rollouts/test_runner.py",
    "broker/system/timestamps.py": "commands/test_execution_resource.py",
    "broker/testing/cluster_store.py": "testing/test_cluster_records.py, cluster/test_model.py",
    "agent/actions/info.py": "test_actions.py",
    "agent/actions/launch.py": "test_actions.py",
    "agent/actions/ping.py": "test_actions.py",
    "agent/actions/reboot.py": "test_actions.py",
    "agent/actions/shell.py": "test_actions.py",
    "agent/core/backoff.py": "test_small_rules.py",
    "agent/core/clock.py": "test_small_rules.py",
    "agent/core/optional_features.py": "test_small_rules.py",
    "agent/core/outbox.py": "test_small_rules.py",
    "agent/core/pending.py": "core/test_session.py",
    "agent/core/progress.py": "test_small_rules.py",
    "agent/core/responder.py": "core/test_session.py",
    "agent/core/slots.py": "test_small_rules.py",
    "agent/handlers/context.py": "runtime/test_workers.py, test_testing.py",
    "agent/handlers/policy.py": "handlers/test_registry.py",
    "agent/runtime/address.py": "runtime/test_mqtt.py",
    "agent/runtime/dialer.py": "runtime/test_loop.py, tests/system/test_agent_connection.py",
    "agent/runtime/tls.py": "tests/system/test_identity_tls.py",
}
"""Modules without a test module of their own name, and where they are tested."""

OF_MORE_THAN_ONE_MODULE = {
    "protocol/test_protocol_page.py": "docs/protocol.md",
    "broker/cli/test_main.py": "the command as a process",
    "broker/cluster/test_model.py": "workers against a plain model",
    "broker/commands/test_model.py": "the table against a plain dict",
    "broker/http/dialects/test_dialects_page.py": "docs/dialects.md",
    "broker/http/test_docs.py": "docs/http-api.md",
    "broker/http/test_generated_clients.py": "clients made from the description",
    "broker/http/test_limited_tokens.py": "every endpoint, with a limited token",
    "broker/http/test_sent_again.py": "idempotency, over HTTP",
    "broker/mqtt/amqtt/test_amqtt_contract.py": "what we lean on in amqtt",
    "broker/mqtt/cluster/test_emqx.py": "EMQX's rules",
    "broker/mqtt/engine/test_model.py": "the engine against a plain model",
    "broker/mqtt/server/test_adversary.py": "hostile clients",
    "broker/mqtt/server/test_receive_maximum.py": "what an MQTT 5 client takes at a time",
    "broker/mqtt/engine/test_statements.py": "the normative statements of MQTT, on the engine",
    "broker/mqtt/server/test_statements.py": "the normative statements of MQTT, over sockets",
    "broker/mqtt/server/test_sessions.py": "sessions over several connections",
    "broker/mqtt/server/test_takeover.py": "two connections of one client",
    "broker/mqtt/test_conformance.py": "docs/mqtt-conformance.md",
    "broker/mqtt/test_gmqtt_contract.py": "what we lean on in gmqtt",
    "broker/storage/test_formats.py": "databases that an earlier version wrote",
    "broker/storage/sqlite/test_recovery.py": "any crash of the journal",
    "broker/testing/test_testing.py": "the fakes that ship",
    "agent/test_actions.py": "the built-in actions",
    "agent/test_examples.py": "examples/",
    "agent/test_model.py": "the core against a plain model",
    "agent/test_small_rules.py": "the small rules of the core",
}
"""Test modules that are named for what several modules do together."""


def modules(name):
    package = PACKAGES[name]
    found = (path.relative_to(package) for path in package.rglob("*.py"))
    return {path for path in found if path.name not in {"__init__.py", "__main__.py"}}


@pytest.mark.parametrize("name", PACKAGES)
def test_each_module_has_its_test_module_or_a_reason(name):
    tests = ROOT / "tests" / name
    without = {
        f"{name}/{path}"
        for path in modules(name)
        if not (tests / path.parent / f"test_{path.name}").is_file()
    }
    assert without == {path for path in TESTED_ELSEWHERE if path.startswith(f"{name}/")}


@pytest.mark.parametrize("name", PACKAGES)
def test_each_test_module_has_its_module_or_a_reason(name):
    tests = ROOT / "tests" / name
    found = {path.relative_to(tests) for path in tests.rglob("test_*.py")}
    assert found
    known = {path.parent / f"test_{path.name}" for path in modules(name)}
    strays = {f"{name}/{path}" for path in found - known}
    assert strays == {path for path in OF_MORE_THAN_ONE_MODULE if path.startswith(f"{name}/")}


def test_a_class_name_means_one_thing():
    """But for ``Options``, which each built-in action has."""
    places = defaultdict(set)
    for name, package in PACKAGES.items():
        for path in package.rglob("*.py"):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef):
                    places[node.name].add(f"{name}/{path.relative_to(package)}")
    assert {cls: sorted(found) for cls, found in places.items() if len(found) > 1 and cls != "Options"} == {}


def test_nothing_lies_beside_the_rooms():
    """At the top of a package are its public modules alone."""
    assert {path.name for path in PACKAGES["broker"].glob("*.py")} == {"__init__.py", "errors.py"}
    assert {path.name for path in PACKAGES["agent"].glob("*.py")} == {
        "__init__.py",
        "agent.py",
        "errors.py",
        "testing.py",
    }


def test_each_room_says_what_it_is_for():
    for package in PACKAGES.values():
        for path in package.rglob("__init__.py"):
            assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), path


@pytest.mark.parametrize("name", PACKAGES)
def test_a_source_root_is_no_package_and_holds_one(name):
    package = PACKAGES[name]
    assert not (package.parent / "__init__.py").exists()
    found = [path.name for path in package.parent.iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert found == [package.name]
    assert (package / "py.typed").is_file()


def test_a_module_is_one_thing():
    lengths = {
        f"{name}/{path.relative_to(package).as_posix()}": len(path.read_text(encoding="utf-8").splitlines())
        for name, package in PACKAGES.items()
        for path in package.rglob("*.py")
    }
    too_long = {path: lines for path, lines in lengths.items() if lines > LONGER.get(path, LINES_MAX)}
    assert too_long == {}
    assert {path for path in LONGER if lengths[path] <= LINES_MAX} == set(), "take it off the list"


def test_each_room_is_a_word_of_the_glossary():
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    words = {
        word.strip()
        for row in page.splitlines()
        if row.startswith("| ")
        for word in row.split("|")[1].split(",")
    }
    rooms = {
        path.parent.name for name in ("broker", "agent") for path in PACKAGES[name].glob("*/__init__.py")
    }
    assert rooms - words == set()

"""The operators' side of a process: opened, joined and given back in one place, for brokers and workers."""

from __future__ import annotations

import ast
import inspect
import socket
import threading

import pytest

from thingctl_broker.app import broker, operator_access, worker
from thingctl_broker.app.config import AuditSettings, HttpSettings, MqttSettings, Settings
from thingctl_broker.app.operator_access import OperatorAccess
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.system.addresses import Address, bind_tcp, bound_to


def settings(tmp_path, **http) -> Settings:
    return Settings(data_dir=str(tmp_path), http=HttpSettings(**{"bind": "127.0.0.1:0", **http}))


def audit_threads() -> int:
    return sum(thread.name == "audit" for thread in threading.enumerate())


def test_it_gives_back_its_port_and_its_audit(tmp_path):
    before = audit_threads()
    access = OperatorAccess(settings(tmp_path))
    access.listen()
    assert audit_threads() == before + 1
    access.abandon()
    assert audit_threads() == before
    bind_tcp(access.address).close()


async def test_the_end_is_the_last_line_of_the_audit(tmp_path):
    access = OperatorAccess(settings(tmp_path))
    await access.close()
    assert '"broker.stopped"' in (tmp_path / "audit.log").read_text().splitlines()[-2]


def test_a_taken_port_is_told(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        access = OperatorAccess(settings(tmp_path, bind=str(bound_to(taken))))
        with pytest.raises(ConfigurationError, match="http: cannot listen on"):
            access.listen()
    access.abandon()


def test_a_certificate_authority_that_cannot_be_read_is_told_before_anything_is_open(tmp_path):
    before = audit_threads()
    absent = str(tmp_path / "absent.pem")
    with pytest.raises(ConfigurationError, match="absent"):
        OperatorAccess(Settings(data_dir=str(tmp_path), mqtt=MqttSettings(tls_ca=absent)))
    assert audit_threads() == before


async def test_stop_before_compose_does_nothing(tmp_path):
    access = OperatorAccess(Settings(data_dir=str(tmp_path), audit=AuditSettings(enabled=False)))
    await access.stop()
    await access.close()
    assert not list(tmp_path.iterdir())


def test_the_address_says_whether_it_is_http(tmp_path):
    access = OperatorAccess(settings(tmp_path))
    access.listen()
    assert access.url == f"http://{access.address}"
    assert access.address != Address("127.0.0.1", 0)
    access.abandon()


def test_a_broker_and_a_worker_put_together_nothing_of_it_themselves():
    made_here = {"HttpServer", "create_app", "Webhooks", "ThingService", "Enrolment", "Passwords", "Audit"}

    def makes(module) -> set[str]:
        calls = (
            node for node in ast.walk(ast.parse(inspect.getsource(module))) if isinstance(node, ast.Call)
        )
        return {call.func.id for call in calls if isinstance(call.func, ast.Name)}

    assert not made_here & (makes(broker) | makes(worker))
    assert made_here - {"Audit"} <= makes(operator_access)

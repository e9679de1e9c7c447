"""How the broker is: alive, ready, and in figures."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from broker.http.running import ClusterApi, RunningApi
from broker_support import HeldJournal
from thingctl_broker.http.api.health import MEDIA_TYPE
from thingctl_broker.http.metrics import COUNTED
from thingctl_protocol import __version__


@pytest.fixture
def api(either):
    """Whoever keeps the executions."""
    return either


PAGE = (Path(__file__).parents[4] / "docs" / "http-api.md").read_text(encoding="utf-8")


def samples(api):
    reply = api.get("/metrics")
    assert reply.status == 200
    assert reply.headers["content-type"] == MEDIA_TYPE.decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(reply.content.decode())
        for sample in family.samples
    }


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_alive_and_ready_without_a_token(api, path):
    reply = api.get(path, headers={})
    assert (reply.status, reply.json) == (200, {"status": "ok"})


def test_not_ready_while_commands_cannot_be_kept():
    journal = HeldJournal()
    api = RunningApi(journal=journal)
    try:
        journal.accepting = False
        reply = api.get("/readyz", headers={})
        assert (reply.status, reply.json["type"]) == (503, "urn:thingctl:problem:not-accepting")
        assert reply.headers["retry-after"] == "5"
        assert api.get("/healthz", headers={}).status == 200
        assert samples(api)["thingctl_accepting",] == 0
        journal.accepting = True
        assert api.get("/readyz", headers={}).status == 200
    finally:
        api.close()


@pytest.mark.parametrize("away", ["link", "store"])
def test_a_worker_is_not_ready_without_its_link_or_its_store(away):
    api = ClusterApi()
    try:
        if away == "link":
            api.call(api.link.lose)
        else:
            api.member.is_heard = False
        assert api.get("/readyz", headers={}).status == 503
        assert api.get("/healthz", headers={}).status == 200
    finally:
        api.close()


def test_not_ready_when_the_broker_is_ending(api):
    api.call(api.app.stop)
    assert api.get("/readyz", headers={}).status == 503


def test_metrics_need_a_token(api):
    assert api.get("/metrics", headers={}).status == 401


def test_what_is_counted(api):
    api.connect("lamp")
    first = api.send("lamp")
    api.send("lock")
    api.clock.advance(0.2)
    api.respond(first, status="SUCCEEDED")
    api.respond(first, status="SUCCEEDED")
    found = samples(api)
    assert found["thingctl_executions_total", "created"] == 2
    assert found["thingctl_executions_total", "SUCCEEDED"] == 1
    assert found["thingctl_responses_total", "repeated"] == 1
    assert found["thingctl_executions_live",] == 1
    assert found["thingctl_executions_held",] == 2
    assert (found["thingctl_things_known",], found["thingctl_things_online",]) == (2, 1)
    assert found["thingctl_accepting",] == 1
    assert found["thingctl_verdict_seconds_count",] == 1
    assert found["thingctl_verdict_seconds_sum",] == pytest.approx(0.2)
    assert found["thingctl_verdict_seconds_bucket", "0.1"] == 0
    assert found["thingctl_verdict_seconds_bucket", "0.25"] == 1
    assert ("thingctl_connections",) not in found


def test_time_outs_are_no_verdicts(api):
    api.send("lamp", ttl=1)
    api.clock.advance(1)
    api.expire()
    assert samples(api)["thingctl_verdict_seconds_count",] == 0


def test_every_metric_is_in_the_documentation(api):
    told = set(re.findall(r"`(thingctl_\w+)`", PAGE))
    api.send("lamp")
    found = {re.sub(r"_(bucket|sum|count)$", "", name) for name, *_ in samples(api)}
    assert {name for name in found if not name.startswith("process_")} <= told


def test_every_counter_is_there_before_its_first_event(api):
    found = samples(api)
    for group, (_, kinds) in COUNTED.items():
        assert {found[f"thingctl_{group}_total", kind] for kind in kinds} <= {0.0}, group


def test_the_process_and_the_build_are_told(api):
    found = samples(api)
    assert found["process_resident_memory_bytes",] > 1e6
    assert found["process_cpu_seconds_total",] > 0
    assert any(name == "thingctl_build_info" and __version__ in labels for name, *labels in found)

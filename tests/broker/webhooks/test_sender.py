"""Telling other systems: signed, in order, tried again, and not forgotten by a restart."""

from __future__ import annotations

import asyncio
import json

import pytest
from structlog.testing import capture_logs

from support.fleet import Fleet, settled
from support.waits import eventually
from thingctl_broker.cluster.operations import OWED_SECONDS
from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.commands.embedded import EmbeddedOperations
from thingctl_broker.testing import InMemoryJournal, service_with_fakes
from thingctl_broker.webhooks.client import AskedToWait, NotAllowed
from thingctl_broker.webhooks.queue import PostQueue, sign, sign_standard
from thingctl_broker.webhooks.sender import Webhooks

URI = "https://a.example/hook"
SECRET = b"0123456789abcdef"


class Hooks:
    """A client that remembers what it was to post, and answers as it is told."""

    def __init__(self, *answers):
        self.posts = []
        self.answers = list(answers)

    async def post(self, uri, body, headers):
        self.posts.append((uri, json.loads(body), body, headers))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return answer

    @property
    def statuses(self):
        return [execution["status"] for _, execution, _, _ in self.posts]


def respond(service, execution, status="SUCCEEDED"):
    payload = b'{"status":"%b"}' % status.encode()
    service.respond(execution.thing, execution.execution_id, payload, lambda: None)


@pytest.fixture
async def running():
    """Makes webhooks over a service of its own; stops them all."""
    made = []

    def make(*answers, endpoints=None, service=None, outbox=None):
        service = service_with_fakes(["lamp"])[0] if service is None else service
        hooks = Hooks(*answers)
        webhooks = Webhooks(EmbeddedOperations(service), hooks, SECRET, endpoints, outbox)
        webhooks._chance = lambda: 0.0
        webhooks.start()
        made.append(webhooks)
        return service, hooks, webhooks

    yield make
    for webhooks in made:
        await webhooks.stop()


async def test_the_end_is_posted_and_signed(running):
    service, hooks, webhooks = running()
    execution = service.send("lamp", "turnOn", post_back_uri=URI)
    respond(service, execution)
    await eventually(lambda: len(webhooks) == 0)
    ((uri, told, body, headers),) = hooks.posts
    assert (uri, told["executionId"], told["status"]) == (URI, execution.execution_id, "SUCCEEDED")
    timestamp = int(headers["Thingctl-Timestamp"])
    assert headers["Thingctl-Signature"] == f"sha256={sign(SECRET, timestamp, body)}"
    assert not execution.untold
    assert service.counters["webhooks.delivered"] == 1


async def test_a_post_has_an_id_that_its_repeats_share(running):
    service, hooks, webhooks = running(500, 200)
    execution = service.send("lamp", "turnOn", post_back_uri=URI)
    respond(service, execution)
    await eventually(lambda: len(webhooks) == 0)
    first, second = (headers["Webhook-Id"] for *_, headers in hooks.posts)
    assert first == second
    *_, body, headers = hooks.posts[0]
    timestamp = int(headers["Webhook-Timestamp"])
    assert headers["Webhook-Signature"] == sign_standard(SECRET, first, timestamp, body)


async def test_a_log_line_shows_no_query(running):
    service, _, webhooks = running(AskedToWait(429, 0.0), NotAllowed("not public"))
    execution = service.send("lamp", "turnOn", post_back_uri="https://a.example/hook?token=hunter2")
    with capture_logs() as logs:
        respond(service, execution)
        await eventually(lambda: len(webhooks) == 0)
    assert [entry["target"] for entry in logs] == ["https://a.example/hook?…"] * 2
    assert "hunter2" not in repr(logs)


async def test_without_anybody_to_tell_nothing_is_noted(running):
    service, hooks, webhooks = running()
    execution = service.send("lamp", "turnOn")
    respond(service, execution)
    assert (len(webhooks), execution.untold, hooks.posts) == (0, False, [])


async def test_in_order_and_the_latest(running):
    service, hooks, webhooks = running()
    execution = service.send("lamp", "turnOn", post_back_uri=URI)
    respond(service, execution, "IN_PROGRESS")
    await eventually(lambda: hooks.statuses == ["IN_PROGRESS"])
    respond(service, execution, "IN_PROGRESS")
    respond(service, execution)
    await eventually(lambda: len(webhooks) == 0)
    assert hooks.statuses == ["IN_PROGRESS", "SUCCEEDED"]


async def test_what_comes_late_is_told_too(running):
    service, hooks, webhooks = running()
    execution = service.send("lamp", "turnOn", post_back_uri=URI)
    service.cancel(execution.execution_id)
    await eventually(lambda: len(hooks.posts) == 1 and not webhooks._outbox)
    respond(service, execution)
    await eventually(lambda: len(hooks.posts) == 2)
    assert hooks.posts[1][1]["late"]["status"] == "SUCCEEDED"


# Over a store that several workers share.


@pytest.fixture
async def two_workers():
    """Two workers with webhooks, and what each is told to post."""
    fleet = Fleet()
    both = []
    for name in ("one", "two"):
        member = await fleet.member(name)
        hooks = Hooks()
        webhooks = Webhooks(member.operations, hooks, SECRET)
        both.append((member, hooks, webhooks))
    await fleet.add_things("lamp")
    yield fleet, both
    for _, _, webhooks in both:
        await webhooks.stop()
    await fleet.stop()


async def test_an_end_is_told_once_by_some_worker(two_workers):
    fleet, both = two_workers
    for _, _, webhooks in both:
        webhooks.start()
    fleet.come("lamp", b'{"status":"SUCCEEDED"}')
    for _ in range(5):
        await both[0][0].send(post_back_uri=URI)
    await eventually(lambda: fleet.store._tell_at == {})
    told = [execution["executionId"] for _, hooks, _ in both for _, execution, _, _ in hooks.posts]
    assert len(told) == len(set(told)) == 5
    assert all(hooks.statuses == ["SUCCEEDED"] * len(hooks.posts) for _, hooks, _ in both)


async def test_an_end_that_its_worker_did_not_live_to_tell_is_told_by_another(two_workers):
    fleet, ((one, hooks, dying), (_, others, living)) = two_workers
    never = asyncio.get_running_loop().create_future()

    async def post(*_):
        await never

    hooks.post = post
    dying.start()
    fleet.come("lamp", b'{"status":"SUCCEEDED"}')
    await one.send(post_back_uri=URI)
    await eventually(lambda: dying._posting)
    await dying.stop()
    await one.die()
    living.start()
    await settled()
    assert others.posts == []
    fleet.clock.advance(OWED_SECONDS)
    living._woken.set()
    await eventually(lambda: fleet.store._tell_at == {})
    assert others.statuses == ["SUCCEEDED"]


async def test_a_store_that_is_away_is_told_in_words(two_workers, monkeypatch):
    _, ((one, _, webhooks), _) = two_workers

    async def away():
        raise StoreDown("the store cannot be reached: refused")

    monkeypatch.setattr(one.operations, "owed", away)
    with capture_logs() as logs:
        await webhooks._take_on()
    assert [(log["log_level"], log.get("fault")) for log in logs] == [
        ("warning", "the store cannot be reached: refused")
    ]


async def test_what_came_late_while_the_end_was_being_told_is_told_too(two_workers):
    fleet, ((one, hooks, webhooks), (two, others, _)) = two_workers
    execution = await one.send(post_back_uri=URI, ttl=1)
    await settled()
    fleet.clock.advance(1)
    posted = []

    async def post(uri, body, headers):
        posted.append(json.loads(body))
        if len(posted) == 1:
            await two.incoming.responded("lamp", execution.execution_id, b'{"status":"SUCCEEDED"}')
        return 200

    hooks.post = others.post = post
    webhooks.start()
    await one.sweeper.expire()
    await eventually(lambda: len(posted) == 1)
    fleet.clock.advance(30)  # until somebody looks
    webhooks._woken.set()
    await eventually(lambda: fleet.store._tell_at == {})
    assert [("late" in execution) for execution in posted] == [False, True]


@pytest.mark.parametrize("fault", [500, 302, 404, OSError("no route"), TimeoutError(), ValueError("what")])
async def test_a_post_that_fails_is_tried_again(running, fault):
    service, hooks, webhooks = running(fault, fault)
    respond(service, service.send("lamp", "turnOn", post_back_uri=URI))
    await eventually(lambda: len(webhooks) == 0)
    assert hooks.statuses == ["SUCCEEDED"] * 3
    assert service.counters["webhooks.failed"] == 2


@pytest.mark.parametrize("fault", [410, NotAllowed("private")])
async def test_a_post_in_vain_is_given_up(running, fault):
    service, hooks, webhooks = running(fault)
    execution = service.send("lamp", "turnOn", post_back_uri=URI)
    respond(service, execution)
    await eventually(lambda: len(webhooks) == 0)
    assert (len(hooks.posts), service.counters["webhooks.givenUp"], execution.untold) == (1, 1, False)


async def test_endpoints_are_told_of_every_execution_with_a_secret_of_their_own(running):
    service, hooks, webhooks = running(endpoints={"https://b.example": b"another-secret-123"})
    execution = service.send("lamp", "turnOn", post_back_uri=URI)
    respond(service, execution)
    await eventually(lambda: len(webhooks) == 0)
    assert {uri for uri, *_ in hooks.posts} == {URI, "https://b.example"}
    for uri, _, body, headers in hooks.posts:
        secret = SECRET if uri == URI else b"another-secret-123"
        assert headers["Thingctl-Signature"].endswith(sign(secret, int(headers["Thingctl-Timestamp"]), body))


async def test_without_room_it_is_counted_and_told_after_the_next_start(running):
    service, _, webhooks = running(outbox=PostQueue(0))
    execution = service.send("lamp", "turnOn", post_back_uri=URI)
    respond(service, execution)
    assert (service.counters["webhooks.noRoom"], execution.untold) == (1, True)
    await webhooks.stop()
    _, again, _ = running(service=service)
    await eventually(lambda: again.statuses == ["SUCCEEDED"])


async def test_a_restart_forgets_nothing(running):
    journal = InMemoryJournal()
    service, _, clock = service_with_fakes(["lamp"], journal)
    _, hooks, webhooks = running(service=service)
    execution = service.send("lamp", "turnOn", post_back_uri=URI)
    respond(service, execution)
    journal.commit()  # the end is kept, and so is that it has yet to be told
    await webhooks.stop()
    assert hooks.posts == []

    restarted, _, _ = service_with_fakes(["lamp"], InMemoryJournal())
    restarted.restore(journal.recover(clock.monotonic(), clock.unix()))
    _, again, webhooks = running(service=restarted)
    await eventually(lambda: again.statuses == ["SUCCEEDED"])
    (found,) = restarted.table
    assert found.post_back_uri == URI
    await eventually(lambda: not found.untold)
    restarted.journal.commit()
    (kept,) = restarted.journal.recover(0.0, 0.0)
    assert not kept.untold


async def kept_after_a_restart(running, journal, clock, endpoints):
    """Restart with other endpoints; return who was told, when all is settled."""
    restarted, _, _ = service_with_fakes(["lamp"], InMemoryJournal())
    restarted.restore(journal.recover(clock.monotonic(), clock.unix()))
    _, hooks, _ = running(service=restarted, endpoints=endpoints)
    (found,) = restarted.table
    await eventually(lambda: not found.untold)
    restarted.journal.commit()
    (kept,) = restarted.journal.recover(0.0, 0.0)
    assert not kept.untold
    return [uri for uri, *_ in hooks.posts]


@pytest.mark.parametrize("endpoints", [{}, {"https://stays.example": b"another-secret-123"}])
async def test_an_endpoint_that_was_removed_is_told_nothing_and_owed_nothing(running, endpoints):
    journal = InMemoryJournal()
    service, _, clock = service_with_fakes(["lamp"], journal)
    removed = {"https://removed.example": b"removed-secret-123"}
    _, hooks, webhooks = running(*[503] * 9, service=service, endpoints=removed | endpoints)
    respond(service, service.send("lamp", "turnOn"))
    journal.commit()
    await webhooks.stop()
    assert await kept_after_a_restart(running, journal, clock, endpoints) == [*endpoints]
    assert hooks.posts == []


async def test_nothing_is_told_before_it_is_kept(running):
    journal = InMemoryJournal()
    service, _, _ = service_with_fakes(["lamp"], journal)
    _, hooks, webhooks = running(service=service)
    respond(service, service.send("lamp", "turnOn", post_back_uri=URI))
    await eventually(lambda: webhooks._posting)
    assert hooks.posts == []
    journal.commit()
    await eventually(lambda: hooks.statuses == ["SUCCEEDED"])

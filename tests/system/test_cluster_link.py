"""The link on a real MQTT 5 broker: mosquitto stands in for a cluster of one node."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from contextlib import asynccontextmanager
from pathlib import Path

import paho.mqtt.client as paho
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from structlog.testing import capture_logs

from agent.harness import Mosquitto, mosquitto, need_mosquitto
from support.cluster import TOPICS, Worker, settings
from support.processes import process, until_said
from support.waits import eventually
from thingctl_broker.cluster.link_port import Handed, LinkDown, PresenceReport, Source
from thingctl_broker.errors import ConfigurationError
from thingctl_broker.mqtt.cluster import share_probe
from thingctl_broker.mqtt.cluster.link import ClusterLink
from thingctl_broker.mqtt.cluster.share_probe import is_shared
from thingctl_broker.security.certificate_authority import Authority, utc_now
from thingctl_broker.system.backoff import ExponentialBackoff
from thingctl_protocol.topics import Topics

pytestmark = pytest.mark.system

TESTS = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def broker(tmp_path_factory):
    with mosquitto(tmp_path_factory.mktemp("mosquitto")) as broker:
        yield broker


class Things:
    """Publishes and subscribes as things do, in paho's own thread."""

    def __init__(self, port: int, client_id: str = "") -> None:
        self.client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id or f"things-{uuid.uuid4()}", protocol=paho.MQTTv5
        )
        self.client.max_inflight_messages = 1000
        self.requests: list[tuple[str, bytes, int | None]] = []
        self.subscribed: list[int] = []
        self.client.on_message = self._on_message
        self.client.on_subscribe = lambda *args: self.subscribed.append(args[2])
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def _on_message(self, client, _userdata, message):
        expiry = getattr(message.properties, "MessageExpiryInterval", None)
        self.requests.append((message.topic, message.payload, expiry))

    async def listen(self, *filters: str) -> None:
        for topic_filter in filters:
            count = len(self.subscribed)
            self.client.subscribe(topic_filter, qos=1)
            await eventually(lambda count=count: len(self.subscribed) > count)

    def say(self, topic: str, payload: bytes = b'{"status":"SUCCEEDED"}', qos: int = 1, **options):
        return self.client.publish(topic, payload, qos=qos, **options)

    async def said(self, infos) -> None:
        await eventually(lambda: all(info.is_published() for info in infos), 30)

    def close(self) -> None:
        self.client.disconnect()
        self.client.loop_stop()


@pytest.fixture
def things(broker):
    things = Things(broker.port)
    yield things
    things.close()


@asynccontextmanager
async def joined(url, name="w1", worker=None, **fields):
    """A link that is up; its session ends with it."""
    worker = worker or Worker()
    link = ClusterLink(settings(url, name, **fields), TOPICS)
    states = []
    await link.start(worker, states.append)
    try:
        yield link, worker, states
    finally:
        assert await link.stop()


async def test_a_round_trip(broker, things):
    await things.listen(TOPICS.request_filter("lamp"), TOPICS.cancel_filter("lamp"), TOPICS.time("lamp"))
    async with joined(broker.url) as (link, worker, states):
        assert await link.publish_request("lamp", "e1", b'{"a":1}', 2.5) is Handed.TAKEN
        link.publish_cancel("lamp", "e1")
        link.publish_time("lamp", 5.5)
        await eventually(lambda: len(things.requests) == 3)
        assert things.requests == [
            (TOPICS.request("lamp", "e1"), b'{"a":1}', 3),
            (TOPICS.cancel("lamp", "e1"), b"{}", 60),
            (TOPICS.time("lamp"), b'{"timestamp":5.5}', None),
        ]
        things.say(TOPICS.response("lamp", "e1"))
        things.say(TOPICS.presence("lamp"), b'{"online":true}')
        await eventually(lambda: worker.ids == ["e1"] and worker.presences == [PresenceReport("lamp", True)])
    assert states == [True, False]


async def test_the_cluster_says_that_nobody_listens_and_keeps_for_whom_it_has_a_session(broker, things):
    async with joined(broker.url) as (link, _, _):
        assert await link.publish_request("nobody", "e1", b"{}", 5) is Handed.NOBODY
        away = paho.Client(paho.CallbackAPIVersion.VERSION2, "away", protocol=paho.MQTTv5)
        expiry = Properties(PacketTypes.CONNECT)
        expiry.SessionExpiryInterval = 60
        subscribed = []
        away.on_subscribe = lambda *_: subscribed.append(1)
        away.connect("127.0.0.1", broker.port, clean_start=False, properties=expiry)
        away.loop_start()
        away.subscribe(TOPICS.request_filter("away"), qos=1)
        await eventually(lambda: subscribed)
        away.disconnect()
        away.loop_stop()
        assert await link.publish_request("away", "e2", b"{}", 5) is Handed.TAKEN


async def test_each_message_goes_to_one_worker_of_the_group(broker, things):
    async with joined(broker.url, "w1") as (_, one, _), joined(broker.url, "w2") as (_, two, _):
        names = [f"e{i}" for i in range(40)]
        for name in names:
            things.say(TOPICS.response("lamp", name))
        await eventually(lambda: len(one.ids) + len(two.ids) == 40)
        assert sorted(one.ids + two.ids) == sorted(names)
        assert one.ids
        assert two.ids


async def test_announcements_that_were_retained_are_heard_by_catching_up(broker, things):
    info = things.say(TOPICS.actions("retained"), b'{"agentVersion":"1"}', retain=True)
    await things.said([info])
    async with joined(broker.url) as (link, worker, _):
        await link.catch_up()
        # mosquitto 2.0.11 sends it to a shared subscription as well.
        assert set(worker.announcements) == {("retained", b'{"agentVersion":"1"}', Source.RETAINED)}
        things.say(TOPICS.actions("retained"), b"", retain=True)
        await eventually(lambda: worker.announcements[-1] == ("retained", b"", Source.LIVE))


async def test_what_things_make_up_is_dropped_and_the_link_goes_on(broker, things):
    properties = Properties(PacketTypes.PUBLISH)
    properties.UserProperty = [("a", "b")] * 50
    properties.ContentType = "x" * 1000
    properties.CorrelationData = bytes(range(256))
    properties.ResponseTopic = "anywhere"
    properties.PayloadFormatIndicator = 0
    properties.MessageExpiryInterval = 100
    properties.TopicAlias = 3
    async with joined(broker.url) as (_, worker, states):
        things.say(TOPICS.response("lamp", "large"), b"x" * 200_000)
        things.say(TOPICS.response("lamp", "empty"), b"")
        things.say(TOPICS.response("lamp", "retained"), b"{}", retain=True)
        things.say(TOPICS.response("lamp", "loose"), b"{}", qos=0)
        things.say(TOPICS.response("lamp", "exactly-once"), b"{}", qos=2)
        things.say("fleet/things/la mp/presence", b"{}")
        things.say(TOPICS.presence("lamp"), b"\xff")
        things.say(TOPICS.response("lamp", "aliased"), b"{}", properties=properties)
        await eventually(lambda: "aliased" in worker.ids and "exactly-once" in worker.ids)
        assert sorted(worker.ids) == ["aliased", "empty", "exactly-once", "loose", "retained"]
        assert sorted(worker.reasons) == ["badPresence", "tooLarge", "unknownTopic"]
        assert states == [True]
    things.say(TOPICS.response("lamp", "retained"), b"", retain=True)


async def test_what_comes_while_the_worker_is_away_waits_for_it(broker, things, monkeypatch):
    monkeypatch.setattr("thingctl_broker.mqtt.cluster.dialer.ROUNDS", ExponentialBackoff(1.0, 15.0))
    async with joined(broker.url) as (link, worker, states):
        link._session.connection.abort("the cable")
        await eventually(lambda: states == [True, False])
        await things.said([things.say(TOPICS.response("lamp", "meanwhile"))])
        assert not worker.ids
        await eventually(lambda: worker.ids == ["meanwhile"] and link.connected)
    assert states == [True, False, True, False]


async def test_what_could_not_be_handled_is_delivered_again_over_the_next_connection(
    broker, things, monkeypatch
):
    monkeypatch.setattr("thingctl_broker.mqtt.cluster.inbox.RETRY", ExponentialBackoff(1000.0, 1000.0))
    tries = []

    async def before(thing, execution_id):
        tries.append(execution_id)
        if len(tries) == 1:
            raise RuntimeError("the store is down")

    async with joined(broker.url, worker=Worker(before)) as (link, worker, _):
        things.say(TOPICS.response("lamp", "e1"))
        await eventually(lambda: tries == ["e1"])
        link._session.connection.abort("the cable")
        await eventually(lambda: worker.ids == ["e1"] and link.connected)
        assert tries == ["e1", "e1"]


async def test_who_stops_leaves_nothing_behind(broker, things):
    async with joined(broker.url, "leaving"):
        pass
    async with joined(broker.url, "staying") as (link, worker, _):
        names = [f"e{i}" for i in range(10)]
        for name in names:
            things.say(TOPICS.response("lamp", name))
        await eventually(lambda: len(worker.ids) == 10)  # none to the one that has gone
        await link.adopt("thingctl-g-leaving")  # there is no session to adopt
        assert len(worker.ids) == 10


async def test_nothing_is_lost_when_a_worker_is_killed_under_load(broker, things, tmp_path):
    """What was in flight to it and what the broker goes on routing to it is handled by its heir."""
    script, noted = TESTS / "support" / "link_worker.py", tmp_path / "noted"
    python_path = {"PYTHONPATH": str(TESTS)}
    names = [f"e{i}" for i in range(3000)]

    def handled():
        return noted.read_text().split() if noted.exists() else []

    async with joined(broker.url, "heir") as (link, heir, _):
        with process(sys.executable, script, broker.url, "dies", noted, "0.05", **python_path) as dies:
            await asyncio.to_thread(until_said, dies, "attached")
            infos = [things.say(TOPICS.response("lamp", name)) for name in names[:2000]]
            await eventually(lambda: len(handled()) > 50)
            os.kill(dies.pid, signal.SIGKILL)
            await asyncio.to_thread(dies.wait)
        infos += [things.say(TOPICS.response("lamp", name)) for name in names[2000:]]
        await things.said(infos)
        await eventually(lambda: len(heir.ids) >= 1400)
        missing = set(names) - set(handled()) - set(heir.ids)
        assert missing  # mosquitto keeps the dead one's share for it alone
        await link.adopt("thingctl-g-dies")
        assert not set(names) - set(handled()) - set(heir.ids)
        # Nothing is routed to it any more.
        for i in range(20):
            things.say(TOPICS.response("lamp", f"after{i}"))
        await eventually(lambda: sum(name.startswith("after") for name in heir.ids) == 20)


async def test_an_heir_that_fails_leaves_it_all_to_the_next(broker, things):
    """A worker that is alive, say, and comes back while it is adopted."""
    async with joined(broker.url, "heir") as (link, heir, _):
        dying = ClusterLink(settings(broker.url, "dying"), TOPICS)
        await dying.start(Worker(), lambda _: None)
        await dying._stop_running()
        dying._session.connection.abort("it dies")
        infos = [things.say(TOPICS.response("lamp", f"e{i}")) for i in range(20)]
        await things.said(infos)
        await eventually(lambda: len(heir.ids) == 10)
        stuck = asyncio.Event()

        async def before(*_):
            await stuck.wait()

        heir.before = before
        adopting = asyncio.ensure_future(link.adopt("thingctl-g-dying"))
        back = ClusterLink(settings(broker.url, "dying"), TOPICS)
        theirs = Worker()
        await asyncio.sleep(0.2)
        await back.start(theirs, lambda _: None)
        with pytest.raises(LinkDown, match=r"was lost|another client came"):
            await adopting
        stuck.set()
        await eventually(lambda: len({*heir.ids, *theirs.ids}) == 20)
        await back.stop()


ACL = """
per_listener_settings false
allow_anonymous false
password_file {directory}/passwords
acl_file {directory}/acl
"""


@pytest.fixture
def strict(tmp_path):
    """A mosquitto with users: ``worker`` may all, ``mute`` may not publish."""
    need_mosquitto()
    for user in ("worker", "mute"):
        subprocess.run(
            [
                "mosquitto_passwd",
                *(["-c"] if user == "worker" else []),
                "-b",
                tmp_path / "passwords",
                user,
                "pw",
            ],
            check=True,
            capture_output=True,
        )
    (tmp_path / "acl").write_text("user worker\ntopic readwrite #\nuser mute\ntopic read #\n")
    with mosquitto(tmp_path, ACL.format(directory=tmp_path)) as broker:
        yield broker


async def test_users_are_who_they_say_and_may_what_the_acl_says(strict):
    async with joined(strict.url, username="worker", password="pw") as (link, _, _):
        assert await link.publish_request("nobody", "e", b"{}", 5) is Handed.NOBODY
    for login in ({}, {"username": "worker", "password": "wrong"}):
        link = ClusterLink(settings(strict.url, **login), TOPICS)
        with pytest.raises(ConfigurationError, match=r"not authorized|bad user name or password"):
            await link.start(Worker(), lambda _: None)
    link = ClusterLink(settings(strict.url, username="mute", password="pw"), TOPICS)
    await link.start(Worker(), lambda _: None)
    with pytest.raises(LinkDown, match=r"refuses a publish to .*: not authorized"):
        await link.publish_request("lamp", "e", b"{}", 5)
    await link.stop()  # mosquitto 2.0.11 may end the connection after a publish that it denies


TLS = """
allow_anonymous false
cafile {directory}/ca.pem
certfile {directory}/server.pem
keyfile {directory}/server.key
require_certificate true
use_identity_as_username true
"""


@pytest.fixture
def certified(tmp_path):
    """A mosquitto that speaks TLS, and lets in who has a certificate; the files are in ``tmp_path``."""
    authority, now = Authority.make(utc_now()), utc_now()
    (tmp_path / "ca.pem").write_bytes(authority.pair().cert)
    (tmp_path / "other-ca.pem").write_bytes(Authority.make(now).pair().cert)
    for name, pair in (
        ("server", authority.server(["127.0.0.1"], now)),
        ("worker", authority.thing("thingctl-worker", now)),
    ):
        (tmp_path / f"{name}.pem").write_bytes(pair.cert)
        (tmp_path / f"{name}.key").write_bytes(pair.key)
    with mosquitto(tmp_path, TLS.format(directory=tmp_path)) as broker:
        yield broker.url.replace("mqtt:", "mqtts:")


async def test_tls_with_a_certificate_of_the_workers_own(certified, tmp_path):
    files = {"tls_ca": f"{tmp_path}/ca.pem"}
    own = {"tls_cert": f"{tmp_path}/worker.pem", "tls_key": f"{tmp_path}/worker.key"}
    async with joined(certified, **files, **own) as (link, _, states):
        assert await link.publish_request("nobody", "e", b"{}", 5) is Handed.NOBODY
        await link.adopt("thingctl-g-nobody")
    assert states == [True, False]
    link = ClusterLink(settings(certified, tls_ca=f"{tmp_path}/other-ca.pem", **own), TOPICS)
    with pytest.raises(
        ConfigurationError, match=r"certificate is not trusted \(.*\): is tls_ca its authority"
    ):
        await link.start(Worker(), lambda _: None)


async def test_a_broker_that_restarts_is_found_again(tmp_path, monkeypatch):
    broker = Mosquitto(tmp_path).start()
    try:
        async with joined(broker.url) as (link, worker, states):
            broker.stop()
            await eventually(lambda: states == [True, False])
            with pytest.raises(LinkDown):
                await link.publish_request("lamp", "e", b"{}", 5)
            broker.start()
            await eventually(lambda: link.connected, 30)
            things = Things(broker.port)
            things.say(TOPICS.response("lamp", "e1"))
            await eventually(lambda: worker.ids == ["e1"])
            things.close()
    finally:
        broker.stop()


# A topic root that begins with $.

DOLLAR = Topics("$fleet")
DEAF = "no response will ever be heard"


async def test_a_root_that_mosquitto_does_not_share_is_warned_of_once(broker, things, monkeypatch):
    monkeypatch.setattr(share_probe, "EVERY", 0.05)
    await things.listen("$fleet/#")
    worker = Worker()
    link = ClusterLink(settings(broker.url, "deaf"), DOLLAR)
    with capture_logs() as logs:
        await link.start(worker, lambda _: None)
        await eventually(lambda: any(log["event"].startswith(DEAF) for log in logs))
        things.say(DOLLAR.response("lamp", "e1"))
        await eventually(
            lambda: (DOLLAR.response("lamp", "e1")) in [topic for topic, _, _ in things.requests]
        )
        await eventually(link._prober.done)
        assert await link.stop()
    (warning,) = [log for log in logs if log["log_level"] == "warning"]
    assert warning["topicRoot"] == "$fleet"
    assert (worker.responses, worker.drops) == ([], [])
    heard = {topic for topic, _, _ in things.requests} - {DOLLAR.response("lamp", "e1")}
    assert [DOLLAR.parse(topic) for topic in heard] == [None], "no device would take it for anything"


async def test_a_root_that_is_shared_is_found_to_be(broker, things):
    await things.listen("fleet/#")
    async with joined(broker.url) as (link, worker, _):
        assert link._prober is None, "nothing to find out"
        assert await is_shared(link._dialer, "w1", TOPICS) is True
        await eventually(lambda: things.requests)
        assert {topic for topic, _, _ in things.requests} == {"fleet/probe/w1"}
        assert (worker.responses, worker.announcements, worker.presences, worker.drops) == ([], [], [], [])


async def test_who_may_not_find_out_is_not_warned(tmp_path, monkeypatch):
    monkeypatch.setattr(share_probe, "EVERY", 0.05)
    rules = tmp_path / "acl"
    rules.write_text("topic readwrite $fleet/things/#\ntopic read $fleet/probe/#\n")
    with mosquitto(tmp_path, f"allow_anonymous true\nacl_file {rules}\n") as guarded:
        link = ClusterLink(settings(guarded.url, "w"), DOLLAR)
        assert await is_shared(link._dialer, "w", DOLLAR) is None


async def test_a_worker_that_stops_leaves_no_probe_behind(broker):
    link = ClusterLink(settings(broker.url, "brief"), DOLLAR)
    await link.start(Worker(), lambda _: None)
    prober = link._prober
    assert await link.stop()
    assert prober.cancelled()

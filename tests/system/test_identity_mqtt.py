"""Who may do what over MQTT: a closed broker, real clients, every trick that comes to mind.

The same tests over each way in: TCP, WebSocket, both with TLS, and TLS with a certificate for
a password. A certificate counts on the MQTT port only.
"""

from __future__ import annotations

import json
import ssl
import subprocess

import pytest

from support.operators import Operator
from support.paho import paho
from support.processes import BIN, TOKEN, output, serving
from support.waits import eventually, soon
from support.wire import RawClient
from thingctl_broker.mqtt.protocol import packets
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import ConnackCode, Will

pytestmark = pytest.mark.system

ROOT = "$emqx/commands/things"


WAYS = ("tcp", "ws", "tls", "wss", "certificate")


class World:
    """A closed broker with two things, and an operator. ``files``: what ``thingctl tls`` has made."""

    def __init__(self, serve, way="tcp", files=None):
        self.serve = serve
        self.way = way
        self.files = files
        self.operator = Operator(serve.http_address, self.tls())
        self.passwords = {name: self.add(name) for name in ("lamp", "lock")}

    def add(self, name):
        answer = self.operator.call("POST", "/api/v1/things", {"name": name})
        assert answer.status == 201, answer
        if self.way == "certificate":
            certify(self.files, name)
        return answer.body["credentials"]["password"]

    def certificate(self, name):
        return self.files / f"{name}.crt"

    def tls(self, name=None):
        """How a client trusts the broker, and with whose certificate; None: without TLS."""
        if self.files is None:
            return None
        context = ssl.create_default_context(cafile=self.files / "ca.crt")
        if name is not None:
            context.load_cert_chain(self.certificate(name), self.files / f"{name}.key")
        return context

    def thing(self, name):
        return self.operator.call("GET", f"/api/v1/things/{name}").body

    async def open(self, certificate=None):
        if self.way in {"ws", "wss"}:
            return await RawClient.open_websocket(self.serve.http_address, self.tls(certificate))
        return await RawClient.open(self.serve.mqtt_address, self.tls(certificate))

    async def knock(self, username, password, client_id="c", *, certificate=None, **options):
        """Connect; return the client and the CONNACK's code."""
        client = await self.open(certificate)
        password = password.encode() if isinstance(password, str) else password
        answer = await client.connect(client_id, username=username, password=password, **options)
        return client, answer.packet[3]

    async def enter(self, name, client_id="c", **options):
        if self.way == "certificate":
            client, code = await self.knock(None, None, client_id, certificate=name, **options)
        else:
            client, code = await self.knock(name, self.passwords[name], client_id, **options)
        assert code == ConnackCode.ACCEPTED
        return client


def certify(files, name):
    """Have a certificate signed, if there is none yet."""
    if (files / f"{name}.crt").exists():
        return
    subprocess.run([BIN / "thingctl", "tls", "thing", name, "--dir", files], check=True, capture_output=True)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """An authority, and what it has signed for the broker."""
    files = tmp_path_factory.mktemp("tls") / "tls"
    subprocess.run(
        [BIN / "thingctl", "tls", "init", "--dir", files, "--name", "127.0.0.1"],
        check=True,
        capture_output=True,
    )
    return files


@pytest.fixture(scope="module", params=WAYS)
def world(request, tmp_path_factory, files):
    way = request.param
    secured = way not in {"tcp", "ws"}
    options = ["--in-memory", *(["--tls-dir", str(files)] if secured else [])]
    with serving(tmp_path_factory.mktemp(way), *options, enrolment="--closed") as serve:
        world = World(serve, way, files if secured else None)
        yield world
        world.operator.close()
        said = output(serve.process)
        assert "Traceback" not in said
        assert TOKEN not in said


@pytest.fixture(autouse=True)
async def nobody_stays():
    yield
    await RawClient.close_all()


def publish(topic, payload=b"{}", *, qos=1, packet_id=9, retain=False):
    return CODEC_3.encode_publish(topic.encode(), payload, qos=qos, packet_id=packet_id, retain=retain)


def request_filter(name):
    return f"{ROOT}/{name}/executions/+/request"


async def test_the_password_lets_the_thing_in_and_serves_its_commands(world):
    client = await world.enter("lamp", "whatever-id")
    assert await client.subscribe(request_filter("lamp")) == [1]
    execution_id = world.operator.send("lamp", "turnOn")
    request = await client.expect_publish()
    assert request.topic == f"{ROOT}/lamp/executions/{execution_id}/request"
    client.send(publish(f"{ROOT}/lamp/executions/{execution_id}/response", b'{"status":"SUCCEEDED"}'))
    world.operator.until(execution_id, "SUCCEEDED")
    shown = world.thing("lamp")
    assert shown["online"] is True
    assert shown["clientId"].endswith("whatever-id")


@pytest.mark.parametrize(
    ("username", "password", "code"),
    [
        (None, None, ConnackCode.NOT_AUTHORIZED),
        ("lamp", None, ConnackCode.NOT_AUTHORIZED),
        ("", "x", ConnackCode.NOT_AUTHORIZED),
        ("lamp", "", ConnackCode.BAD_USER_NAME_OR_PASSWORD),
        ("lamp", "wrong", ConnackCode.BAD_USER_NAME_OR_PASSWORD),
        ("lamp", b"\xff\xfe\x00", ConnackCode.BAD_USER_NAME_OR_PASSWORD),
        ("LAMP", "right", ConnackCode.BAD_USER_NAME_OR_PASSWORD),
        ("lamp ", "right", ConnackCode.BAD_USER_NAME_OR_PASSWORD),
        ("lamp/../lock", "right", ConnackCode.BAD_USER_NAME_OR_PASSWORD),
        ("lock", "right", ConnackCode.BAD_USER_NAME_OR_PASSWORD),
        ("nobody", "right", ConnackCode.BAD_USER_NAME_OR_PASSWORD),
        ("+", "right", ConnackCode.BAD_USER_NAME_OR_PASSWORD),
    ],
)
async def test_nothing_else_does(world, username, password, code):
    password = world.passwords["lamp"] if password == "right" else password
    client, answered = await world.knock(username, password)
    assert answered == code
    await client.expect_end()


async def test_a_certificate_over_websocket_lets_nobody_in(tmp_path, files):
    """The HTTP port asks for none, so it cannot be an identity there; and it takes nothing away."""
    certify(files, "lamp")
    options = ("--in-memory", "--tls-dir", str(files))
    with serving(tmp_path, *options, enrolment="--closed") as serve:
        world = World(serve, "wss", files)
        for username, password in ((None, None), ("lamp", None), ("lamp", ""), ("lock", "any")):
            client, code = await world.knock(username, password, certificate="lamp")
            assert code in {ConnackCode.NOT_AUTHORIZED, ConnackCode.BAD_USER_NAME_OR_PASSWORD}
            await client.expect_end()
        client, code = await world.knock("lock", world.passwords["lock"], certificate="lamp")
        assert code == ConnackCode.ACCEPTED
        assert await client.subscribe(request_filter("lock"), request_filter("lamp")) == [1, 0x80]
        world.operator.close()


async def test_a_thing_cannot_answer_for_another(world):
    lock = await world.enter("lock", "lock-1")
    await lock.subscribe(request_filter("lock"))
    execution_id = world.operator.send("lock", "open")
    await lock.expect_publish()
    lamp = await world.enter("lamp", "lamp-1")
    for topic in (
        f"{ROOT}/lock/executions/{execution_id}/response",
        f"{ROOT}/lamp/executions/{execution_id}/response",  # its own topic, the other's execution
        f"{ROOT}/lamp/../lock/executions/{execution_id}/response",
    ):
        for qos in (0, 1, 2):
            lamp.send(publish(topic, b'{"status":"SUCCEEDED"}', qos=qos))
    await lamp.expect(packets.PacketType.PUBACK)
    await lamp.expect(packets.PacketType.PUBREC)
    assert world.operator.get(execution_id)["status"] == "SENT"
    lock.send(publish(f"{ROOT}/lock/executions/{execution_id}/response", b'{"status":"FAILED"}'))
    world.operator.until(execution_id, "FAILED")


async def test_guessing_execution_ids_tells_and_changes_nothing(world):
    lamp = await world.enter("lamp")
    execution_id = world.operator.send("lock", "open")
    head, _, tail = execution_id.rpartition("-")
    for guess in (execution_id, f"{head}-{int(tail, 16) + 1:012x}", "0", "+", "#", "%2e%2e"):
        lamp.send(publish(f"{ROOT}/lamp/executions/{guess}/response", b'{"status":"SUCCEEDED"}', qos=0))
    await lamp.ping()  # it may stay, and has heard nothing
    assert world.operator.get(execution_id)["status"] == "SENT"
    world.operator.call("POST", f"/api/v1/commands/{execution_id}/cancel")


async def test_a_thing_cannot_publish_requests_cancels_or_anothers_announcement(world):
    lock = await world.enter("lock", "lock-1")
    assert await lock.subscribe(request_filter("lock"), f"{ROOT}/lock/executions/+/cancel") == [1, 1]
    lamp = await world.enter("lamp", "lamp-1")
    for topic in (
        f"{ROOT}/lock/executions/x/request",
        f"{ROOT}/lamp/executions/x/request",
        f"{ROOT}/lock/executions/x/cancel",
        f"{ROOT}/lock/actions",
        f"{ROOT}/lock/time",
        "$emqx/commands",
        "$SYS/broker/version",
    ):
        lamp.send(publish(topic, b'{"actions":[{"name":"evil"}]}', retain=True))
        await lamp.expect(packets.PacketType.PUBACK)  # MQTT 3.1.1 knows no other no
    await lock.ping()  # nothing came before the answer
    assert "actions" not in world.thing("lock")


@pytest.mark.parametrize(
    "topic_filter",
    [
        request_filter("lock"),
        f"{ROOT}/+/executions/+/request",
        f"{ROOT}/#",
        "$emqx/commands/#",
        "$emqx/#",
        "$SYS/#",
        "$SYS/broker/version",
        "#",
        "+/#",
        "things/#",
        "things/+/state",
        "things/lock/#",
        "things/lock/state",
        "$share/g/things/lock/#",
        "things/lamp#",
        "things/../things/lamp/#",
    ],
)
async def test_a_thing_cannot_subscribe_beyond_its_own(world, topic_filter):
    lamp = await world.enter("lamp")
    assert await lamp.subscribe(topic_filter) == [0x80]
    assert await lamp.subscribe("things/lamp/#", topic_filter, request_filter("lamp")) == [1, 0x80, 1]


async def test_the_client_id_makes_nobody_another(world):
    lock = await world.enter("lock", "lock", clean=False)
    await lock.subscribe(request_filter("lock"), "things/lock/state")
    for client_id in ("lock", "lock/lock", "lamp/lock", "$SYS", "#"):
        lamp = await world.enter("lamp", client_id, clean=False)
        assert await lamp.subscribe(request_filter("lock")) == [0x80]
        await lamp.close()
    await lock.ping()  # it has not been taken over
    lock.send(publish("things/lock/state", b"open"))
    assert {await first(lock), await first(lock)} == {packets.PacketType.PUBLISH, packets.PacketType.PUBACK}


async def first(client):
    frame = await client.receive()
    assert frame is not None
    return frame.first >> 4


async def test_another_identity_cannot_resume_or_end_a_session(world):
    lock = await world.enter("lock", "mine", clean=False)
    await lock.subscribe("things/lock/#")
    lock.reset()
    for clean in (False, True):
        client = await world.open()
        answer = await client.connect(
            "mine", clean=clean, username="lamp", password=world.passwords["lamp"].encode()
        )
        assert (answer.packet[2], answer.packet[3]) == (0, ConnackCode.ACCEPTED)  # no session present
        await client.close()
    for password in (b"wrong", None):
        client = await world.open()
        await client.connect("mine", clean=True, username="lock", password=password)
    # As it came the first time: who signs in another way begins anew.
    if world.way == "certificate":
        certificate, credentials = "lock", {}
    else:
        certificate, credentials = None, {"username": "lock", "password": world.passwords["lock"].encode()}
    client = await world.open(certificate)
    answer = await client.connect("mine", clean=False, **credentials)
    assert (answer.packet[2], answer.packet[3]) == (1, ConnackCode.ACCEPTED)


async def test_a_second_connection_with_the_same_identity_takes_over(world):
    first_one = await world.enter("lamp", "same")
    await first_one.subscribe(request_filter("lamp"))
    second = await world.enter("lamp", "same")
    await first_one.expect_end()
    await second.subscribe(request_filter("lamp"))
    third = await world.enter("lamp", "other")
    await third.subscribe(request_filter("lamp"))
    execution_id = world.operator.send("lamp", "turnOn")
    await third.expect_publish()  # the latest gets the commands
    assert world.thing("lamp")["online"] is True
    third.send(publish(f"{ROOT}/lamp/executions/{execution_id}/response", b'{"status":"SUCCEEDED"}'))
    world.operator.until(execution_id, "SUCCEEDED")


@pytest.mark.parametrize(
    "topic",
    [
        f"{ROOT}/lock/executions/x/response",
        f"{ROOT}/lock/executions/x/request",
        f"{ROOT}/lamp/executions/x/response",
        "things/lock/state",
        "things",
        "anything",
        "$other/x",
    ],
)
async def test_a_will_on_anothers_topic_is_refused(world, topic):
    client, code = await world.knock("lamp", world.passwords["lamp"], will=Will(topic, b"x", 1, True))
    assert code == ConnackCode.NOT_AUTHORIZED
    await client.expect_end()


async def test_a_will_on_its_own_topic_is_published(world):
    heir = await world.enter("lamp", "heir")
    await heir.subscribe("things/lamp/#")
    dying = await world.enter("lamp", "dying", will=Will("things/lamp/gone", b"farewell", 1, False))
    dying.reset()
    assert (await heir.expect_publish()).payload == b"farewell"


async def test_ordinary_topics_go_by_the_rules(world):
    lock = await world.enter("lock", "lock-1")
    await lock.subscribe("things/lock/#")
    lamp = await world.enter("lamp", "lamp-1")
    assert await lamp.subscribe("things/lamp/#") == [1]
    for qos in (0, 1, 2):
        lamp.send(publish("things/lock/state", b"forged", qos=qos, packet_id=qos + 1))
        lamp.send(publish("elsewhere", b"forged", qos=qos, packet_id=qos + 11))
    lamp.send(publish("things/lamp/state", b"mine", qos=0))
    while True:
        frame = await lamp.receive()
        if frame.first >> 4 == packets.PacketType.PUBLISH:
            assert packets.parse_publish(frame).payload == b"mine"
            break
    lock.send(publish("things/lock/state", b"true", qos=0))
    assert (await lock.expect_publish()).payload == b"true"  # the first that came


async def test_retained_messages_are_no_back_door(world):
    lock = await world.enter("lock", "lock-1", clean=False)
    await lock.subscribe("things/lock/#")
    for qos in (0, 1):
        lock.send(publish(f"things/lock/secret{qos}", b"secret", qos=qos, retain=True))
    for _ in range(3):
        await lock.receive()
    for clean in (True, False):
        lamp = await world.enter("lamp", f"lamp-{clean}", clean=clean)
        lamp.send(publish("things/lamp/state", b"x", qos=1))  # from now on the ordinary broker knows it
        await lamp.expect(packets.PacketType.PUBACK)
        assert await lamp.subscribe("things/lamp/#", "things/lock/#", "+/+/secret1") == [1, 0x80, 0x80]
        lamp.send(publish("things/lamp/state", b"end", qos=0))
        assert (await lamp.expect_publish()).payload == b"end"
    lamp = await world.enter("lamp", "announcer")
    lamp.send(publish(f"{ROOT}/lock/actions", b'{"agentVersion":"evil"}', retain=True))
    await lamp.expect(packets.PacketType.PUBACK)
    assert "agentVersion" not in world.thing("lock")


async def test_a_disabled_thing_is_out_at_once_and_stays_out(world):
    world.passwords["away"] = world.add("away")
    client = await world.enter("away")
    await client.subscribe(request_filter("away"))
    assert world.operator.call("PATCH", "/api/v1/things/away", {"enabled": False}).status == 200
    await client.expect_end()
    _, code = await world.knock("away", world.passwords["away"])
    assert code == ConnackCode.NOT_AUTHORIZED
    answer = world.operator.call("POST", "/api/v1/commands", {"thingId": "away", "action": "x"})
    assert (answer.status, answer.body["type"]) == (409, "urn:thingctl:problem:thing-disabled")
    world.operator.call("PATCH", "/api/v1/things/away", {"enabled": True})
    await world.enter("away")


async def test_a_password_that_leaked_ends_at_once(world):
    world.passwords["renewed"] = old = world.add("renewed")
    client = await world.enter("renewed")
    answer = world.operator.call("POST", "/api/v1/things/renewed/password", {"oldValidFor": 0})
    await client.expect_end()
    _, code = await world.knock("renewed", old)
    assert code == ConnackCode.BAD_USER_NAME_OR_PASSWORD
    world.passwords["renewed"] = answer.body["credentials"]["password"]
    await world.enter("renewed")


async def test_a_removed_thing_is_out_and_its_successor_inherits_no_session(world):
    world.passwords["brief"] = world.add("brief")
    client = await world.enter("brief", "id", clean=False)
    await client.subscribe(request_filter("brief"), "things/brief/#")
    assert world.operator.call("DELETE", "/api/v1/things/brief").status == 204
    await client.expect_end()
    answer = world.operator.call("POST", "/api/v1/commands", {"thingId": "brief", "action": "x"})
    assert answer.status == 404
    _, code = await world.knock("brief", world.passwords["brief"])
    assert code == ConnackCode.BAD_USER_NAME_OR_PASSWORD
    world.passwords["brief"] = world.add("brief")
    client = await world.open()
    connack = await client.connect(
        "id", clean=False, username="brief", password=world.passwords["brief"].encode()
    )
    assert (connack.packet[2], connack.packet[3]) == (0, ConnackCode.ACCEPTED)


async def test_who_guesses_passwords_has_to_wait_and_others_do_not(tmp_path):
    with serving(tmp_path, "--in-memory", enrolment="--closed") as serve:
        world = World(serve)
        await world.enter("lock")  # its password is known to be right
        codes = []
        for i in range(25):
            client, code = await world.knock("lamp", f"guess-{i}")
            codes.append(code)
            await client.close()
        assert codes[:20] == [ConnackCode.BAD_USER_NAME_OR_PASSWORD] * 20
        assert codes[-1] == ConnackCode.NOT_AUTHORIZED
        # A device behind the same address that was here before comes back all the same.
        await world.enter("lock")
        world.operator.close()
        assert "guess-" not in output(serve.process)


def test_the_command_line_adds_a_thing_that_can_sign_in(tmp_path):
    with serving(tmp_path, "--in-memory", enrolment="--closed") as serve:
        world = World(serve)
        _adds_a_thing_that_can_sign_in(world)
        world.operator.close()


def _adds_a_thing_that_can_sign_in(world):
    environment = world.serve.client_environment
    ran = subprocess.run(
        [BIN / "thingctl", "things", "add", "porch", "--tag", "outside", "--json"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    added = json.loads(ran.stdout)
    with paho(
        world.serve.mqtt_address,
        "any",
        prepare=lambda client: client.username_pw_set(added["username"], added["password"]),
    ) as client:
        assert client.listen(request_filter("porch")) == [1]
        soon(lambda: world.thing("porch")["online"])
        client.say(f"{ROOT}/porch/actions", b'{"agentVersion":"9","actions":[{"name":"x"}]}', retain=True)
        soon(lambda: world.thing("porch").get("agentVersion") == "9")
    assert added["password"] not in output(world.serve.process)


async def test_what_is_kept_outlives_the_broker(tmp_path):
    with serving(tmp_path, enrolment="--closed") as serve:
        world = World(serve)
        world.operator.call("PUT", "/api/v1/thing-types/light", {"actions": [{"name": "dim"}]})
        world.operator.call("PATCH", "/api/v1/things/lamp", {"type": "light", "tags": ["hall"]})
        lamp = await world.enter("lamp")
        lamp.send(publish(f"{ROOT}/lamp/actions", b'{"agentVersion":"3","actions":[{"name":"dim"}]}'))
        await lamp.expect(packets.PacketType.PUBACK)
        await eventually(lambda: world.thing("lamp").get("agentVersion") == "3")
        passwords = world.passwords
        world.operator.close()
        serve.process.terminate()
        assert serve.process.wait(10) == 0
    with serving(tmp_path, enrolment="--closed") as serve:
        world = World.__new__(World)
        world.serve, world.operator, world.passwords = serve, Operator(serve.http_address), passwords
        world.way, world.files = "tcp", None
        shown = world.thing("lamp")
        assert (shown["type"], shown["tags"], shown["agentVersion"]) == ("light", ["hall"], "3")
        assert shown["online"] is False
        assert shown["drift"] == []
        await world.enter("lamp")
        world.operator.close()
        await RawClient.close_all()


async def test_the_audit_tells_who_did_what_and_that_nobody_changed_it(tmp_path):
    def verify():
        return subprocess.run(
            [BIN / "thingctl", "audit", "verify", "--data-dir", tmp_path],
            capture_output=True,
            text=True,
            check=False,
        )

    with serving(tmp_path, enrolment="--closed") as serve:
        world = World(serve)
        lamp = await world.enter("lamp")
        await lamp.subscribe(request_filter("lamp"))
        execution_id = world.operator.send("lamp", "setWifi", {"key": "hunter2"})
        await lamp.expect_publish()
        topic = f"{ROOT}/lamp/executions/{execution_id}/response"
        lamp.send(publish(topic, b'{"status":"SUCCEEDED"}'))
        world.operator.until(execution_id, "SUCCEEDED")
        world.operator.close()
        serve.process.terminate()
        assert serve.process.wait(10) == 0
    assert verify().returncode == 0, verify()
    path = tmp_path / "audit.log"
    whole = path.read_text()
    records = [json.loads(line) for line in whole.splitlines()]
    about = [record for record in records if record.get("executionId") == execution_id]
    assert [(record["event"], record["who"], record["thing"]) for record in about] == [
        ("command.sent", "admin", "lamp"),
        ("command.ended", "admin", "lamp"),
    ]
    assert (about[0]["source"], about[0]["action"], about[1]["status"]) == (
        "127.0.0.1",
        "setWifi",
        "SUCCEEDED",
    )
    assert [record["thing"] for record in records if record.get("event") == "thing.added"] == ["lamp", "lock"]
    for secret in ("hunter2", TOKEN, *world.passwords.values()):
        assert secret not in whole
    path.write_text(whole.replace("setWifi", "turnOff"))
    assert verify().returncode == 1

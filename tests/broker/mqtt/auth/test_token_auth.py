"""Programs of the operator's sign in over MQTT with an API token, and may what it says."""

from __future__ import annotations

import pytest

from support.brokers import plugin_broker
from support.waits import eventually
from support.wire import RawClient
from thingctl_broker.mqtt.auth.token_auth import Backends
from thingctl_broker.mqtt.protocol.codec3 import CODEC_3
from thingctl_broker.mqtt.protocol.packets import ConnackCode, Connect, ConnectRefused, PacketType, Will
from thingctl_broker.security import login_throttle
from thingctl_broker.security.login_throttle import OF_ADDRESS, OF_NAME
from thingctl_broker.security.tokens import Token

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")

ROOT = "$emqx/commands"
REFUSED = 0x80


@pytest.fixture
async def running(tmp_path):
    async with plugin_broker(tmp_path, open=False, in_memory=True) as running:
        yield running


async def make(running, *scopes: str, name: str = "backend", **fields) -> str:
    return await running.application.tokens.add(Token(name, frozenset(scopes), **fields))


async def knock(running, secret: str | bytes | None, name: str = "@backend", client_id: str = "c", **options):
    client = await RawClient.open(running.address)
    password = secret.encode() if isinstance(secret, str) else secret
    return client, (await client.connect(client_id, username=name, password=password, **options)).packet[3]


async def enter(running, secret: str, **options) -> RawClient:
    client, code = await knock(running, secret, **options)
    assert code == ConnackCode.ACCEPTED
    return client


async def test_with_mqtt_read_it_hears_everything_and_publishes_nothing(running):
    reader = await enter(running, await make(running, "mqtt:read"))
    assert await reader.subscribe("#", "things/+/telemetry", f"{ROOT}/#") == [1, 1, 0]
    writer = await enter(running, await make(running, "mqtt:write", name="w"), name="@w")
    writer.send(CODEC_3.encode_publish(b"things/lamp/telemetry", b"21", qos=1, packet_id=1))
    await writer.expect(PacketType.PUBACK)
    assert (await reader.expect_publish()).topic == "things/lamp/telemetry"
    reader.send(CODEC_3.encode_publish(b"things/lamp/set", b"x", qos=1, packet_id=1))
    dropped = running.service.counters["dropped.forbiddenTopic"]
    await eventually(lambda: running.service.counters["dropped.forbiddenTopic"] == dropped + 1)


async def test_with_mqtt_write_it_publishes_what_is_ordinary_and_hears_nothing(running):
    writer = await enter(running, await make(running, "mqtt:write"))
    assert await writer.subscribe("#", f"{ROOT}/#", "news") == [REFUSED] * 3
    for topic in (
        f"{ROOT}/things/lamp/executions/1/request",
        f"{ROOT}/things/lamp/actions",
        "$SYS/x",
        "$other",
    ):
        before = running.service.counters["dropped.forbiddenTopic"]
        writer.send(CODEC_3.encode_publish(topic.encode(), b"{}", qos=1, packet_id=1))
        await writer.expect(PacketType.PUBACK)
        assert running.service.counters["dropped.forbiddenTopic"] == before + 1


async def test_the_scope_admin_may_both(running):
    token = await make(running, "admin")
    client = await enter(running, token)
    assert await client.subscribe("news", f"{ROOT}/#") == [1, 0]
    client.send(CODEC_3.encode_publish(b"news", b"x"))
    assert (await client.expect_publish()).payload == b"x"


async def test_it_is_no_thing(running):
    client = await enter(running, await make(running, "admin"))
    assert len(running.application.things) == 0
    running.application.things.know("backend", 0.0)
    assert await client.subscribe(f"{ROOT}/things/backend/executions/+/request") == [0]
    assert not running.service.is_reachable("backend")


@pytest.mark.parametrize(
    ("scopes", "fields", "code"),
    [
        ({"commands:send", "things:read"}, {}, ConnackCode.NOT_AUTHORIZED),
        ({"mqtt:read"}, {"things": ("lamp*",)}, ConnackCode.NOT_AUTHORIZED),
        ({"mqtt:write", "commands:send"}, {"actions": ("turnOn",)}, ConnackCode.NOT_AUTHORIZED),
        ({"mqtt:read"}, {"expires_at": 1.0}, ConnackCode.BAD_USER_NAME_OR_PASSWORD),
    ],
)
async def test_a_token_that_is_not_for_it_is_refused(running, scopes, fields, code):
    tokens = running.application.tokens
    secret = await make(running, "mqtt:read")
    token = Token("backend", frozenset(scopes), **fields)  # as an edited file could hold it
    tokens._tokens = {head: (digest, token) for head, (digest, _) in tokens._tokens.items()}
    assert (await knock(running, secret))[1] == code


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        ("@backend", "wrong"),
        ("@backend", ""),
        ("@backend", None),
        ("@backend", b"\xff\xfe"),
        ("@", "right"),
        ("@other", "right"),
        ("@Backend", "right"),
        ("backend", "right"),
        ("@@backend", "right"),
    ],
)
async def test_only_the_token_under_its_own_name_gets_in(running, name, secret):
    right = await make(running, "mqtt:read")
    _, code = await knock(running, right if secret == "right" else secret, name)
    assert code == ConnackCode.BAD_USER_NAME_OR_PASSWORD or (
        secret is None and code == ConnackCode.NOT_AUTHORIZED
    )


async def test_a_will_needs_mqtt_write(running):
    will = Will("things/lamp/last", b"x", 0, retain=False)
    reader, writer = await make(running, "mqtt:read"), await make(running, "mqtt:write", name="w")
    assert (await knock(running, reader, will=will))[1] == ConnackCode.NOT_AUTHORIZED
    assert (await knock(running, writer, "@w", will=will))[1] == ConnackCode.ACCEPTED
    forbidden = will._replace(topic=f"{ROOT}/things/lamp/actions")
    assert (await knock(running, writer, "@w", "d", will=forbidden))[1] == ConnackCode.NOT_AUTHORIZED


@pytest.mark.parametrize("end", ["revoke", "renew"])
async def test_its_connections_end_with_the_token(running, end):
    secret = await make(running, "mqtt:read")
    client = await enter(running, secret)
    await client.subscribe("news/#", f"{ROOT}/#")
    stays = await enter(running, await make(running, "mqtt:read", name="other"), name="@other")
    await getattr(running.application.tokens, end)("backend")
    await client.expect_end()
    assert running.service.counters["front.revoked"] == 1
    await eventually(lambda: not running.front.observers.watching)
    assert (await knock(running, secret))[1] == ConnackCode.BAD_USER_NAME_OR_PASSWORD
    await stays.ping()


async def test_sessions_are_kept_apart_from_those_of_others_and_not_for_who_may_not_read(running):
    for name in ("a", "b"):
        secret = await make(running, "mqtt:read", name=name)
        client = await enter(running, secret, name=f"@{name}", clean=False)
        await client.subscribe(f"news/{name}", f"{ROOT}/#")
    assert {"@a/c", "@b/c"} <= {session.client_id for session in running.front.engine.sessions}
    client.reset()
    await running.application.tokens.revoke("b")
    secret = await make(running, "mqtt:write", name="b")
    client = await RawClient.open(running.address)
    connack = await client.connect("c", username="@b", password=secret.encode(), clean=False)
    assert connack.packet[2:] == b"\x00\x00", "what another token of that name subscribed to is not its"
    await client.ping()
    assert len(running.front.observers.watching) == 1


async def test_amqtts_other_plugins_are_not_asked_about_tokens(tmp_path):
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    beside = {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(passwords)}}
    async with plugin_broker(tmp_path, beside=beside, open=False, in_memory=True) as running:
        client = await enter(running, await make(running, "mqtt:read"))
        assert await client.subscribe(f"{ROOT}/#") == [0]
        assert (await knock(running, "wrong", client_id="d"))[1] == ConnackCode.BAD_USER_NAME_OR_PASSWORD


class Guessing:
    """Sign-ins of backends, by hand: from any address, at any time."""

    def __init__(self, tokens):
        self.now = 0.0
        self.backends = Backends(tokens, clock=lambda: self.now)

    def knock(self, secret, name="@backend", address="192.0.2.1"):
        connect = Connect("c", True, 60, name, secret.encode(), None)
        try:
            self.backends.admit(connect, address)
        except ConnectRefused as refused:
            return refused.fault
        return "admitted"


@pytest.fixture
async def guessing(running):
    rights = {name: await make(running, "mqtt:read", name=name) for name in ("backend", "other")}
    return Guessing(running.application.tokens), rights


async def test_who_guesses_at_a_token_learns_nothing_by_guessing_on(guessing):
    at, rights = guessing
    assert [at.knock("wrong") for _ in range(OF_NAME.burst)] == ["refused"] * OF_NAME.burst
    assert at.knock("wrong") == at.knock(rights["backend"]) == "tooManyFailures"
    assert at.knock(rights["other"], "@other") == "admitted", "the others behind that address"
    assert at.knock(rights["backend"], address="192.0.2.2") == "admitted"
    at.now += 1 / OF_NAME.per_second
    assert at.knock(rights["backend"]) == "admitted"


async def test_a_token_that_has_come_from_there_before_gets_in(guessing, monkeypatch):
    monkeypatch.setattr(login_throttle, "KNOWN_MAX", 1)
    at, rights = guessing
    assert at.knock(rights["backend"]) == "admitted"
    assert [at.knock("wrong") for _ in range(OF_NAME.burst + 1)][-1] == "tooManyFailures"
    assert at.knock(rights["backend"]) == "admitted"
    assert at.knock(rights["other"], "@other") == "admitted"
    assert at.knock(rights["backend"]) == "tooManyFailures", "so many are remembered, and no more"


async def test_who_tries_many_names_is_slowed_down_as_a_whole(guessing):
    at, rights = guessing
    faults = [at.knock("wrong", f"@n{i}") for i in range(OF_ADDRESS.burst + 5)]
    assert faults == ["refused"] * OF_ADDRESS.burst + ["tooManyFailures"] * 5
    assert at.knock(rights["backend"]) == "tooManyFailures"
    assert at.knock(rights["backend"], address="127.0.0.1") == "admitted"
    assert {at.knock("wrong", address="127.0.0.1") for _ in range(300)} == {"refused"}

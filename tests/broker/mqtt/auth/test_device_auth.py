"""Who signs in with wrong passwords is slowed down, and nobody else is."""

from __future__ import annotations

import pytest

from support.brokers import plugin_broker
from support.wire import RawClient
from thingctl_broker.mqtt.protocol.packets import ConnackCode
from thingctl_broker.security.login_throttle import OF_NAME, LoginThrottle
from thingctl_broker.security.rate_limit import Rate
from thingctl_broker.things.thing import Definition

pytestmark = pytest.mark.usefixtures("nothing_goes_wrong")

NEVER_AGAIN = Rate(1e-9, OF_NAME.burst)
"""However slow the machine is."""

RIGHT = "a password of 16+ characters"


async def knock(running, name, password=RIGHT):
    client = await RawClient.open(running.address)
    answer = await client.connect(f"c-{name}", username=name, password=password.encode())
    return client, answer.packet[3]


async def test_a_thing_with_a_wrong_password_locks_out_itself_and_not_its_site(tmp_path):
    async with plugin_broker(tmp_path, open=False, in_memory=True) as running:
        counters = running.service.counters
        running.application.passwords._limit = LoginThrottle(NEVER_AGAIN)
        for name in ("lamp", "lock", "here"):
            await running.application.directory.add(name, Definition(), RIGHT)
        here, _ = await knock(running, "here")
        codes = [(await knock(running, "lamp", "wrong"))[1] for _ in range(OF_NAME.burst)]
        assert set(codes) == {ConnackCode.BAD_USER_NAME_OR_PASSWORD}
        assert (counters["front.refused"], counters["front.tooManyFailures"]) == (OF_NAME.burst, 0)
        for password in ("wrong", RIGHT):
            assert (await knock(running, "lamp", password))[1] == ConnackCode.NOT_AUTHORIZED
        assert (counters["front.refused"], counters["front.tooManyFailures"]) == (OF_NAME.burst, 2)
        assert (await knock(running, "lock"))[1] == ConnackCode.ACCEPTED
        await here.ping()


async def test_so_it_is_where_amqtts_plugins_decide(tmp_path):
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    beside = {"amqtt.plugins.authentication.FileAuthPlugin": {"password_file": str(passwords)}}
    async with plugin_broker(tmp_path, beside=beside, open=False, in_memory=True) as running:
        running.front.gatekeeper._limit = LoginThrottle(NEVER_AGAIN)
        for _ in range(OF_NAME.burst + 1):
            assert (await knock(running, "lamp", "wrong"))[1] == ConnackCode.NOT_AUTHORIZED
        assert running.service.counters["front.refused"] == OF_NAME.burst
        assert running.service.counters["front.tooManyFailures"] == 1
        await knock(running, "lock", "wrong")
        assert running.service.counters["front.refused"] == OF_NAME.burst + 1


async def test_an_old_password_lets_in_until_the_new_one_has(tmp_path):
    async with plugin_broker(tmp_path, open=False, in_memory=True) as running:
        directory = running.application.directory
        await directory.add("lamp", Definition(), RIGHT)
        here, _ = await knock(running, "lamp")
        await directory.new_password("lamp", "another password")
        await here.ping()  # it was not sent away
        assert (await knock(running, "lamp"))[1] == ConnackCode.ACCEPTED
        assert running.service.counters["front.refused"] == 0
        assert (await knock(running, "lamp", "another password"))[1] == ConnackCode.ACCEPTED
        assert directory.registry.get("lamp").previous_hash == ""
        assert (await knock(running, "lamp"))[1] == ConnackCode.BAD_USER_NAME_OR_PASSWORD
        assert (await knock(running, "lamp", "another password"))[1] == ConnackCode.ACCEPTED

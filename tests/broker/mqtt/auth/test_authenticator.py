"""Who may connect where everybody may: a client that can name a thing is that thing, any other watches."""

from __future__ import annotations

import pytest

from thingctl_broker.mqtt.auth.authenticator import Identity, OpenAuthenticator
from thingctl_broker.mqtt.protocol.packets import Connect


@pytest.mark.parametrize(
    ("client_id", "username", "admission"),
    [
        ("lamp", None, Identity("lamp")),
        ("auto-1", "lamp", Identity("lamp")),
        ("lamp", "", Identity("lamp")),
        ("lamp", "@backend", Identity(None, observes=True)),
        ("a lamp", None, Identity(None, observes=True)),
    ],
)
def test_a_things_name_is_its_user_name_or_else_its_client_id(client_id, username, admission):
    connect = Connect(client_id, True, 0, username, None, None)
    assert OpenAuthenticator().admit(connect, ("127.0.0.1", 1)) == admission

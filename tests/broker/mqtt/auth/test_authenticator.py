"""Who may connect where everybody may: a client that can name a thing is that thing, any other watches."""

from __future__ import annotations

import pytest

from thingctl_broker.mqtt.auth.authenticator import Admission, OpenGatekeeper
from thingctl_broker.mqtt.protocol.packets import Connect


@pytest.mark.parametrize(
    ("client_id", "username", "admission"),
    [
        ("lamp", None, Admission("lamp")),
        ("auto-1", "lamp", Admission("lamp")),
        ("lamp", "", Admission("lamp")),
        ("lamp", "@backend", Admission(None, observes=True)),
        ("a lamp", None, Admission(None, observes=True)),
    ],
)
def test_a_things_name_is_its_user_name_or_else_its_client_id(client_id, username, admission):
    connect = Connect(client_id, True, 0, username, None, None)
    assert OpenGatekeeper().admit(connect, ("127.0.0.1", 1)) == admission

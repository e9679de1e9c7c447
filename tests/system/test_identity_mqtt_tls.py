"""Who may do what over MQTT, again, with TLS between: the same tests on another listener."""

from __future__ import annotations

import ssl
import subprocess

import pytest

from support.operators import Operator
from support.processes import BIN, TOKEN, output, serving
from support.wire import RawClient
from system import test_identity_mqtt as plain
from system.test_identity_mqtt import (
    nobody_stays,  # noqa: F401 a fixture
    test_a_disabled_thing_is_out_at_once_and_stays_out,  # noqa: F401
    test_a_second_connection_with_the_same_identity_takes_over,  # noqa: F401
    test_a_thing_cannot_answer_for_another,  # noqa: F401
    test_a_thing_cannot_publish_requests_cancels_or_anothers_announcement,  # noqa: F401
    test_a_thing_cannot_subscribe_beyond_its_own,  # noqa: F401
    test_a_will_on_anothers_topic_is_refused,  # noqa: F401
    test_another_identity_cannot_resume_or_end_a_session,  # noqa: F401
    test_guessing_execution_ids_tells_and_changes_nothing,  # noqa: F401
    test_nothing_else_does,  # noqa: F401
    test_ordinary_topics_go_by_the_rules,  # noqa: F401
    test_retained_messages_are_no_back_door,  # noqa: F401
    test_the_client_id_makes_nobody_another,  # noqa: F401
    test_the_password_lets_the_thing_in_and_serves_its_commands,  # noqa: F401
)

pytestmark = pytest.mark.system


class World(plain.World):
    """The same on TLS."""

    def __init__(self, serve, tls):
        self.tls = tls
        super().__init__(serve, Operator(serve.http_address, tls))

    async def open(self):
        return await RawClient.open(self.address, self.tls)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    files = directory / "tls"
    subprocess.run(
        [BIN / "thingctl", "tls", "init", "--dir", files, "--name", "127.0.0.1"],
        check=True,
        capture_output=True,
    )
    options = ("--in-memory", "--tls-dir", str(files))
    with serving(directory / "data", *options, enrolment="--closed") as serve:
        world = World(serve, ssl.create_default_context(cafile=files / "ca.crt"))
        yield world
        world.operator.close()
        said = output(serve.process)
        assert "Traceback" not in said
        assert TOKEN not in said

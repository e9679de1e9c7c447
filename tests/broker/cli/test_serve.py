"""``thingctl serve``: options on the command line and settings in a file, together."""

from __future__ import annotations

import pytest

from broker.cli.running import Cli
from support.processes import BIN, process, until_said


@pytest.fixture
def serve(tmp_path):
    """Run it until it ends; the store is a port where nobody listens, so it ends once all is checked."""
    file = tmp_path / "worker.toml"
    command = Cli("http://127.0.0.1:1", tmp_path)

    def run(settings, *options):
        file.write_text(settings)
        return command("serve", "--config", str(file), "--data-dir", str(tmp_path / "data"), *options)

    return run


STORE = "postgresql://u@127.0.0.1:1/d"


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ('link.username = "w"', ["--link", "mqtt://127.0.0.1:1", "--store", STORE]),
        ('link.urls = ["mqtt://127.0.0.1:1"]', ["--store", STORE]),
        (f'store.url = "{STORE}"', ["--link", "mqtt://127.0.0.1:1"]),
        ("store.pool = 3", ["--link", "mqtt://127.0.0.1:1", "--store", STORE]),
        ('http.bind = "0.0.0.0:0"', ["--http", "127.0.0.1:0", "--link", "mqtt://h", "--store", STORE]),
    ],
)
def test_a_worker_may_be_said_half_in_the_file_and_half_by_options(serve, settings, options):
    ran = serve(settings, "--worker", "w1", *options)
    assert ran.code == 2
    assert "the store cannot be reached" in ran.err


def test_a_fault_that_no_option_mends_names_the_file(serve):
    ran = serve("link.keep_alive = 15")
    assert ran.code == 2
    assert "worker.toml: link" in ran.err


@pytest.mark.parametrize("journal", [{}, {"JOURNAL_STREAM": "8:1"}], ids=["terminal", "journal"])
def test_the_journal_is_not_told_the_admin_token(tmp_path, journal):
    ports = ["--mqtt", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    with process(BIN / "thingctl", "serve", *ports, "--data-dir", tmp_path, **journal) as broker:
        said = until_said(broker, "\ntoken ")
        token = (tmp_path / "admin-token").read_text().strip()
        assert (token in said) == (not journal)
        assert (f"{tmp_path}/admin-token" in said) == bool(journal)


@pytest.mark.parametrize("url", ["mqtt://0.0.0.0:1883", "mqtts://[::]:1", "http://hub:1", "hub", "mqtt://"])
def test_a_public_url_is_an_address_of_a_broker(serve, url):
    ran = serve("", "--public-url", url)
    assert (ran.code, "public_url" in ran.err) == (2, True)

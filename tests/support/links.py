"""The same service over both links: a broker with amqtt in it, and a worker of a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from agent.harness import mosquitto
from support.postgres import PostgresServer
from support.processes import BIN, TOKEN, Serving, output, process, until_said
from support.workers import ROOT, Cluster, working

LINKS = ("embedded", "cluster")


class Linked(NamedTuple):
    """A service that runs, over either link."""

    serving: Serving
    mqtt_address: tuple[str, int]
    """Where things connect."""
    root: str
    """The topic root."""
    link: str
    """One of ``LINKS``."""

    @property
    def http_address(self) -> tuple[str, int]:
        return self.serving.http_address

    def filter(self, thing: str) -> str:
        """What a thing subscribes to for its requests."""
        return f"{self.root}/things/{thing}/executions/+/request"


@contextmanager
def linked(link: str, folder: Path, server: PostgresServer | None, extra: str = "") -> Iterator[Linked]:
    """Run the service, open, with ``extra`` settings (TOML); nothing may have gone wrong in its log."""
    with ExitStack() as stack:
        if link == "embedded":
            config = folder / "broker.toml"
            config.write_text(
                "open = true\nin_memory = true\n"
                f'[mqtt]\nbind = "127.0.0.1:0"\ntopic_root = "{ROOT}"\n[http]\nbind = "127.0.0.1:0"\n{extra}'
            )
            command = (BIN / "thingctl", "serve", "--config", config, "--data-dir", folder / "data")
            started = stack.enter_context(process(*command, THINGCTL_ADMIN_TOKEN=TOKEN))
            until_said(started, "\ndata ")
            words = dict(
                line.split()[:2] for line in output(started).splitlines() if line[:4] in {"mqtt", "http"}
            )
            serving = Serving(started, words["mqtt"], words["http"])
            address = serving.mqtt_address
        else:
            assert server is not None
            broker = stack.enter_context(mosquitto(folder))
            cluster = Cluster(broker, server, stack.enter_context(server.database()))
            serving = stack.enter_context(working(cluster, folder, "w1", "--open", extra=extra))
            address = cluster.address
        yield Linked(serving, address, ROOT, link)
        said = output(serving.process)
    assert "Traceback" not in said, said
    assert '"level": "error"' not in said, said

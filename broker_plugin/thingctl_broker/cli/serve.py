"""``thingctl serve``: the broker."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path  # noqa: TC003 typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from thingctl_broker.system.paths import ADMIN_TOKEN_FILE
from thingctl_protocol.log_stream import print_safely

if TYPE_CHECKING:
    from thingctl_broker.app.broker import Application
    from thingctl_broker.app.config import Settings
    from thingctl_broker.app.worker import Worker


def serve(  # noqa: PLR0917 typer's options
    config: Annotated[Path | None, typer.Option(help="TOML file with settings; options override it.")] = None,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the broker stores tokens and executions.")
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where devices connect (127.0.0.1:1883).")
    ] = None,
    http: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Where operators connect (127.0.0.1:8080).")
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            "--public-url",
            metavar="URL",
            help="Where devices reach the broker, such as mqtts://broker.example:8883; goes into bundles.",
        ),
    ] = None,
    open_: Annotated[
        bool | None,
        typer.Option("--open/--closed", help="Let devices in without credentials (loopback only)."),
    ] = None,
    in_memory: Annotated[
        bool | None, typer.Option("--in-memory", help="Forget executions when the broker ends.")
    ] = None,
    tls_dir: Annotated[
        Path | None,
        typer.Option("--tls-dir", metavar="DIR", help="Serve by TLS, with what thingctl tls made."),
    ] = None,
    insecure_bind: Annotated[
        bool | None,
        typer.Option("--insecure-bind", help="Listen beyond this machine without TLS all the same."),
    ] = None,
    link: Annotated[
        list[str] | None,
        typer.Option(
            metavar="URL",
            help="Be a worker of this MQTT cluster (mqtts://…) instead of a broker; may be repeated.",
        ),
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(metavar="URL", help="The workers' database: postgresql://user@host/database."),
    ] = None,
    worker: Annotated[
        str | None, typer.Option(metavar="NAME", help="This worker's name; without one, the host's.")
    ] = None,
    debug: Annotated[bool, typer.Option(help="Log everything.")] = False,
) -> None:
    """Run the broker: MQTT for devices, HTTP for operators. With --link, be a worker of an MQTT cluster."""
    from msgspec.structs import replace  # noqa: PLC0415 the client commands must start fast

    from thingctl_broker.app.config import Settings, check, read_settings  # noqa: PLC0415
    from thingctl_broker.app.run import run  # noqa: PLC0415
    from thingctl_broker.errors import ConfigurationError  # noqa: PLC0415
    from thingctl_broker.system.logs import configure_logs  # noqa: PLC0415

    configure_logs(debug=debug)
    try:

        def adjust(settings: Settings) -> Settings:
            settings = _with_options(
                settings, data_dir=data_dir, mqtt=mqtt, http=http, open_=open_, in_memory=in_memory
            )
            if public_url is not None:
                settings = replace(settings, mqtt=replace(settings.mqtt, public_url=public_url))
            settings = _with_cluster(settings, link, store, worker)
            return _with_tls(settings, tls_dir, insecure_bind)

        run(read_settings(config, adjust) if config is not None else check(adjust(Settings())), _tell)
    except ConfigurationError as error:
        with contextlib.suppress(OSError):
            typer.echo(f"thingctl: {error}", err=True)
        raise typer.Exit(2) from None


def _with_options(
    settings: Settings,
    *,
    data_dir: Path | None,
    mqtt: str | None,
    http: str | None,
    open_: bool | None,
    in_memory: bool | None,
) -> Settings:
    from msgspec.structs import replace  # noqa: PLC0415 the client commands must start fast

    if data_dir is not None:
        settings = replace(settings, data_dir=str(data_dir))
    if mqtt is not None:
        settings = replace(settings, mqtt=replace(settings.mqtt, bind=mqtt))
    if http is not None:
        settings = replace(settings, http=replace(settings.http, bind=http))
    if in_memory is not None:
        settings = replace(settings, in_memory=in_memory)
    if open_ is not None:
        settings = replace(settings, open=open_)
    return settings


def _with_cluster(
    settings: Settings, urls: list[str] | None, store: str | None, worker: str | None
) -> Settings:
    from msgspec.structs import replace  # noqa: PLC0415 the client commands must start fast

    from thingctl_broker.mqtt.cluster.settings import LinkSettings  # noqa: PLC0415
    from thingctl_broker.storage.postgres.settings import StoreSettings  # noqa: PLC0415

    if urls or (worker is not None and settings.link is not None):
        link = settings.link or LinkSettings()
        link = replace(link, urls=tuple(urls or link.urls), worker=worker or link.worker)
        settings = replace(settings, link=link)
    if store is not None:
        settings = replace(settings, store=replace(settings.store or StoreSettings(), url=store))
    return settings


def _with_tls(settings: Settings, tls_dir: Path | None, insecure_bind: bool | None) -> Settings:
    from msgspec.structs import replace  # noqa: PLC0415 the client commands must start fast

    if insecure_bind is not None:
        settings = replace(settings, insecure_bind=insecure_bind)
    if tls_dir is not None:
        ca, cert, key = (str(tls_dir / file) for file in ("ca.crt", "server.crt", "server.key"))
        mqtt = replace(settings.mqtt, tls_cert=cert, tls_key=key, tls_client_ca=ca, tls_ca=ca)
        http = replace(settings.http, tls_cert=cert, tls_key=key)
        settings = replace(settings, mqtt=mqtt, http=http)
    return settings


def _tell(application: Application | Worker) -> None:
    """Say where everything is. Programs may read these lines: a word, then a value."""
    lines = [f"mqtt   {application.mqtt_url}", f"http   {application.http_url}"]
    if application.settings.link is not None:
        lines.append(f"worker {application.settings.link.name}")
        lines.append("things all that the cluster lets in; add them: thingctl things add NAME")
    elif application.settings.open:
        lines.append("open   devices need no credentials; a thing's name is its user name or client id")
    else:
        lines.append("closed devices need credentials: thingctl things add NAME")
    fault = application.enrolment.fault
    lines.append(f"bundle none: {fault}" if fault else f"bundle {application.enrolment.url}")
    lines.append(f"data   {application.data_dir}")
    lines.append(f"console {application.http_url}/   (thingctl console makes a link that signs in)")
    token = application.tokens.new_admin_token
    if token is not None:
        lines.append(_token_line(token, application.data_dir))
    print_safely("\n".join(lines))  # the broker serves all the same; the token is in its file, too


def _token_line(token: str, data_dir: object) -> str:
    if "JOURNAL_STREAM" in os.environ and data_dir is not None:
        return f"token  {data_dir}/{ADMIN_TOKEN_FILE}   (a file: the journal has other readers)"
    return f"token  {token}   (the admin token: shown this once)"

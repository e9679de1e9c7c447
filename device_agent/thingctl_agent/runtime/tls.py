"""The TLS context, made anew when one of its files has changed."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from thingctl_agent.errors import ConfigError
from thingctl_agent.runtime.settings import is_pem

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from thingctl_agent.runtime.config import Tls


class Contexts:
    """Gives each connection the context of the certificates as they are now.

    A renewed certificate is in use from the next connection on; SIGHUP makes one.
    """

    def __init__(self, settings: Tls) -> None:
        self._settings = settings
        self._context: ssl.SSLContext | None = None
        self._changed: tuple[float, ...] = ()

    def current(self) -> ssl.SSLContext:
        """The context; raises :class:`ConfigError` when a file cannot be used."""
        given = (self._settings.ca, self._settings.cert, self._settings.key)
        files = [name for name in given if name and not is_pem(name)]
        try:
            changed = tuple(os.stat(name).st_mtime for name in files)
            if self._context is None or changed != self._changed:
                self._context = _make(self._settings)
                self._changed = changed
        except OSError as error:  # ssl.SSLError is one, too
            where = error.filename or ", ".join(files) or "the PEM texts of the bundle"
            raise ConfigError(f"TLS: {where}: {error.strerror or error}") from None
        return self._context


def _make(settings: Tls) -> ssl.SSLContext:
    import ssl  # noqa: PLC0415 - 6 MB that an agent without TLS never needs

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # checks the certificate and the host name
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if is_pem(settings.ca):
        context.load_verify_locations(cadata=settings.ca)
    elif settings.ca:
        context.load_verify_locations(cafile=settings.ca)
    else:
        context.load_default_certs()
    if settings.cert:
        with _file(settings.cert) as cert, _file(settings.key) as key:
            context.load_cert_chain(cert, key or None, password=lambda: "")
    return context


@contextlib.contextmanager
def _file(setting: str) -> Iterator[str]:
    """A file with what a setting holds: ssl takes a certificate and its key from files alone.

    A PEM text is in one of mode 0600, in memory where the system can, until the block ends.
    """
    if not is_pem(setting):
        yield setting
        return
    import tempfile  # noqa: PLC0415 - for bundles with a certificate alone

    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - the file has a random name
    with tempfile.NamedTemporaryFile("w", dir=memory, prefix="thingctl-") as file:
        file.write(setting)
        file.flush()
        yield file.name

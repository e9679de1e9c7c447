"""The agent as its owner sees it: a registry with a way to run it."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final, TypeVar, overload

from thingctl_agent.errors import AgentError, ConfigError, RegistrationError
from thingctl_agent.handlers import app_services
from thingctl_agent.handlers.registry import Registry
from thingctl_agent.runtime import lazy_imports, options
from thingctl_protocol import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from thingctl_agent.runtime.config import Config
    from thingctl_agent.testing import Reply

    F = TypeVar("F", bound=Callable[..., Any])

VERSION: Final = f"thingctl-agent {__version__}"


class Agent:
    """Actions, and the way to serve them.

    ::

        agent = Agent()

        @agent.action
        def unlock(seconds: int = 5) -> None:
            "Open the door for a while."

        if __name__ == "__main__":
            agent.run()
    """

    def __init__(self) -> None:
        self.registry = Registry()

    @overload
    def action(self, function: F, /) -> F: ...
    @overload
    def action(self, /, *, name: str | None = None, **options: Any) -> Callable[[F], F]: ...
    def action(self, function: Any = None, /, *, name: str | None = None, **options: Any) -> Any:
        """Register a function, ``def`` or ``async def``; it is returned unchanged.

        Its parameters become the params and are validated by their type hints; what it
        returns becomes the result; a parameter of type ``Context`` gets the
        :class:`~thingctl_agent.handlers.context.Context`. ``name``: of the action, if not the
        function's own. ``options``: see :class:`~thingctl_agent.handlers.policy.Policy`.
        Raises :class:`~thingctl_agent.errors.RegistrationError`.
        """
        if function is not None:
            self.registry.add(function, name, **options)
            return function

        def register(function: F) -> F:
            self.registry.add(function, name, **options)
            return function

        return register

    def app_service(self, name: str, /, *, package: str, **options: Any) -> Callable[[F], F]:
        """Register a function as an app service, as Microsoft Graph's AppService commands call it.

        ``name``: the service's; ``package``: its package family name. The function has a
        parameter ``payload``, validated by its type hint; what it returns becomes the response
        payload. Otherwise as :meth:`action`: the action is named ``{package}/{name}``.
        """
        action = app_services.action_name(name, package)

        def register(function: F) -> F:
            app_services.check(function, action)
            self.registry.add(function, action, **options)
            return function

        return register

    def on_start(self, function: F, /) -> F:
        """Register a function that is called before the first handler, ``def`` or ``async def``.

        It has no parameters and ten seconds. What it raises is logged, and the agent goes on.
        Raises :class:`~thingctl_agent.errors.RegistrationError`.
        """
        self.registry.add_hook("start", function)
        return function

    def on_stop(self, function: F, /) -> F:
        """Register a function that is called when the agent ends, after the last handler.

        As :meth:`on_start`; the last one registered is called first. It has a second, or
        ``stop_grace`` if that is longer. It is not called when the process is killed.
        """
        self.registry.add_hook("stop", function)
        return function

    def test(self, action: str, /, **params: Any) -> Reply:
        """Call an action as a broker would, with no broker; see :mod:`thingctl_agent.testing`."""
        from thingctl_agent.testing import Device  # noqa: PLC0415 - no part of an agent at work

        with Device(self) as device:
            return device.send(action, **params)

    def run(
        self,
        config: str | Config | None = None,
        *,
        argv: Sequence[str] | None = None,
        **settings: Any,
    ) -> None:
        """Serve until SIGTERM or Ctrl-C.

        ``config``: a file, or a ready :class:`~thingctl_agent.runtime.config.Config`, which nothing changes.
        Else each later source wins: file, environment, ``settings``, command line.
        ``argv``: the options of ``thingctl-agent run`` to read. By default those of the command
        line if the caller is the file that Python was started with, and none elsewhere (in a test
        runner, a notebook, a program that imports the file). A program with options of its own
        passes ``argv=[]``.
        Ends the process with a message and exit code 2 when a setting is wrong.
        """
        lazy_imports.install()
        if argv is None:
            own = options.is_program(sys._getframe(1).f_globals)  # noqa: SLF001 - documented, and the only way
            argv = sys.argv[1:] if own else ()
        before = threading.enumerate()
        try:
            left = serve(self, _ready(config, settings, argv))
        except AgentError as error:
            sys.exit(f"thingctl-agent: {error}" if not isinstance(error, ConfigError) else _told(error))
        from thingctl_agent.runtime import leaving  # noqa: PLC0415 - needed at the end only

        if left:
            leaving.leave()
        elif threading.current_thread() is threading.main_thread() and leaving.threads_left(before):
            leaving.leave_at_exit()


def _ready(config: str | Config | None, settings: dict[str, Any], argv: Sequence[str]) -> Config:
    from thingctl_agent.runtime.config import load  # noqa: PLC0415 - after the stand-ins

    if config is not None and not isinstance(config, str):
        return config
    given = options.read_script(argv)
    return load(given.config or config, os.environ, settings, options.overrides(given))


def serve(agent: Agent, config: Config) -> int:
    """Run an agent; returns how many handlers were left running. Raises :class:`AgentError`."""
    import structlog  # noqa: PLC0415 - after the stand-ins

    from thingctl_agent import actions  # noqa: PLC0415 - after the stand-ins
    from thingctl_agent.core.history import History  # noqa: PLC0415
    from thingctl_agent.core.pending import Limits  # noqa: PLC0415
    from thingctl_agent.core.session import DeviceSession  # noqa: PLC0415
    from thingctl_agent.runtime import boot_id as boot  # noqa: PLC0415 - after the stand-ins
    from thingctl_agent.runtime import environment, logs  # noqa: PLC0415
    from thingctl_agent.runtime.journal_opener import JournalOpener  # noqa: PLC0415
    from thingctl_agent.runtime.loop import Loop  # noqa: PLC0415
    from thingctl_agent.runtime.settings import MISNAMED_URL, misnamed_url  # noqa: PLC0415
    from thingctl_protocol.topics import Topics  # noqa: PLC0415

    logs.configure(config.log.level, config.log.format)
    logs.take_exceptions()
    if config.url == misnamed_url(os.environ):
        structlog.get_logger().warning(MISNAMED_URL)
    actions.enable(agent.registry, _with_state(config))
    boot_id = boot.boot_id()
    opener = JournalOpener(config.state, boot_id, boot.since_boot)
    journal = opener.open()
    session = DeviceSession(
        config.thing,
        agent.registry,
        History() if journal is None else journal.history,
        topics=Topics(config.topic_root),
        limits=Limits(config.running, config.waiting),
        version=VERSION,
    )
    loop = Loop(config, agent.registry, session, journal, opener=opener)
    environment.take_out(os.environ)
    return loop.run(boot_id)


def _with_state(config: Config) -> dict[str, dict[str, Any]]:
    """The settings of built-in actions; ``reboot`` needs to know where the journal is."""
    enabled = dict(config.actions)
    if "reboot" in enabled:
        enabled["reboot"] = {"state_dir": config.state, **enabled["reboot"]}
    return enabled


def _told(error: Exception) -> int:
    print(f"thingctl-agent: {error}", file=sys.stderr)  # noqa: T201 - the user's terminal
    return 2


__all__ = ["Agent", "RegistrationError"]

"""Keeps an agent small: modules that its libraries import and it seldom needs come late.

paho imports urllib.request (for its proxy support, and with it http.client and email), ssl,
hashlib and logging; structlog imports asyncio (for its async methods), pickle (for an exception) and,
through dataclasses, inspect. Together they are about a third of the memory of an idle agent. In the
agent's own process light stand-ins take their places, which turn into the real modules at the first touch.

Only :func:`~thingctl_agent.setup.cli.main` and :meth:`~thingctl_agent.Agent.run` call ``install``,
never the import of a module: a program that merely uses this package sees no stand-ins. That import
only leaves out what msgspec does not need (:func:`import_without`).
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any, Final

LATE: Final = (
    "urllib.request",
    "ssl",
    "hashlib",
    "asyncio",
    "inspect",
    "ipaddress",
    "tokenize",
    "base64",
    "logging",
    "pickle",
    "structlog.stdlib",
    "structlog.threadlocal",
    "thingctl_agent.core.hints",
    "thingctl_agent.runtime.reasons",
)

PRETTIER: Final = "rich"
"""What structlog imports where it is installed, for tracebacks in colour: 7 MB that no device needs."""

UNUSED: Final = "typing_extensions"
"""What msgspec prefers to ``typing`` where it is installed: 1.2 MB, for names that ``typing`` has as well."""

NEVER_RAISED: Final = {"ssl": ("SSLWantReadError", "SSLWantWriteError"), "pickle": ("PicklingError",)}
"""Exceptions that paho names in ``except`` clauses, and one that structlog raises when a logger is
pickled. As long as the module is not loaded another class will do; to load 4 MB because a socket had
no more to read will not."""

READY: Final = {"logging": {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}}
"""What paho asks of a module when it is imported: the answers, without that module."""

_lock: Final = threading.RLock()


class _NeverRaisedError(Exception):
    """Stands in for an exception of a module that is not loaded."""


class _Late(ModuleType):
    """Stands in for a module until something of it is wanted."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        del self.__spec__  # made when it is asked for: importlib.util.find_spec() refuses None

    def __getattr__(self, name: str) -> Any:
        if name == "__spec__":
            self.__spec__ = _spec(self.__name__)
            return self.__spec__
        if name == "__path__":  # ``from module import name`` asks for it
            return _path(self.__name__)
        if name.startswith("__") and name not in {"__all__", "__file__", "__version__"}:
            raise AttributeError(name)  # the import system looks for these; they mean nothing here
        if name in READY.get(self.__name__, ()) and sys.modules.get(self.__name__) is self:
            return READY[self.__name__][name]
        if name in NEVER_RAISED.get(self.__name__, ()) and sys.modules.get(self.__name__) is self:
            return _NeverRaisedError
        return getattr(_real(self), name)

    def __dir__(self) -> list[str]:
        return dir(_real(self))


def install() -> None:
    """Put stand-ins where nothing has been imported yet."""
    for name in LATE:
        if name not in sys.modules:
            sys.modules[name] = _Late(name)
            _bind(name, sys.modules[name])
    import_without("structlog", PRETTIER)


def import_without(name: str, left_out: str) -> None:
    """Import a module as on a machine without another one, which a handler finds all the same."""
    if name in sys.modules or left_out in sys.modules:
        return
    sys.modules[left_out] = None  # type: ignore[assignment] # the import system's own way to say: not there
    try:
        importlib.import_module(name)
    finally:
        del sys.modules[left_out]


def _real(stand_in: ModuleType) -> ModuleType:
    name = stand_in.__name__
    with _lock:
        if sys.modules.get(name) is stand_in:
            del sys.modules[name]
            try:
                module = importlib.import_module(name)
            except BaseException:
                sys.modules[name] = stand_in
                raise
            _bind(name, module)
            return module
        return sys.modules[name]


def _spec(name: str) -> ModuleSpec | None:
    """Where the real module is. ``find_spec`` would look at the stand-in."""
    parent = name.rpartition(".")[0]
    path = getattr(sys.modules.get(parent), "__path__", None) if parent else None
    return PathFinder.find_spec(name, path)


def _path(name: str) -> list[str]:
    """Where the modules of a package are; raises AttributeError for what is no package."""
    spec = _spec(name)
    if spec is None or spec.submodule_search_locations is None:
        raise AttributeError("__path__")
    return list(spec.submodule_search_locations)


def _bind(name: str, module: ModuleType) -> None:
    """Make ``urllib.request`` an attribute of ``urllib``, as an import does."""
    parent, _, child = name.rpartition(".")
    if parent == "urllib" or parent in sys.modules:
        setattr(importlib.import_module(parent), child, module)

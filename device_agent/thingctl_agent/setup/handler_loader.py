"""Finds the agents in a Python file."""

from __future__ import annotations

import importlib.util
import os
import sys
import traceback

from thingctl_agent.agent import Agent
from thingctl_agent.errors import ConfigError, RegistrationError


def agents_in(file: str) -> list[Agent]:
    """Import a file and return the agents it makes; raises :class:`ConfigError`.

    Its directory can be imported from, as when Python runs it.
    """
    path = os.path.realpath(file)
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, os.path.dirname(path))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except FileNotFoundError as error:
        if error.filename == path:
            raise ConfigError(f"there is no file {file}") from None
        raise
    except RegistrationError:
        raise
    except Exception as error:
        trace = "".join(traceback.format_exception(error.with_traceback(error.__traceback__)))
        raise ConfigError(f"{file} cannot be imported:\n{trace}") from None
    agents = list({id(value): value for value in vars(module).values() if isinstance(value, Agent)}.values())
    if not agents:
        raise ConfigError(
            f"{file} has no Agent in it; write: from thingctl_agent import Agent; agent = Agent()"
        )
    return agents

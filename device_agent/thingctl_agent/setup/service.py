"""The system around the service: systemd, and the user that the agent runs as."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from thingctl_agent.errors import AgentError, ConfigError
from thingctl_agent.setup import systemd_unit

SERVICE: Final = "thingctl-agent.service"
SYSTEMD_RUNS: Final = Path("/run/systemd/system")


def runs_systemd() -> bool:
    """Whether systemd runs here and can be asked."""
    return SYSTEMD_RUNS.is_dir() and shutil.which("systemctl") is not None


def status_text() -> str:
    """What the running service says of its connection; empty when systemd does not know."""
    if not runs_systemd():
        return ""
    words = ["systemctl", "show", "--property=StatusText", "--value", SERVICE]
    done = subprocess.run(words, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    return done.stdout.strip()


def has_user() -> bool:
    """Whether the service's user exists."""
    import pwd  # noqa: PLC0415 - beside its only use

    try:
        pwd.getpwnam(systemd_unit.USER)
    except KeyError:
        return False
    return True


def add_user() -> None:
    """Make the service's user, if there is none."""
    if not has_user():
        options = ["--system", "--user-group", "--no-create-home", "--home-dir", systemd_unit.STATE_DIR]
        run("useradd", *options, "--shell", "/usr/sbin/nologin", systemd_unit.USER)


def compile_packages() -> None:
    """Write bytecode for the packages of this environment."""
    # The service's user cannot write bytecode, and without it a start takes four times as long.
    run(sys.executable, "-m", "compileall", "-q", str(Path(sys.prefix) / "lib"))


def run(*command: str) -> None:
    """Run a command; raises :class:`AgentError` when it fails."""
    try:
        subprocess.run(command, check=True)  # noqa: S603 - fixed words and the program's own path
    except FileNotFoundError:
        raise ConfigError(f"{command[0]} is not installed here") from None
    except subprocess.CalledProcessError as error:
        raise AgentError(f"{' '.join(command)} failed with exit code {error.returncode}") from None

#!/usr/bin/python3
"""Stands for systemctl where no systemd has booted: it starts what a unit's ExecStart says, as the unit's user.

The unit's directories are made as systemd makes them, and a unit of Type=notify has started when it says
READY=1. Not done: the sandbox, the watchdog, restarts after a crash.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

STATE = Path("/run/units")
UNITS = Path("/etc/systemd/system")
DIRECTORIES = {"State": "/var/lib", "Runtime": "/run", "Logs": "/var/log", "Cache": "/var/cache"}


def main(words: list[str]) -> int:
    verb, *units = [word for word in words if not word.startswith("-")]
    units = [unit if "." in unit else f"{unit}.service" for unit in units]
    if verb not in {"is-active", "status"}:
        STATE.mkdir(exist_ok=True)
        with (STATE / "calls").open("a") as calls:
            print(*words, file=calls)
    for unit in units:
        if not (UNITS / unit).exists() and verb != "is-active":
            print(f"Failed to {verb} {unit}: Unit {unit} not found.", file=sys.stderr)
            return 5
        if verb in {"stop", "restart"} or (verb == "disable" and "--now" in words):
            stop(unit)
        if (verb in {"start", "restart"} or (verb == "enable" and "--now" in words)) and not start(unit):
            print(f"Job for {unit} failed.", file=sys.stderr)
            return 1
        if verb in {"is-active", "status"}:
            active = runs(unit)
            print("active" if active else "inactive")
            return 0 if active else 3
    return 0


def settings(unit: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in (UNITS / unit).read_text().replace("\\\n", " ").splitlines():
        key, is_setting, value = line.partition("=")
        if is_setting and not line.startswith(("#", ";")):
            found.setdefault(key.strip(), []).append(value.strip())
    return found


def start(unit: str) -> bool:
    if runs(unit):
        return True
    found = settings(unit)
    user = pwd.getpwnam(found.get("User", ["root"])[-1])
    environment = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "INVOCATION_ID": "0" * 32}
    for kind, base in DIRECTORIES.items():
        for name in found.get(f"{kind}Directory", []):
            path = Path(base, name)
            path.mkdir(
                mode=int(found.get(f"{kind}DirectoryMode", ["0755"])[-1], 8), parents=True, exist_ok=True
            )
            os.chown(path, user.pw_uid, user.pw_gid)
            environment[f"{kind.upper()}_DIRECTORY"] = str(path)
    for line in found.get("Environment", []):
        environment |= dict(word.split("=", 1) for word in shlex.split(line))
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    if found.get("Type") == ["notify"]:
        environment["NOTIFY_SOCKET"] = str(STATE / f"{unit}.notify")
        Path(environment["NOTIFY_SOCKET"]).unlink(missing_ok=True)
        ready.bind(environment["NOTIFY_SOCKET"])
        Path(environment["NOTIFY_SOCKET"]).chmod(0o666)
    groups = os.getgrouplist(user.pw_name, user.pw_gid)
    with (STATE / f"{unit}.log").open("ab") as log:
        process = subprocess.Popen(
            shlex.split(found["ExecStart"][-1].lstrip("-+!:@")),
            cwd=found.get("WorkingDirectory", ["/"])[-1].lstrip("-"),
            env=environment,
            user=user.pw_uid,
            group=user.pw_gid,
            extra_groups=groups,
            umask=int(found.get("UMask", ["0022"])[-1], 8),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    (STATE / f"{unit}.pid").write_text(str(process.pid))
    return "NOTIFY_SOCKET" not in environment or has_said(b"READY=1", ready, unit)


def has_said(word: bytes, from_: socket.socket, unit: str) -> bool:
    """Whether the unit says the word before it ends, within a minute."""
    from_.settimeout(0.1)
    end = time.monotonic() + 60
    while runs(unit) and time.monotonic() < end:
        with contextlib.suppress(TimeoutError):
            if word in from_.recv(4096).split(b"\n"):
                return True
    return False


def process_of(unit: str) -> int:
    path = STATE / f"{unit}.pid"
    return int(path.read_text()) if path.exists() else 0


def runs(unit: str) -> bool:
    process = process_of(unit)
    try:
        return process > 0 and Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def stop(unit: str) -> None:
    if runs(unit):
        os.kill(process_of(unit), signal.SIGTERM)
    end = time.monotonic() + 20
    while runs(unit):
        if time.monotonic() > end:
            os.kill(process_of(unit), signal.SIGKILL)
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

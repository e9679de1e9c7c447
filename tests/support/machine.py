"""A machine of a test's own, made of Linux namespaces: what is installed in it is gone with it.

It has this machine's /usr, and /etc as a copy; /opt, /home, /root, /var/lib, /usr/local, /run and /tmp are empty and
its own. So are its network (two addresses of a LAN, on one interface), its processes, its users, and its
package index: a folder of wheels. ``systemctl`` is support/systemctl.py. Everything ends with :meth:`close`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from support.needs import missing
from support.processes import ROOT
from support.waits import soon

PYTHON = "/usr/bin/python3"
NEEDED = {"unshare": "util-linux", "nsenter": "util-linux", "setpriv": "util-linux", "useradd": "passwd"}
NEEDED |= {"sudo": "sudo", "ip": "iproute2", "curl": "curl", "mosquitto_sub": "mosquitto-clients"}
LINE_BUFFERS = "/usr/libexec/coreutils/libstdbuf.so"
OWN = ("etc", "opt", "home", "root", "srv", "usr/local", "var/lib", "run", "tmp")
HOSTS = {"broker": "192.168.77.10", "pi": "192.168.77.11"}

_FIRST_PROCESS = """
import os, time
while True:
    try:
        os.waitpid(-1, 0)
    except ChildProcessError:
        time.sleep(0.05)
"""

_SETUP = """
set -eu
mount -t proc proc /proc
for folder in $OWN; do mount --bind "$FILES/$folder" "/$folder"; done
mkdir -p /usr/local/bin /run/lock /run/systemd/system
chmod 1777 /tmp
ip link set lo up
for address in $ADDRESSES; do ip address add "$address/24" dev lo; done
hostname broker
exec 3>&-
touch /run/ready
exec /usr/bin/python3 -c "$FIRST_PROCESS"
"""


class Said(NamedTuple):
    """How a block ended, and its output, both streams."""

    code: int
    text: str


class Machine:
    """It runs. ``files``: an empty folder on a disk. ``wheels``: what pip finds."""

    def __init__(self, files: Path, wheels: Path) -> None:
        self.files = files
        self._background: list[tuple[str, subprocess.Popen[bytes]]] = []
        self._begun = 0
        for folder in OWN:
            (files / folder).mkdir(parents=True, mode=0o755)
        shutil.copytree("/etc", files / "etc", symlinks=True, dirs_exist_ok=True)
        shutil.copytree(wheels, files / "srv" / "wheels")
        self._write_settings()
        self._first = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--uts", "--fork", "--kill-child", "bash", "-c", _SETUP],
            env={
                "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                "OWN": " ".join(OWN),
                "FILES": str(files),
                "ADDRESSES": " ".join(HOSTS.values()),
                "FIRST_PROCESS": _FIRST_PROCESS,
            },
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        soon(lambda: (files / "run" / "ready").exists() or self._first.poll() is not None, 30)
        if self._first.poll() is not None:
            missing("this machine lets its root make no namespaces")
        self._inside = Path(f"/proc/{self._first.pid}/task/{self._first.pid}/children").read_text().split()[0]

    def _write_settings(self) -> None:
        etc, local = self.files / "etc", self.files / "usr" / "local" / "bin"
        shutil.rmtree(etc / "xdg" / "pip", ignore_errors=True)
        (etc / "environment").write_text("")
        (etc / "pip.conf").write_text("[global]\nno-index = true\nfind-links = /srv/wheels\n")
        (etc / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{address} {name}\n" for name, address in HOSTS.items())
        )
        (etc / "sudoers").write_text(
            "Defaults secure_path=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"
            "root ALL=(ALL) ALL\n"
        )
        local.mkdir(parents=True)
        shutil.copy(ROOT / "tests" / "support" / "systemctl.py", local / "systemctl")
        (local / "systemctl").chmod(0o755)

    def add_user(self, name: str, *, may_sudo: bool = True) -> None:
        """Make an ordinary user with a home."""
        self._as_root("useradd", "--create-home", "--shell", "/bin/bash", name)
        if may_sudo:
            with (self.files / "etc" / "sudoers").open("a") as sudoers:
                sudoers.write(f"{name} ALL=(ALL) NOPASSWD: ALL\n")

    def home(self, user: str) -> Path:
        """A user's home, from outside."""
        return self.files / "home" / user

    def own(self, path: Path, user: str) -> None:
        """Give a user all that is below a path (from outside)."""
        self._as_root("chown", "-R", f"{user}:", f"/{path.relative_to(self.files)}")

    def type(self, user: str, text: str, seconds: float = 180.0) -> Said:
        """Type a block into a shell of the user's, whose folder and variables are as the last one left them."""
        shell = self._shell(user, text)
        try:
            said, _ = shell.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            said, _ = shell.communicate()
            return Said(-1, said.decode(errors="replace") + f"\n(it had not ended after {seconds:.0f} s)")
        return Said(shell.returncode, said.decode(errors="replace"))

    def begin(self, user: str, text: str, until: str, seconds: float = 180.0) -> Said:
        """Type a block that does not end; it goes on when it has said ``until``. The code is 0 if it did."""
        self._begun += 1
        log = self.files / f"background-{self._begun}"
        with log.open("wb") as output:
            shell = self._shell(user, text, output)
        self._background.append((user, shell))
        with contextlib.suppress(AssertionError):
            soon(lambda: until in log.read_text(errors="replace") or shell.poll() is not None, seconds)
        said = log.read_text(errors="replace")
        return Said(0 if until in said else shell.poll() or -1, said)

    def interrupt(self, user: str = "") -> None:
        """End what a user (or all of them) has begun, as Ctrl-C does."""
        ending = [(who, shell) for who, shell in self._background if user in {"", who}]
        self._background = [begun for begun in self._background if begun not in ending]
        for _, shell in ending:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGINT)
        for _, shell in ending:
            try:
                shell.wait(15)
            except subprocess.TimeoutExpired:
                os.killpg(shell.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Let the next block of each user begin in a new shell."""
        for memory in self.files.glob("home/*/.typed"):
            memory.unlink()

    def close(self) -> None:
        """End all of it."""
        self.interrupt()
        self._first.kill()
        self._first.wait()

    def _shell(self, user: str, text: str, output: object = subprocess.PIPE) -> subprocess.Popen[bytes]:
        memory = f"/home/{user}/.typed"
        script = f"cd; [ ! -e {memory} ] || . {memory}\n{text}\n"
        script += f"{{ export -p; declare -f; printf 'cd %q\\n' \"$PWD\"; }} > {memory}\n"
        environment = {"HOME": f"/home/{user}", "USER": user, "PATH": "/usr/local/bin:/usr/bin:/bin"}
        environment |= {"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1"}
        environment |= {"LD_PRELOAD": LINE_BUFFERS, "_STDBUF_O": "L"}  # as on a terminal
        return subprocess.Popen(
            self._enter(
                "setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups",
                "env", "-i", *(f"{key}={value}" for key, value in environment.items()),
                "bash", "-e", "-o", "pipefail", "-c", script,
            ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip

    def _enter(self, *command: str) -> list[str]:
        return ["nsenter", f"--target={self._inside}", "--mount", "--net", "--pid", "--uts", "--", *command]

    def _as_root(self, *command: str) -> None:
        subprocess.run(self._enter(*command), check=True, capture_output=True)


def need_a_machine() -> None:
    """What a machine needs of this one: root, and a few programs."""
    if os.geteuid() != 0:
        missing("only root can make a machine of namespaces")
    for program, package in NEEDED.items():
        if shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is None:
            missing(f"{program} is not installed (apt-get install {package})")
    if subprocess.run([PYTHON, "-c", "import venv, ensurepip"], capture_output=True, check=False).returncode:
        missing(f"{PYTHON} makes no virtual environments (apt-get install python3-venv)")


def gather_wheels(into: Path) -> None:
    """Everything that the project may install, for the Python of the machine, and what builds its wheel."""
    version = subprocess.run(
        [PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    _run(*pip, "wheel", "--no-deps", "--wheel-dir", into, ROOT)
    (wheel,) = into.glob("thingctl-*.whl")
    _run(
        *pip, "download", "--dest", into, "--constraint", ROOT / "constraints.txt",
        "--only-binary=:all:", "--python-version", version,
        f"thingctl[broker,fast] @ file://{wheel}", "hatchling", "build", "pip", "pytest",
    )  # fmt: skip
    wheel.unlink()  # the pages make their own


def _run(*command: object) -> None:
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)
    if done.returncode:
        missing(f"pip gets no packages here: {done.stderr.strip().splitlines()[-1]}")

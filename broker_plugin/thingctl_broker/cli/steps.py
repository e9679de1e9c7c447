"""Steps of an installation: each says what it does, and does it unless the run is a dry one."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, NamedTuple

from thingctl_broker.cli.exits import Exit, Failure
from thingctl_broker.system.files import write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path


class Step(NamedTuple):
    """One thing to do. ``text``: what to say about it."""

    text: str
    do: Callable[[], None]


class Target(NamedTuple):
    """Where files go: below ``root``, and to which group those that the service reads belong."""

    root: Path
    group: str | None
    """None: an image, whose groups are not this machine's."""

    def path(self, absolute: str) -> Path:
        """Return where a path of the service's machine is."""
        return self.root / absolute.lstrip("/")


def carry_out(steps: Iterable[Step], *, dry_run: bool) -> None:
    """Say each step and do it; raises :class:`Failure` at the first that fails."""
    for step in steps:
        print(("would " if dry_run else "") + step.text, flush=True)
        if not dry_run:
            _do(step)


def _do(step: Step) -> None:
    try:
        step.do()
    except OSError as error:
        where = error.filename or step.text
        raise Failure(Exit.REFUSED, f"{where}: {error.strerror or error}") from None
    except subprocess.CalledProcessError as error:
        raise Failure(Exit.REFUSED, f"{' '.join(error.cmd)} failed with {error.returncode}") from None


def write(target: Target, path: str, text: str, mode: int, *, is_secret: bool = False) -> Step:
    """Write a text file. ``is_secret``: the step does not show the text."""
    place = target.path(path)
    shown = "" if is_secret else "".join(f"\n    {line}".rstrip(" ") for line in text.splitlines())
    return Step(
        f"write {place} (mode {mode:04o}){':' if shown else ''}{shown}",
        lambda: put(target, path, text.encode(), mode),
    )


def copy(target: Target, source: Path, path: str, mode: int) -> Step:
    """Copy a file, with a mode of its own."""
    place = target.path(path)
    return Step(
        f"copy {source} to {place} (mode {mode:04o})",
        lambda: put(target, path, source.read_bytes(), mode),
    )


def put(target: Target, path: str, content: bytes, mode: int) -> None:
    """Write a file whole or not at all; it is readable only by root until it has its mode."""
    place = target.path(path)
    _make_folder(place.parent)
    write_atomic(place, content, mode, target.group if mode & 0o040 else None)


def _make_folder(folder: Path) -> None:
    """Make a folder that the service may enter, whatever the umask of the person is."""
    if not folder.exists():
        _make_folder(folder.parent)
        folder.mkdir()
        folder.chmod(0o755)


def link(target: Target, path: str, to: str) -> Step:
    """Make a symbolic link."""
    place = target.path(path)

    def make() -> None:
        _make_folder(place.parent)
        place.unlink(missing_ok=True)
        place.symlink_to(to)

    return Step(f"link {place} to {to}", make)


def removal(place: Path) -> Step:
    """Remove a file, or a folder with all that is in it."""

    def remove() -> None:
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place)
        else:
            place.unlink(missing_ok=True)

    return Step(f"remove {place}", remove)


def command(*words: str) -> Step:
    """Run a program of the system's."""
    return Step(f"run {' '.join(words)}", lambda: run(*words))


def run(*words: str) -> None:
    """Run a program; raises :class:`Failure` when it is not installed, CalledProcessError when it fails."""
    try:
        subprocess.run(words, check=True)  # noqa: S603 - fixed words and the program's own path
    except FileNotFoundError:
        raise Failure(
            Exit.REFUSED,
            f"{words[0]} is not installed here: on a machine without systemd run thingctl serve in a "
            "container (configs/container), or by the machine's own service manager",
        ) from None


def told(text: str) -> Step:
    """Say something and do nothing."""
    return Step(text, lambda: None)

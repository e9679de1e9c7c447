"""Opens the journal, and tries again as long as it cannot be opened."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

import structlog

from thingctl_agent.errors import ConfigError, JournalError
from thingctl_agent.runtime.journal import CallJournal

if TYPE_CHECKING:
    from collections.abc import Callable

RETRY_AFTER: Final = 1.0
"""Seconds at least between two tries, when a command needs the journal."""

RETRY_EVERY: Final = 60.0
"""Seconds between two tries when nothing needs it."""


class JournalOpener:
    """Opens the journal of ``directory``. ``clock`` gives the time in seconds; it never steps."""

    def __init__(self, directory: str, boot_id: str, clock: Callable[[], float]) -> None:
        self._directory = directory
        self._boot_id = boot_id
        self._clock = clock
        self._log: Any = structlog.get_logger()
        self._reason = ""
        self._tried_at = 0.0

    def open(self) -> CallJournal | None:
        """The journal at the agent's start; ``None`` when the disk fails.

        Raises :class:`ConfigError` and :class:`JournalError` for what the agent's owner can mend.
        """
        try:
            return self._try()
        except (PermissionError, NotADirectoryError, FileExistsError) as error:
            raise ConfigError(f"state_dir {self._directory} cannot be used: {error.strerror}") from None
        except OSError as error:
            self._failed(str(error))
            return None

    def open_for_a_command(self) -> CallJournal | None:
        """The journal, or ``None`` when it cannot be opened, or was tried within the last second."""
        return None if self._clock() < self._tried_at + RETRY_AFTER else self.open_again()

    def open_again(self) -> CallJournal | None:
        """The journal, if it can be opened now."""
        try:
            journal = self._try()
        except (OSError, JournalError) as error:
            self._failed(str(error))
            return None
        self._log.info("the journal can be used now; durable commands are taken", directory=self._directory)
        return journal

    @property
    def retry_at(self) -> float:
        """When to call :meth:`open_again`, if no command has asked before."""
        return self._tried_at + RETRY_EVERY

    def _try(self) -> CallJournal:
        self._tried_at = self._clock()
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        journal = CallJournal(os.path.join(self._directory, "journal"), self._boot_id)
        if journal.damage:
            self._log.warning(
                "journal was damaged and has been written anew", file=journal.path, damage=journal.damage
            )
        return journal

    def _failed(self, reason: str) -> None:
        if reason != self._reason:
            self._reason = reason
            self._log.warning(
                "no journal; durable commands are refused until there is one",
                directory=self._directory,
                reason=reason,
            )

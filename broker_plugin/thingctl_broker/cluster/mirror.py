"""The things and thing types of all workers, mirrored by each.

Small records that change seldom and are looked at with every command: each worker has them
in memory, hears what others write, and writes before it tells anybody.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from thingctl_broker.cluster.store_ports import StoreDown
from thingctl_broker.errors import ThingExists
from thingctl_broker.registry import Kept, ThingRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from thingctl_broker.cluster.store_ports import Documents
    from thingctl_broker.things import Thing

KINDS: Final = (Kept.TYPE, Kept.THING, Kept.PRESENCE, Kept.ANNOUNCEMENT)
"""In the order in which they are taken in: what belongs to a thing comes behind it."""

BATCH_MAX: Final = 1000
"""Records written at once."""

TURN_MAX: Final = 1000
"""Records taken in before others get their turn: a worker that loads again is not to seem dead."""

READ_AGAIN: Final = 1.0
"""Seconds between two tries to read a record that is another one now."""

Key = tuple[Kept, str]
"""Of a record."""

_log = structlog.get_logger("thingctl.cluster")


class Mirror:
    """One worker's. ``enrols``: whether a thing becomes known by what it says."""

    def __init__(
        self,
        documents: Documents,
        *,
        is_heard: Callable[[], bool] = lambda: True,
        enrols: bool = False,
    ) -> None:
        """``is_heard``: whether the changes of others are told at present."""
        self._documents = documents
        self._is_heard = is_heard
        self.things = ThingRegistry(enrols=enrols, changed=self._changed)
        self._loaded = False
        self._missed = 0
        self._dirty: dict[Key, None] = {}
        self._under_way: set[Key] = set()
        self._writing = asyncio.Lock()
        self._following: dict[Key, asyncio.Task[None]] = {}
        self._unread: set[Key] = set()
        # What is read may be older than what has been heard of or written since the reading began.
        self._changes = 0
        self._changed_at: dict[Key, int] = {}
        self._readers = 0

    @property
    def current(self) -> bool:
        """Whether it is loaded, every change is heard of, and every one has been read."""
        return self._loaded and not self._unread and self._is_heard()

    def outdated(self) -> None:
        """Changes may have gone unheard: it is to be loaded again."""
        self._loaded = False
        self._missed += 1

    async def load(self) -> int:
        """Take in everything; return how many things there are.

        Also after changes may have gone unheard. Raises :class:`StoreDown`.
        """
        missed = self._missed
        await self.kept()
        with self._reading() as began:
            there: set[Key] = set()
            for n, (kind, name, value) in enumerate(await self._documents.load(KINDS), 1):
                key = (Kept(kind), name)
                there.add(key)
                self._take_in(key, value, began)
                if not n % TURN_MAX:
                    await asyncio.sleep(0)
            known = [(Kept.THING, thing.name) for thing in self.things]
            known += [(Kept.TYPE, name) for name in self.things.types]
            for key in known:
                if key not in there:
                    self._take_in(key, None, began)
        self._loaded = missed == self._missed
        return len(self.things)

    def document_changed(self, kind: str, name: str) -> None:
        """A record is another one now, or gone."""
        if kind not in KINDS:
            return
        key = (Kept(kind), name)
        self._note_changed((key,))
        if key not in self._following and key not in self._dirty:
            task = asyncio.get_running_loop().create_task(self._follow(key))
            self._following[key] = task

    async def find_thing(self, name: str) -> Thing | None:
        """The thing with that name, if the store has it. Raises :class:`StoreDown`."""
        if await self._read((Kept.THING, name)):
            await self._read((Kept.PRESENCE, name))
            await self._read((Kept.ANNOUNCEMENT, name))
        return self.things.get(name)

    # The directory's store.

    async def kept(self, new: str = "") -> None:
        """Return when everything changed so far is kept; raises :class:`StoreDown`.

        ``new``: a thing that was added here. Raises
        :class:`~thingctl_broker.errors.ThingExists` when another worker was faster; then its
        thing is the one that stands.
        """
        async with self._writing:
            if new:
                await self._add(new)
            due = list(self._dirty)  # what changes meanwhile is for the next call
            for start in range(0, len(due), BATCH_MAX):
                await self._write(due[start : start + BATCH_MAX])

    async def stop(self) -> None:
        """Stop listening to others."""
        tasks = tuple(self._following.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # How it is done.

    async def _add(self, name: str) -> None:
        key = (Kept.THING, name)
        if key not in self._dirty:
            return
        value = self.things.record(*key)
        try:
            is_new = await self._documents.put([(Kept.THING, name, value)], new=True)
        except StoreDown:
            self._take_back(name)  # nobody is told of a thing that may never be
            raise
        if is_new:
            if value == self.things.record(*key):
                self._dirty.pop(key, None)
            return
        self._take_back(name)
        await self.find_thing(name)
        raise ThingExists(f"there is a thing named {name!r} already")

    def _take_back(self, name: str) -> None:
        for kept in KINDS:
            self._dirty.pop((kept, name), None)
        self.things.mirror(Kept.THING, name, None)

    async def _write(self, batch: list[Key]) -> None:
        for key in batch:
            del self._dirty[key]
        self._under_way.update(batch)
        try:
            await self._documents.put([(kept, name, self.things.record(kept, name)) for kept, name in batch])
        except BaseException:
            self._dirty = dict.fromkeys(batch) | self._dirty
            raise
        finally:
            self._under_way.difference_update(batch)
            self._note_changed(batch)

    async def _follow(self, key: Key) -> None:
        """Read a record that has changed, until that succeeds."""
        kept, name = key
        failing = False
        try:
            while True:
                try:
                    if kept is Kept.THING and name not in self.things:
                        await self.find_thing(name)  # what belongs to it may have come before it
                    else:
                        await self._read(key)
                except Exception as error:
                    self._unread.add(key)
                    if not failing:
                        bug = not isinstance(error, StoreDown)
                        _log.warning("a record cannot be read yet", kind=kept.value, name=name, exc_info=bug)
                    failing = True
                    await asyncio.sleep(READ_AGAIN)
                else:
                    return
        finally:
            self._unread.discard(key)
            del self._following[key]

    async def _read(self, key: Key) -> bool:
        """Take in a record as it stands when this returns; return whether there is one."""
        while True:
            with self._reading() as began:
                value = await self._documents.find(*key)
                if self._changed_at.get(key, 0) <= began:
                    self._take_in(key, value, began)
                    return value is not None

    @contextmanager
    def _reading(self) -> Iterator[int]:
        """While something is read; gives what :meth:`_take_in` is to know of its beginning."""
        self._readers += 1
        try:
            yield self._changes
        finally:
            self._readers -= 1
            if not self._readers:
                self._changed_at.clear()

    def _note_changed(self, keys: Iterable[Key]) -> None:
        self._changes += 1
        if self._readers:
            self._changed_at.update(dict.fromkeys(keys, self._changes))

    def _take_in(self, key: Key, value: bytes | None, began: int) -> None:
        if key in self._dirty or key in self._under_way or self._changed_at.get(key, 0) > began:
            return  # what this worker is about to write is newer, or what it has heard of
        kept, name = key
        try:
            self.things.mirror(kept, name, value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.error("a record is damaged and was left alone", kind=kept.value, name=name, fault=str(error))

    def _changed(self, kept: Kept, name: str) -> None:
        self._dirty[kept, name] = None

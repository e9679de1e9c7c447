"""The things and thing types of all workers, mirrored by each.

Small records that change seldom and are looked at with every command: each worker has them
in memory, hears what others write, and writes before it tells anybody.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from thingctl_broker.cluster.store_port import StoreDown
from thingctl_broker.things.records import Stored, keys_of
from thingctl_broker.things.registry import ThingRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from thingctl_broker.cluster.store_port import Documents
    from thingctl_broker.things.records import RegistryChange
    from thingctl_broker.things.thing import Thing

KINDS: Final = (Stored.TYPE, Stored.THING, Stored.PRESENCE, Stored.ANNOUNCEMENT)
"""In the order in which they are taken in: what belongs to a thing comes behind it."""

BATCH_MAX: Final = 1000
"""Records written at once."""

TURN_MAX: Final = 1000
"""Records taken in before others get their turn: a worker that loads again is not to seem dead."""

TRIES: Final = 10
"""How often a change is decided anew because another worker was faster."""

READ_AGAIN: Final = 1.0
"""Seconds between two tries to read a record that is another one now."""

Key = tuple[Stored, str]
"""Of a record."""

_log = structlog.get_logger("thingctl.cluster")


class RegistryReplica:
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
        self._heard: set[Key] = set()
        """Of those under way: what was said to have changed."""
        self._doubts: dict[Key, tuple[bytes | None, bytes | None]] = {}
        """What may have been written though it was refused: what was there before, and what is there then."""
        self._writing = asyncio.Lock()
        self._following: dict[Key, asyncio.Task[None]] = {}
        self._unread: set[Key] = set()
        # A snapshot may be older than notifications received while it was read: keep the newer version.
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
                key = (Stored(kind), name)
                there.add(key)
                self._take_in(key, value, began)
                if not n % TURN_MAX:
                    await asyncio.sleep(0)
            known = [(Stored.THING, thing.name) for thing in self.things]
            known += [(Stored.TYPE, name) for name in self.things.types]
            for key in known:
                if key not in there:
                    self._take_in(key, None, began)
        self._loaded = missed == self._missed
        return len(self.things)

    def document_changed(self, kind: str, name: str) -> None:
        """A record is another one now, or gone."""
        if kind not in KINDS:
            return
        key = (Stored(kind), name)
        self._note_changed((key,))
        if key in self._under_way:
            self._heard.add(key)
            return
        if key not in self._following and key not in self._dirty:
            task = asyncio.get_running_loop().create_task(self._follow(key))
            self._following[key] = task

    async def find_thing(self, name: str) -> Thing | None:
        """The thing with that name, if the store has it. Raises :class:`StoreDown`."""
        if await self._read((Stored.THING, name)):
            await self._read((Stored.PRESENCE, name))
            await self._read((Stored.ANNOUNCEMENT, name))
        return self.things.get(name)

    # The directory's store.

    async def keep(
        self, decide: Callable[[], RegistryChange], made: Callable[[RegistryChange], None]
    ) -> None:
        """Keep the change that ``decide`` returns, then call ``made`` with it.

        Another worker may have changed the same record: then that is taken in, and ``decide`` is
        asked again. Raises :class:`StoreDown`; then nothing was changed, or it is changed back as
        soon as the store can be reached.
        """
        async with self._writing:
            await self._settle()
            change = decide()
            before = self.things.record(change.kept, change.name)
            for _ in range(TRIES):
                if await self._replace(change, before):
                    break
                before = await self._look(change)
                change = decide()
            else:
                raise StoreDown(f"other workers change {change.name!r} again and again")
            self._dirty.pop((change.kept, change.name), None)
            made(change)
            await self._drop_rest(change)

    async def kept(self) -> None:
        """Return when everything changed so far is kept; raises :class:`StoreDown`."""
        async with self._writing:
            await self._settle()
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

    async def _replace(self, change: RegistryChange, before: bytes | None) -> bool:
        """Write a record instead of ``before``; return False if that is not what is there."""
        key = (change.kept, change.name)
        with self._writes((key,)):
            try:
                return await self._documents.put([change], instead_of=[before])
            except StoreDown as error:
                if error.uncertain:
                    self._doubts[key] = (before, change.record)
                raise

    async def _settle(self) -> None:
        """Undo what was refused because the store went away, and was written all the same."""
        for key, (before, written) in list(self._doubts.items()):
            await self._documents.put([(*key, before)], instead_of=[written])
            del self._doubts[key]

    async def _look(self, change: RegistryChange) -> bytes | None:
        """Take in the record as another worker has written it, and return it."""
        key = (change.kept, change.name)
        is_new = change.kept is Stored.THING and change.name not in self.things
        value = await self._documents.find(*key)
        if value is not None:
            self._dirty.pop(key, None)  # what is there came first
        self._take_in(key, value, self._changes)
        if is_new and value is not None:
            await self.find_thing(change.name)
        return value

    async def _drop_rest(self, change: RegistryChange) -> None:
        """Remove what belonged to a thing that is gone; what cannot be removed yet is later."""
        rest = keys_of(change)[1:]
        self._dirty.update(dict.fromkeys(rest))
        if rest:
            with suppress(StoreDown):
                await self._write(rest)

    @contextmanager
    def _writes(self, keys: Collection[Key]) -> Iterator[None]:
        """While records are written: what is read of them meanwhile is not taken in."""
        self._under_way.update(keys)
        try:
            yield
        finally:
            self._under_way.difference_update(keys)
            self._note_changed(keys)
            for kept, name in self._heard.intersection(keys):
                self._heard.discard((kept, name))
                self.document_changed(kept, name)  # another worker may have been the last to write

    async def _write(self, batch: list[Key]) -> None:
        for key in batch:
            self._dirty.pop(key, None)
        with self._writes(batch):
            try:
                await self._documents.put(
                    [(kept, name, self.things.record(kept, name)) for kept, name in batch]
                )
            except BaseException:
                self._dirty = dict.fromkeys(batch) | self._dirty
                raise

    async def _follow(self, key: Key) -> None:
        """Read a record that has changed, until that succeeds."""
        kept, name = key
        failing = False
        try:
            while True:
                try:
                    if kept is Stored.THING and name not in self.things:
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

    def _changed(self, kept: Stored, name: str) -> None:
        self._dirty[kept, name] = None

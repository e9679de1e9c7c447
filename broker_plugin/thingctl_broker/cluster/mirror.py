"""The things and thing types of all workers, mirrored by each.

Small records that change seldom and are looked at with every command: each worker has them
in memory, hears what others write, and writes before it tells anybody.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
import structlog

from thingctl_broker.errors import ThingExists
from thingctl_broker.things import Kept, ThingRegistry

if TYPE_CHECKING:
    from collections.abc import Callable

    from thingctl_broker.cluster.ports import Documents
    from thingctl_broker.things import Thing

KINDS: Final = (Kept.TYPE, Kept.THING, Kept.PRESENCE, Kept.ANNOUNCEMENT)
"""In the order in which they are taken in: what belongs to a thing comes behind it."""

BATCH_MAX: Final = 1000
"""Records written at once."""

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
        self._dirty: dict[tuple[Kept, str], None] = {}
        self._under_way: set[tuple[Kept, str]] = set()
        self._writing = asyncio.Lock()
        self._reading: set[asyncio.Task[None]] = set()

    @property
    def current(self) -> bool:
        """Whether it is loaded, and every change is heard of."""
        return self._loaded and self._is_heard()

    def outdated(self) -> None:
        """Changes may have gone unheard: it is to be loaded again."""
        self._loaded = False

    async def load(self) -> int:
        """Take in everything; return how many things there are.

        Also after changes may have gone unheard. Raises :class:`StoreDown`.
        """
        await self.kept()
        there: set[tuple[Kept, str]] = set()
        for kind, name, value in await self._documents.load(KINDS):
            kept = Kept(kind)
            there.add((kept, name))
            self._take_in(kept, name, value)
        gone = [(Kept.THING, thing.name) for thing in self.things if (Kept.THING, thing.name) not in there]
        gone += [(Kept.TYPE, name) for name in self.things.types if (Kept.TYPE, name) not in there]
        for kept, name in gone:
            self._take_in(kept, name, None)
        self._loaded = True
        return len(self.things)

    def document_changed(self, kind: str, name: str) -> None:
        """A record is another one now, or gone."""
        if kind in KINDS and (Kept(kind), name) not in self._dirty:
            task = asyncio.get_running_loop().create_task(self._read(Kept(kind), name))
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)

    async def find_thing(self, name: str) -> Thing | None:
        """The thing with that name, if the store has it. Raises :class:`StoreDown`."""
        for kept in (Kept.THING, Kept.PRESENCE, Kept.ANNOUNCEMENT):
            value = await self._documents.find(kept, name)
            if value is not None:
                self._take_in(kept, name, value)
            elif kept is Kept.THING:
                return None
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
            while self._dirty:
                await self._write(list(self._dirty)[:BATCH_MAX])

    async def stop(self) -> None:
        """Stop listening to others."""
        for task in tuple(self._reading):
            task.cancel()
        await asyncio.gather(*self._reading, return_exceptions=True)

    # How it is done.

    async def _add(self, name: str) -> None:
        key = (Kept.THING, name)
        if key not in self._dirty:
            return
        value = self.things.record(*key)
        if await self._documents.put([(Kept.THING, name, value)], new=True):
            if value == self.things.record(*key):
                self._dirty.pop(key, None)
            return
        for kept in KINDS:
            self._dirty.pop((kept, name), None)
        await self.find_thing(name)
        raise ThingExists(f"there is a thing named {name!r} already")

    async def _write(self, batch: list[tuple[Kept, str]]) -> None:
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

    async def _read(self, kept: Kept, name: str) -> None:
        try:
            self._take_in(kept, name, await self._documents.find(kept, name))
        except Exception:
            self._loaded = False  # until everything is loaded again
            _log.exception("a record cannot be read", kind=kept.value, name=name)

    def _take_in(self, kept: Kept, name: str, value: bytes | None) -> None:
        if (kept, name) in self._dirty or (kept, name) in self._under_way:
            return  # what this worker is about to write is newer
        try:
            self.things.mirror(kept, name, value)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            _log.error("a record is damaged and was left alone", kind=kept.value, name=name, fault=str(error))

    def _changed(self, kept: Kept, name: str) -> None:
        self._dirty[kept, name] = None

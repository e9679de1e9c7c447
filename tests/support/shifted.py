"""A wall clock that is wrong for one process: a library that is loaded before the system's."""

from __future__ import annotations

import struct
from pathlib import Path

from support.preload import preloaded

_SOURCE = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile long long *shift;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SHIFT_FILE");
    int file = path ? open(path, O_RDONLY) : -1;
    void *map = file < 0 ? MAP_FAILED : mmap(0, sizeof *shift, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) shift = map;
    if (file >= 0) close(file);
}

int clock_gettime(clockid_t id, struct timespec *at) {
    int failed = syscall(SYS_clock_gettime, id, at);
    if (!failed && id == CLOCK_REALTIME && shift) at->tv_sec += *shift;
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


class ShiftedClock:
    """The clock of the processes that are started with ``environment``."""

    def __init__(self, folder: Path) -> None:
        library = preloaded(folder, "shifted", _SOURCE)
        self._file = folder / "shift"
        self.set(0)
        self.environment = {"LD_PRELOAD": str(library), "SHIFT_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        """Set the clock to so many seconds off the machine's."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=q", seconds))

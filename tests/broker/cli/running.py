"""The real command: as a process of its own, or quicker, in this one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from typing import NamedTuple

from broker.http.running import TOKEN
from thingctl_broker.cli.app import run

TIME_ZONE = "UTC-2"  # POSIX writes it the other way round: two hours east of Greenwich


class Ran(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)


class Cli:
    """Runs ``thingctl`` against one URL, in an environment that holds nothing else."""

    def __init__(self, url, home, token=TOKEN):
        self.environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TZ": TIME_ZONE,
            "THINGCTL_URL": url,
            "THINGCTL_TOKEN": token,
            "PYTHONWARNINGS": "error",
            "COLUMNS": "100",
        }

    @contextmanager
    def start(self, *args, env=None, **kwargs):
        environ = {k: v for k, v in (self.environ | (env or {})).items() if v is not None}
        command = [sys.executable, "-m", "thingctl_broker.cli", *args]
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | kwargs
        with subprocess.Popen(command, env=environ, **options) as process:
            try:
                yield process
            finally:
                process.kill()  # whatever a test did not see to its end

    def __call__(self, *args, env=None):
        with self.start(*args, env=env) as process:
            out, err = process.communicate(timeout=30)
        assert b"Traceback" not in err, err.decode()
        return Ran(process.returncode, out.decode(), err.decode())


class QuickCli(Cli):
    """The same without a process: for what does not depend on one."""

    def __init__(self, url, home, monkeypatch, capsys):
        super().__init__(url, home)
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *args, env=None):
        with self._monkeypatch.context() as patch:
            for name, value in (self.environ | (env or {})).items():
                if value is None:
                    patch.delenv(name, raising=False)
                else:
                    patch.setenv(name, value)
            patch.setattr(sys, "argv", ["thingctl", *args])
            time.tzset()
            try:
                code = run()
            except SystemExit as end:
                code = end.code
        time.tzset()
        out, err = self._capsys.readouterr()
        return Ran(code, out, err)

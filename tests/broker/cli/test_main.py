"""The command as a whole: how fast it starts, what it drags in, what it says without its extra."""

from __future__ import annotations

import subprocess
import sys

from thingctl_broker.cli.exits import Exit, of_status
from thingctl_protocol import __version__
from thingctl_protocol.statuses import TERMINAL

HEAVY = (
    "amqtt",
    "asyncio",
    "httptools",
    "msgspec",
    "pydantic",
    "rich",
    "starlette",
    "structlog",
    "uvicorn",
    "uvloop",
)


def python(code):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=30
    )


def test_the_client_commands_load_nothing_of_the_broker():
    """Half a second of imports is what people would wait for at each command."""
    ran = python("import sys, thingctl_broker.cli.app; print(*sys.modules)")
    assert ran.returncode == 0, ran.stderr
    assert set(HEAVY) & set(ran.stdout.split()) == set()


def test_without_the_extra_it_says_what_to_install():
    ran = python("import sys; sys.modules['typer'] = None; from thingctl_broker.cli import main; main()")
    assert (ran.returncode, ran.stdout) == (1, "")
    assert ran.stderr == (
        "thingctl: the module typer is not installed; "
        "the thingctl command needs: pip install 'thingctl[broker]'\n"
    )


def test_a_module_of_our_own_that_is_missing_is_not_blamed_on_the_extra():
    ran = python(
        "import sys; sys.modules['thingctl_broker.cli.output'] = None;"
        "from thingctl_broker.cli import main; main()"
    )
    assert "ModuleNotFoundError" in ran.stderr


def test_version_and_help(quick):
    assert quick("--version").out == f"thingctl {__version__}\n"
    ran = quick("--help")
    assert ran.code == 0
    for command in ("serve", "send", "list", "show", "watch", "cancel", "things"):
        assert f"  {command} " in ran.out
        assert quick(command, "--help").code == 0
    for code in Exit:
        assert code is Exit.INTERRUPTED or str(int(code)) in ran.out


def test_every_verdict_has_a_code_of_its_own():
    assert len({of_status(status) for status in TERMINAL}) == len(TERMINAL)
    assert of_status("SUCCEEDED") == Exit.OK
    assert of_status("SOMETHING_NEW") == Exit.REFUSED


def test_ctrl_c_while_it_loads_shows_no_traceback():
    interrupt = "class I:\n    def find_spec(*_): raise KeyboardInterrupt"
    ran = python(
        f"import sys\n{interrupt}\nfrom thingctl_broker.cli import main\nsys.meta_path.insert(0, I())\nmain()"
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (130, "", "")

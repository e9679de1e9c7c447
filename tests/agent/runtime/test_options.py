"""The options of a program that calls ``agent.run()``, and whether the command line is its own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from thingctl_agent.runtime.options import is_program, overrides, read_plain, read_script

SCRIPT = """
from thingctl_agent import Agent, agent as module
module.serve = lambda agent, config: print(config.thing, config.url, sep=" ")
agent = Agent()
def main(**settings):
    agent.run(**settings)
if __name__ == "__main__":
    main({settings})
"""


def run(tmp_path, *words, settings="", env=None, before=()):
    script = tmp_path / "thermostat.py"
    script.write_text(SCRIPT.replace("{settings}", settings))
    argv = [sys.executable, *before, str(script), *words]
    return subprocess.run(
        argv, env=env or {}, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_script_reads_its_command_line_as_run_does(tmp_path):
    done = run(tmp_path, "--thing", "t", "--url=mqtt://h:1")
    assert (done.stdout, done.stderr, done.returncode) == ("t mqtt://h:1\n", "", 0)


def test_the_command_line_wins_over_the_code_and_that_over_the_environment(tmp_path):
    env = {"THINGCTL_THING": "env", "THINGCTL_MQTT_URL": "mqtt://env"}
    done = run(tmp_path, "--thing", "word", settings='thing="code"', env=env)
    assert done.stdout == "word mqtt://env\n"
    assert run(tmp_path, settings='thing="code"', env=env).stdout == "code mqtt://env\n"


def test_a_script_has_help_and_names_an_option_that_is_none(tmp_path):
    done = run(tmp_path, "--help")
    assert done.returncode == 0
    assert "usage: thermostat.py" in done.stdout
    assert "--bundle FILE" in done.stdout
    done = run(tmp_path, "--thnig", "t")
    assert done.returncode == 2
    assert "did you mean '--thing'?" in done.stderr


def test_a_script_that_has_options_of_its_own_passes_none_on(tmp_path):
    done = run(tmp_path, "--mine", settings='argv=[], thing="code"')
    assert done.stdout.startswith("code ")


def test_a_profiler_leaves_the_command_line_to_the_script(tmp_path):
    done = run(tmp_path, "--thing", "t", before=("-m", "cProfile"))
    assert "t mqtt://127.0.0.1:1883\n" in done.stdout, done.stderr


def test_a_program_that_imports_the_script_keeps_its_command_line(tmp_path):
    run(tmp_path)
    (tmp_path / "other.py").write_text("import thermostat; thermostat.main(thing='theirs')\n")
    argv = [sys.executable, "other.py", "--thing", "mine", "--foreign"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("theirs "), done.stderr


@pytest.mark.parametrize(
    "caller",
    [
        {"__name__": "__main__"},
        {"__name__": "thermostat", "__file__": sys.argv[0]},
        {"__name__": "__main__", "__file__": "/another/file.py"},
    ],
)
def test_a_notebook_an_import_and_a_runner_are_no_program(caller):
    assert not is_program(caller)


def test_options_are_settings():
    given = overrides(read_plain(["--ca", "c", "--password-file=/p", "--bundle", "b"]))
    assert given["tls"] == {"ca": "c", "cert": None, "key": None}
    assert (given["password_file"], given["bundle"], given["thing"]) == ("/p", "b", None)
    assert "config" not in given


def test_files_are_not_for_a_script(capsys):
    with pytest.raises(SystemExit):
        read_script(["other.py"])
    assert "unexpected argument: other.py" in capsys.readouterr().err

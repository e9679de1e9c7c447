"""``thingctl completion``: the script that makes a shell complete thingctl's command lines."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated, Final

import typer

from thingctl_broker.cli.completion import VARIABLE


class Shell(StrEnum):
    """Shells with completion."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


# Typer's protocol for fish fits all three shells: one word a line, behind a tab what it means. Its own
# scripts evaluate what the command prints (zsh), and lose names with a colon in them (bash).
_ASK: Final = f"{VARIABLE}=complete_fish _TYPER_COMPLETE_FISH_ACTION=get-args _TYPER_COMPLETE_ARGS="

_SCRIPTS: Final = {
    Shell.BASH: f"""\
# thingctl completion for bash. In ~/.bashrc: source <(thingctl completion bash)
_thingctl_completion() {{
    local line="${{COMP_LINE:0:COMP_POINT}}" value rest
    local word="${{line##*[[:space:]]}}"
    COMPREPLY=()
    while IFS=$'\\t' read -r value rest; do
        # Bash replaces what stands behind the last colon only.
        [[ $word == *:* && $COMP_WORDBREAKS == *:* ]] && value="${{value#"${{word%"${{word##*:}}"}}"}}"
        [[ -n $value ]] && COMPREPLY+=("$value")
    done < <({_ASK}"$line" "$1" 2>/dev/null)
}}
complete -o default -F _thingctl_completion thingctl
""",
    Shell.ZSH: f"""\
#compdef thingctl
# thingctl completion for zsh. In ~/.zshrc, behind compinit: source <(thingctl completion zsh)
_thingctl() {{
    local -a found
    local value rest
    while IFS=$'\\t' read -r value rest; do
        [[ -n $value ]] && found+=("${{value//:/\\\\:}}${{rest:+:$rest}}")
    done < <({_ASK}"${{(j: :)words[1,CURRENT]}}" "${{words[1]}}" 2>/dev/null)
    if (( $#found )); then
        _describe thingctl found
    else
        _files
    fi
}}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _thingctl "$@"
else
    compdef _thingctl thingctl
fi
""",
    Shell.FISH: f"""\
# thingctl completion for fish: thingctl completion fish > ~/.config/fish/completions/thingctl.fish
function __thingctl_completion
    set -l line (commandline --cut-at-cursor --current-process | string collect)
    set -l found (env {_ASK}"$line" thingctl 2>/dev/null)
    if test -n "$found"
        printf '%s\\n' $found
    else
        __fish_complete_path (commandline --current-token)
    end
end
complete --command thingctl --no-files --arguments '(__thingctl_completion)'
""",
}


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print a script for a shell: source <(thingctl completion bash)."""
    print(_SCRIPTS[shell], end="")


def enable() -> None:
    """Let typer answer the scripts. Call it when ``VARIABLE`` is set, before the app runs."""
    # Typer renders the help texts by rich if it is there, and to load it takes longer than all the rest.
    sys.modules.setdefault("rich", None)  # type: ignore[arg-type]
    from typer import completion as typers  # noqa: PLC0415 heavy

    typers.completion_init()  # type: ignore[attr-defined]

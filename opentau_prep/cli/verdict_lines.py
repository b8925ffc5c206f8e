"""What is left to do, as `run` and `report` show it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentau_prep.text import printable, printable_lines, several

if TYPE_CHECKING:
    from rich.console import Console

    from opentau_prep.verdict import Verdict

__all__ = ["say", "say_command", "show_to_do"]

_MAX_DETAILS = 3


def say(console: Console, text: str, *, indent: int = 0) -> None:
    """Print text; on a terminal its lines are wrapped, in a pipe they stay whole."""
    from rich.padding import Padding
    from rich.text import Text

    shown = Text(printable_lines(text))
    if console.is_terminal and indent:
        console.print(Padding(shown, (0, 0, 0, indent), expand=False))
    else:
        console.print(Text(" " * indent) + shown, soft_wrap=not console.is_terminal)


def say_command(console: Console, command: str, *, indent: int = 2) -> None:
    """Print a command on one line: a terminal that wraps it copies it whole."""
    from rich.text import Text

    line = Text(f"{' ' * indent}$ {printable(command)}")
    console.print(line, soft_wrap=True)


def show_to_do(console: Console, verdict: Verdict) -> None:
    """Print what must be done before training, or else what is worth a look, with the commands."""
    for level, heading in (("do", "To do before training:"), ("look", "Worth a look:")):
        chosen = [each for each in verdict.to_do if each.level == level]
        if not chosen:
            continue
        if level == "look" and not verdict.ready:  # some of it may follow from what is wrong
            say(console, f"Worth a look afterwards: {several(len(chosen), 'thing')}.")
            continue
        say(console, f"\n{heading}")
        for number, each in enumerate(chosen, 1):
            details = list(each.details[:_MAX_DETAILS])
            if level == "do" and not each.command and details:
                details[0] = f"By hand: {details[0]}"
            more = len(each.details) - len(details)
            about = "; ".join([*details, *([f"and {more:,} more"] if more else [])])
            line = printable(f"{each.what}: {about}" if about else each.what)
            say(console, f"{number}. {line}", indent=2)
            for command in filter(None, (each.command, each.instead)):
                say_command(console, command, indent=5)

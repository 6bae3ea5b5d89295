"""The demo's steps and the table at its end."""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field


class Unexpected(Exception):
    """A step ended otherwise than it should."""


def expect(condition: bool, otherwise: str) -> None:
    """Raise Unexpected with ``otherwise`` unless ``condition``."""
    if not condition:
        raise Unexpected(otherwise)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One line of the table."""

    step: str
    expected: str
    happened: str
    enforcement: str
    seconds: float
    ok: bool


@dataclass(slots=True)
class Steps:
    """Runs steps one after the other, says so on stderr, and keeps what happened."""

    outcomes: list[Outcome] = field(default_factory=list)

    def run(self, step: str, expected: str, enforcement: str, action: Callable[[], str]) -> bool:
        """Run ``action``; its text is what happened. An exception is a step that did not go as expected."""
        say(f"[{step}] {expected} ...")
        started = time.perf_counter()
        try:
            happened, ok = action(), True
        except Unexpected as error:
            happened, ok = str(error), False
        except Exception as error:  # noqa: BLE001  # whatever went wrong belongs in the table, with its trace on stderr
            traceback.print_exc()
            happened, ok = f"{type(error).__name__}: {error}", False
        seconds = time.perf_counter() - started
        self.outcomes.append(Outcome(step, expected, happened, enforcement, seconds, ok))
        say(f"[{step}] {'as expected' if ok else 'NOT AS EXPECTED'}: {happened}  ({seconds:.1f} s)")
        return ok

    @property
    def all_as_expected(self) -> bool:
        """Whether every step went as expected."""
        return bool(self.outcomes) and all(o.ok for o in self.outcomes)

    def show(self) -> None:
        """The table, on stdout."""
        from rich.console import Console
        from rich.markup import escape
        from rich.table import Table

        console = Console(width=None if sys.stdout.isatty() else 160)
        table = Table(title="TrainGuard demo", show_lines=True, title_justify="left")
        for name, width in (("step", 5), ("expected", None), ("happened", None), ("label", 11)):
            table.add_column(name, min_width=width)
        table.add_column("s", justify="right")
        table.add_column("ok", justify="center")
        for o in self.outcomes:
            mark = "[green]yes[/]" if o.ok else "[bold red]NO[/]"
            table.add_row(o.step, o.expected, escape(o.happened), o.enforcement, f"{o.seconds:.1f}", mark)
        console.print(table)


def say(text: str) -> None:
    """Progress: stderr, at once."""
    print(text, file=sys.stderr, flush=True)

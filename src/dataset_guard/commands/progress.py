"""Progress of a long reading, on stderr: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

Show = Callable[[str, int, int | None], None]
"""Takes (stage, rows done, rows in all or None)."""

_LINES = 10
_QUIET_ROWS = 1_000_000
"""Without a terminal, smaller tables are done before anybody would read a line about them."""


@contextmanager
def shown(stream: TextIO | None = None) -> Iterator[Show]:
    """A :data:`Show` while the block runs."""
    target = stream or sys.stderr
    if target.isatty():
        with _bar(target) as show:
            yield show
    else:
        yield _lines(target)


@contextmanager
def _bar(stream: TextIO) -> Iterator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(file=stream), transient=True) as bar:
        task = bar.add_task("reading", total=None)
        yield lambda stage, rows, total: bar.update(task, description=stage, completed=rows, total=total)


def _lines(stream: TextIO) -> Show:
    said: set[tuple[str, int]] = set()

    def show(stage: str, rows: int, total: int | None) -> None:
        if total is not None and total < _QUIET_ROWS:
            return
        part = rows * _LINES // total if total else rows // _QUIET_ROWS
        if part and (stage, part) not in said:
            said.add((stage, part))
            of = f" of {total:,}" if total else ""
            print(f"{stage}: {rows:,}{of} rows", file=stream, flush=True)

    return show

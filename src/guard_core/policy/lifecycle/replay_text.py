"""A replay for a person at a terminal."""

from __future__ import annotations

from collections.abc import Iterator

from guard_core.counting import counted
from guard_core.policy.lifecycle.replay import Replay

SHOWN = 20


def render(replay: Replay) -> str:
    """Outcomes, then the largest groups of changes with counter-examples."""
    return "\n".join(_lines(replay))


def _lines(replay: Replay) -> Iterator[str]:
    since = f" since {replay.since[:19]}Z" if replay.since else ""
    rate = replay.decisions / replay.seconds if replay.seconds else 0
    yield f"candidate  {replay.candidate}"
    yield (
        f"{counted(replay.decisions, 'decision')}{since}, "
        f"{counted(replay.distinct, 'distinct question')} asked, "
        f"{replay.seconds:.1f} s ({rate:,.0f} decisions/s, "
        f"{counted(replay.processes, 'process', 'processes')})"
    )
    if not replay.decisions:
        yield "no decision was recorded in this time"
        return
    for kind, count in replay.classes.items():
        yield f"  {kind:<16} {count:>12,}  {100 * count / replay.decisions:6.2f} %"
    yield f"  GPU-hours of jobs that would not be decided alike: {replay.gpu_hours:,.1f}"
    if replay.unreadable:
        yield f"  {replay.unreadable:,} records cannot be read; run: trainguard audit verify"
    for change in replay.changes[:SHOWN]:
        rules = ", ".join(change.rules) or "-"
        yield ""
        hours = f", {change.gpu_hours:,.1f} GPU-hours" if change.gpu_hours else ""
        yield f"{change.kind}  tenant {change.tenant or '-'}  [{rules}]  {change.count:,} decisions{hours}"
        yield f"    {change.path}: {change.message}" if change.message else f"    {change.path}"
        yield f"    e.g. {', '.join(change.examples)}"
    if len(replay.changes) > SHOWN:
        yield ""
        yield f"{len(replay.changes) - SHOWN} smaller groups: --format json"
    if replay.changes:
        yield ""
        yield "explain one: trainguard policy why DECISION_ID"

"""Trees of cohorts in which a round has nothing to do: nobody got in, and nothing has changed since.

A round is a pure function of its snapshot. What lines and queues it saw is compared by identity: the ledger's
mirror hands out the same values until they change, and another process's change makes all of them new. Time
changes a round as well (fair shares, budgets, patience, an answer of policy that has grown old), so that
nothing is passed over for longer than `LOOK_AGAIN_MS`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from compute_guard.admission.snapshot import Snapshot

LOOK_AGAIN_MS: Final = 1000

Seen = tuple[object, ...]
"""The lines of a tree's queues and what these hold, in the order of the quotas."""


class QuietTrees:
    """What each tree was like when a round last found nothing to do in it. ``revision``: the policies'."""

    def __init__(self) -> None:
        self._quotas: object = None
        self._besides: object = None
        self._seen: dict[int, tuple[Seen, int]] = {}

    def others(self, snapshot: Snapshot, revision: str) -> set[int]:
        """The trees that a round has to look at, of those in which somebody waits."""
        besides = (revision, dict(snapshot.shut), dict(snapshot.holds))
        if self._quotas is not snapshot.quotas or self._besides != besides:
            self._quotas, self._besides = snapshot.quotas, besides
            self._seen.clear()
        tree, nodes = snapshot.quotas.tree, snapshot.quotas.nodes
        waiting = {tree.root[nodes[queue]] for queue in snapshot.lines if queue in nodes}
        return {root for root in waiting if not self._is_quiet(snapshot, root)}

    def note(self, snapshot: Snapshot, roots: Iterable[int]) -> None:
        """A round over ``snapshot`` found nothing to do in these trees."""
        for root in roots:
            self._seen[root] = (_seen(snapshot, root), snapshot.now_ms)

    def _is_quiet(self, snapshot: Snapshot, root: int) -> bool:
        seen, at_ms = self._seen.get(root, ((), 0))
        now = _seen(snapshot, root)
        same = len(now) == len(seen) and all(one is other for one, other in zip(now, seen, strict=True))
        return same and 0 <= snapshot.now_ms - at_ms < LOOK_AGAIN_MS


def unchanged(before: Snapshot, now: Snapshot, root: int) -> bool:
    """Whether a round over ``now``, of the same quotas, would find in a tree what one over ``before`` found.

    Time apart, as it passes between two looks.
    """
    if before.holds != now.holds:
        return False
    return all(one is other for one, other in zip(_seen(before, root), _seen(now, root), strict=True))


def _seen(snapshot: Snapshot, root: int) -> Seen:
    found: list[object] = []
    for queue in snapshot.quotas.queues_of(root):
        found += (snapshot.lines.get(queue), snapshot.usage.get(queue))
    return tuple(found)

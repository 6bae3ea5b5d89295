"""Nodes beside the head, each started until it has joined.

On a busy machine a raylet or one of its agents may end while it starts. That is seen within a second, and the
node is started again, a few times.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from compute_guard.cluster.connection import Cluster
from compute_guard.cluster.ray_start import START_SECONDS, RayEnded, RunningNode, start_node
from guard_core.errors import UserError

if TYPE_CHECKING:
    from compute_guard.ray_plugin.gcs import Gcs, NodeRow
    from guard_core.config import Settings

T = TypeVar("T")
logger = logging.getLogger(__name__)
TRIES = 3
FIRST_NODE = 11
_LOOK_SECONDS = 0.2


class FurtherNodes:
    """The nodes beside one head. Used from a thread for each."""

    def __init__(self, *, settings: Settings, cluster: Cluster, period_ms: int) -> None:
        self._settings = settings
        self._cluster = cluster
        self._period_ms = period_ms
        self._given_up = threading.Event()

    def give_up(self) -> None:
        """Start none any more: the cluster will not come up."""
        self._given_up.set()

    def start(self, number: int, pool: str, options: Mapping[str, int | None]) -> None:
        """Start node ``number`` and wait until it has joined; again when it ends (`tried`).

        Raises UserError when it ended each time, or does not join in `START_SECONDS`.
        """

        def once(trial: int) -> None:
            if self._given_up.is_set():
                raise UserError("the cluster did not come up")
            # An address that was used before may stand in Ray's tables for a while yet.
            address = f"127.0.{trial}.{FIRST_NODE + number}"
            arguments = [f"--address={self._cluster.gate_address}", f"--node-ip-address={address}"]
            node = start_node(
                self._settings, self._cluster, arguments, options, self._period_ms, f"node-{number}", pool
            )
            try:
                self._wait_until_it_joined(node, address)
            except BaseException:
                node.end()
                raise

        try:
            tried(once, f"node {number}", lambda trial: self._put_aside(number, trial))
        except RayEnded as error:
            raise UserError(
                f"node {number} (pool {pool}) ended again and again while it started ({error}); end what "
                f"else keeps this machine busy, or start fewer nodes; logs: {self._cluster.temp_dir}"
            ) from error

    def _put_aside(self, number: int, trial: int) -> None:
        """Keep what a node that ended has left; the next one begins with nothing."""
        folder = Path(self._cluster.temp_dir)
        (folder / f"node-{number}").rename(folder / f"ended-{trial}-node-{number}")

    def _wait_until_it_joined(self, node: RunningNode, address: str) -> None:
        from compute_guard.ray_plugin.gcs import Gcs

        deadline = time.monotonic() + START_SECONDS
        with contextlib.closing(Gcs(self._cluster.gcs_address, lambda: self._cluster.token)) as gcs:
            while not has_joined(gcs, lambda row: row.address == address):
                if node.has_ended():
                    raise RayEnded("its raylet ended before the node had joined")
                if time.monotonic() > deadline:
                    raise UserError(f"the node at {address} did not join in {START_SECONDS} s")
                time.sleep(_LOOK_SECONDS)


def has_joined(gcs: Gcs, is_meant: Callable[[NodeRow], bool]) -> bool:
    """Whether a node that ``is_meant`` is in the GCS's table, with its agent."""
    agents = gcs.agent_addresses()
    return any(is_meant(row) and row.node_id in agents for row in gcs.nodes())


def tried(start: Callable[[int], T], what: str, clear: Callable[[int], None] = lambda _: None) -> T:
    """``start(0)``, or of the next number when Ray ended, `TRIES` times in all; ``clear`` first, each time.

    Not after `START_SECONDS`. Raises RayEnded when it ended each time, and at once whatever else is raised.
    """
    deadline = time.monotonic() + START_SECONDS
    for trial in range(TRIES):
        try:
            return start(trial)
        except RayEnded as error:
            if trial == TRIES - 1 or time.monotonic() > deadline:
                raise
            logger.warning("%s ended while it started, so it is started again: %s", what, error)
            clear(trial)
    raise AssertionError("unreachable: the last trial returns or raises")

"""USAG001, indicator channel: the name, the command or the pool of a miner.

Looks at the executables on the device and at the entrypoint a job was submitted with. Independent of what the
device measures, so together with the telemetry channel it makes an incident. A name is easily changed: its
absence says nothing. What matched is reported by the indicator's name; the command itself is never stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from compute_guard.usage.detectors.base import Signal, View

MINERS = frozenset({
    "bfgminer", "bzminer", "ccminer", "cgminer", "cpuminer", "ethminer", "gminer", "kdevtmpfsi",
    "kinsing", "lolminer", "minerd", "miniz", "nanominer", "nbminer", "onezerominer", "phoenixminer",
    "rigel", "srbminer", "srbminer-multi", "t-rex", "teamredminer", "trex", "wildrig-multi", "xmr-stak",
    "xmrig", "xmrigdaemon"
})  # fmt: skip
"""Executables of common miners and of the malware families that drop them (lower case, without suffix)."""
POOL = re.compile(
    r"(?:stratum[12]?\+?(?:tcp|ssl|tls|udp)?://|ethproxy\+?\w*://|--donate-level\b|--nicehash\b|--coin[= ]\w+"
    r"|\b(?:[a-z0-9-]+\.)*(?:minexmr|supportxmr|nanopool|ethermine|f2pool|2miners|hashvault|moneroocean|nicehash"
    r"|woolypooly|herominers|unmineable|c3pool)\.[a-z]{2,})",
    re.IGNORECASE,
)
"""Mining protocols, options only miners have, and pools (after the Falco and Sigma rules for T1496)."""


@dataclass(frozen=True, slots=True)
class MiningIndicator:
    """``names`` adds executables of your own to the known ones."""

    rule_id: ClassVar[str] = "USAG001"
    kind: ClassVar[str] = "mining"

    names: tuple[str, ...] = ()

    def detect(self, view: View) -> Iterator[Signal]:
        """One signal per device on which a miner's name, command or pool is seen now."""
        for column, words in sorted(self.indicated(view).items()):
            device, unique = view.window.devices[column], sorted(words)
            yield Signal(
                rule_id=self.rule_id,
                kind=self.kind,
                channel="indicator",
                device=device.key,
                score=900,
                message=f"known mining indicators: {', '.join(unique)}",
                message_zh=f"已知挖矿特征：{'、'.join(unique)}",
                evidence={"indicators": unique},
                synthetic=device.synthetic,
            )

    def indicated(self, view: View) -> dict[int, set[str]]:
        """What is seen now, by the device's column."""
        seen: dict[int, set[str]] = {}
        for key, uses in view.uses.items():
            column = view.window.columns.get(key)
            names = {f"process:{name}" for use in uses if (name := self._miner(use.name))}
            if names and column is not None:
                seen.setdefault(column, set()).update(names)
        known = view.roster
        marks = _marked(self, known.entrypoints)
        if marks:
            suspect = np.isin(known.entrypoint[view.active], list(marks))
            for row in view.active[suspect].tolist():
                found = marks[int(known.entrypoint[row])]
                seen.setdefault(int(known.column[row]), set()).update(found)
        return seen

    def indicators(self, command: str) -> list[str]:
        """What marks ``command`` as a miner's: executables, ``pool`` for a protocol, option or address."""
        words = re.split(r"[\s'\"=;|&()<>]+", command)
        names = {name for word in words if (name := self._miner(word))}
        return sorted(names | ({"pool"} if POOL.search(command) else set()))

    def _miner(self, word: str) -> str:
        name = word.rsplit("/", 1)[-1].lower().removesuffix(".exe").removesuffix(".py")
        return name if name in MINERS or name in self.names else ""


@lru_cache(maxsize=8)
def _marked(detector: MiningIndicator, commands: tuple[str, ...]) -> dict[int, frozenset[str]]:
    """Which of ``commands`` (by place) are marked, and how: scrape after scrape the same are asked about."""
    found = {place: _remembered(detector, command) for place, command in enumerate(commands) if command}
    return {place: marks for place, marks in found.items() if marks}


@lru_cache(maxsize=65_536)
def _remembered(detector: MiningIndicator, command: str) -> frozenset[str]:
    """The same command is asked about at every scrape."""
    return frozenset(f"entrypoint:{name}" for name in detector.indicators(command))


DETECTOR = MiningIndicator

"""USAG001, indicator channel: the name, the command or the pool of a miner.

Looks at the executables on the device and at the entrypoint a job was submitted with. Independent of what the
device measures, so together with the telemetry channel it makes an incident. A name is easily changed: its
absence says nothing. What matched is reported by the indicator's name; the command itself is never stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

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
        for device in view.window.devices:
            names = [self._miner(use.name) for use in view.uses.get(device.key, ())]
            found = [f"process:{name}" for name in names if name]
            for lease in view.book.on(device.key, view.at_ns):
                found += [f"entrypoint:{name}" for name in self.indicators(lease.entrypoint)]
            if found:
                unique = sorted(set(found))
                yield Signal(
                    rule_id=self.rule_id,
                    kind=self.kind,
                    channel="indicator",
                    device=device.key,
                    score=900,
                    message=f"known mining indicators: {', '.join(unique)}",
                    evidence={"indicators": unique},
                    synthetic=device.synthetic,
                )

    def indicators(self, command: str) -> list[str]:
        """What marks ``command`` as a miner's: executables, ``pool`` for a protocol, option or address."""
        words = re.split(r"[\s'\"=;|&()<>]+", command)
        names = {name for word in words if (name := self._miner(word))}
        return sorted(names | ({"pool"} if POOL.search(command) else set()))

    def _miner(self, word: str) -> str:
        name = word.rsplit("/", 1)[-1].lower().removesuffix(".exe").removesuffix(".py")
        return name if name in MINERS or name in self.names else ""


DETECTOR = MiningIndicator

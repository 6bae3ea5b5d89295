"""The audit log: proving a million records, and one record; beside reading and hashing the same bytes.

Usage: python benchmarks/audit.py [--json FILE] [--records N] [--log FOLDER]

Records are decisions of the shipped policies (about 1.5 KB each), appended in batches as real ones are
(each batch forced to disk, the head signed). Peer: SHA-256 over the same files, which any proof must do at
least.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path
from typing import Any

from measure import Measure, in_child, report, spent

BATCH = 5000
WANTED = 1_000_000


def written(folder: Path, records: int) -> None:
    """A log of so many decisions."""
    from guard_core.attestation import Signer
    from guard_core.audit.decision_event import decision_event
    from guard_core.audit.log import AuditLog
    from guard_core.clock import new_id, system_clock
    from guard_core.findings import Enforcement
    from guard_core.policy.bundle import shipped_policies
    from guard_core.policy.decision import Decision
    from guard_core.policy.samples import read_samples

    signer = Signer.open(folder / "keys")
    log = AuditLog(folder / "audit", signer=lambda: signer)
    pool = [s for s in read_samples(shipped_policies()) if "compute/admission" in s.path]
    batch: list[dict[str, Any]] = []
    for number in range(records):
        sample = pool[number % len(pool)]
        decision = Decision(
            decision_id=new_id("dec"), path=sample.path, value={"allow": True, "deny": [], "hold": []},
            defined=True, error=None, revision="r", engine="embedded", enforcement=Enforcement.ENFORCED,
        )  # fmt: skip
        moment = system_clock()
        batch.append(
            decision_event(decision, question=sample.question, requested_by="x", subject="", moment=moment)
        )
        if len(batch) == BATCH or number == records - 1:
            log.append(batch)
            batch = []


def verified(folder: Path) -> dict[str, Any]:
    """What ``trainguard audit verify`` does."""
    from guard_core.audit.verify import verify

    with spent() as cost:
        found = verify(folder / "audit")
    if not found.ok:
        raise RuntimeError(str(found.problems[:1]))
    return {"cpu": cost.cpu_seconds, "wall": cost.wall_seconds, "records": found.records}


def proved(folder: Path, number: int) -> dict[str, Any]:
    """What ``trainguard audit prove`` does."""
    from guard_core.attestation import Verifier
    from guard_core.audit.proof import prove

    with spent() as cost:
        prove(folder / "audit", number, Verifier.of(folder / "keys"))
    return {"cpu": cost.cpu_seconds, "wall": cost.wall_seconds}


def hashed(folder: Path) -> dict[str, Any]:
    """SHA-256 of the same bytes."""
    with spent() as cost:
        for path in sorted((folder / "audit").glob("*.jsonl")):
            with path.open("rb") as file:
                hashlib.file_digest(file, "sha256")
    return {"cpu": cost.cpu_seconds, "wall": cost.wall_seconds}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--records", type=int, default=WANTED)
    parser.add_argument(
        "--log", type=Path, help="prove the log kept here (policy_changes.py --log), of N records"
    )
    arguments = parser.parse_args()
    records = arguments.records
    with tempfile.TemporaryDirectory() as name:
        folder = arguments.log or Path(name)
        writing = None if arguments.log else in_child(lambda: written(folder, records))
        size = sum(path.stat().st_size for path in (folder / "audit").glob("*.jsonl"))
        whole, peer = in_child(lambda: verified(folder)), in_child(lambda: hashed(folder))
        one = in_child(lambda: proved(folder, records // 2))
    cpu = whole.answer["cpu"] * WANTED / records
    scaled = "" if records == WANTED else f", scaled from {records:,}"
    peer_cpu = peer.answer["cpu"] * WANTED / records
    report(
        [
            Measure("log", size / 2**20, "MiB"),
            *(
                [Measure("append, batches of 5,000", records / writing.cpu_seconds, "records/CPU-s")]
                if writing
                else []
            ),
            Measure(
                f"audit verify, 1 M records{scaled}: CPU",
                cpu,
                "s",
                "sha256 of the files",
                peer_cpu,
                cpu / peer_cpu,
                "< 30",
                cpu < 30,
            ),
            Measure("audit verify: wall as run", whole.answer["wall"], "s"),
            Measure("audit verify: peak memory", whole.peak_bytes / 2**20, "MiB"),
            Measure("audit prove, the middle record: CPU", one.answer["cpu"], "s"),
        ],
        arguments.json,
    )


if __name__ == "__main__":
    main()

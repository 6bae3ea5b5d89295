"""dataset_guard: what a dataset is, what is wrong with it, and whether it is still the same.

::

    import dataset_guard

    dataset_guard.fingerprint("digits.parquet").fingerprint        # dg1:...
    report = dataset_guard.register("digits.parquet", name="digits", label="label", split="train")
    dataset_guard.verify("digits@1").ok
    for batch in dataset_guard.read("digits@1").batches(): ...

Importing this package imports nothing heavy: each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_guard import ray_data as ray_data
    from dataset_guard.changes.diff import diff as diff
    from dataset_guard.changes.verify import verify as verify
    from dataset_guard.proofs.proof_bundle import check_proofs as check_proofs
    from dataset_guard.proofs.proof_bundle import prove_rows as prove_rows
    from dataset_guard.proofs.prove import check_proof as check_proof
    from dataset_guard.proofs.prove import prove as prove
    from dataset_guard.reading.places import place_of as place_of
    from dataset_guard.reads.verified_read import read as read
    from dataset_guard.registration.register import register as register
    from dataset_guard.registration.register import scan as scan
    from dataset_guard.registration.report import Report as Report
    from dataset_guard.registry.clean import clean as clean
    from dataset_guard.registry.lineage import lineage as lineage
    from dataset_guard.scanning.identity import fingerprint as fingerprint
    from dataset_guard.validation import Validation as Validation
    from dataset_guard.validation import suggest_suite as suggest_suite
    from dataset_guard.validation import validate as validate

__all__ = [
    "Report",
    "Validation",
    "check_proof",
    "check_proofs",
    "clean",
    "diff",
    "fingerprint",
    "lineage",
    "place_of",
    "prove",
    "prove_rows",
    "ray_data",
    "read",
    "register",
    "scan",
    "suggest_suite",
    "validate",
    "verify",
]

_HOME_OF = {
    "Report": "registration.report",
    "check_proof": "proofs.prove",
    "check_proofs": "proofs.proof_bundle",
    "clean": "registry.clean",
    "diff": "changes.diff",
    "fingerprint": "scanning.identity",
    "lineage": "registry.lineage",
    "place_of": "reading.places",
    "prove": "proofs.prove",
    "prove_rows": "proofs.proof_bundle",
    "read": "reads.verified_read",
    "register": "registration.register",
    "scan": "registration.register",
    "suggest_suite": "validation",
    "validate": "validation",
    "Validation": "validation",
    "verify": "changes.verify",
}


def __getattr__(name: str) -> Any:
    if name == "ray_data":
        return import_module("dataset_guard.ray_data")
    if name not in _HOME_OF:
        raise AttributeError(f"module 'dataset_guard' has no attribute {name!r}")
    from dataset_guard.scanning.batch_memory import memory_for_batches

    with memory_for_batches():
        return getattr(import_module(f"dataset_guard.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

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

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dataset_guard import ray_data as ray_data
    from dataset_guard.clean import clean as clean
    from dataset_guard.diff import diff as diff
    from dataset_guard.identity import fingerprint as fingerprint
    from dataset_guard.lineage import lineage as lineage
    from dataset_guard.proof_bundle import check_proofs as check_proofs
    from dataset_guard.proof_bundle import prove_rows as prove_rows
    from dataset_guard.prove import check_proof as check_proof
    from dataset_guard.prove import prove as prove
    from dataset_guard.reading.places import place_of as place_of
    from dataset_guard.register import register as register
    from dataset_guard.register import scan as scan
    from dataset_guard.report import Report as Report
    from dataset_guard.validation import Validation as Validation
    from dataset_guard.validation import suggest_suite as suggest_suite
    from dataset_guard.validation import validate as validate
    from dataset_guard.verified_read import read as read
    from dataset_guard.verify import verify as verify

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
    "Report": "report",
    "check_proof": "prove",
    "check_proofs": "proof_bundle",
    "clean": "clean",
    "diff": "diff",
    "fingerprint": "identity",
    "lineage": "lineage",
    "place_of": "reading.places",
    "prove": "prove",
    "prove_rows": "proof_bundle",
    "read": "verified_read",
    "register": "register",
    "scan": "register",
    "suggest_suite": "validation",
    "validate": "validation",
    "Validation": "validation",
    "verify": "verify",
}


class _Package(ModuleType):
    """This package: ``dataset_guard.verify`` is the function, although a module has the same name.

    Python sets a submodule as an attribute of its package when it is first imported, which would hide the
    function of that name from then on.
    """

    def __getattr__(self, name: str) -> Any:
        if name == "ray_data":
            return import_module("dataset_guard.ray_data")
        if name not in _HOME_OF:
            raise AttributeError(f"module 'dataset_guard' has no attribute {name!r}")
        return getattr(import_module(f"dataset_guard.{_HOME_OF[name]}"), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME_OF and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package

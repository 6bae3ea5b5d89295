"""The data a question is about, and what a job brings along, changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from guard_core.policy.move import Json, Move, at, setting


def fields(question: Mapping[str, Any]) -> Iterator[Move]:
    """Leave a field out of the runtime environment."""
    for parent in ("workload", "task"):
        given = at(question, parent, "runtime_env_fields")
        for field in given if isinstance(given, list) else ():

            def apply(copy: Json, parent: str = parent, field: Any = field) -> None:
                kept = [f for f in copy[parent]["runtime_env_fields"] if f != field]
                copy[parent]["runtime_env_fields"] = kept

            yield Move(f"field {field}", f"leave {field} out of the runtime environment", apply)


def datasets(question: Mapping[str, Any]) -> Iterator[Move]:
    """Do without a dataset, or have what is wrong with it put right."""
    tenant = at(question, "principal", "tenant")
    if isinstance(question.get("dataset"), dict):
        ref, declared = question["dataset"].get("ref"), at(question, "principal", "datasets")
        if at(question, "principal", "kind") == "job" and isinstance(declared, list) and ref not in declared:
            declare = setting("principal", "datasets", [*declared, ref])
            yield Move("declared", f"submit the job with {ref} among its datasets", declare)
        yield from _fact(question["dataset"], lambda copy: copy["dataset"], tenant)
    facts = at(question, "workload", "datasets")
    for fact in facts if isinstance(facts, list) else ():
        if not isinstance(fact, dict):
            continue
        name, ref = _named(fact), fact.get("ref")

        def leave_out(copy: Json, ref: Any = ref) -> None:
            job = copy["workload"]
            job["datasets"] = [f for f in job["datasets"] if not isinstance(f, dict) or f.get("ref") != ref]
            if isinstance(job.get("declared"), list):
                job["declared"] = job["declared"][: len(job["datasets"])]

        def same(copy: Json, ref: Any = ref) -> Json:
            known = (f for f in copy["workload"]["datasets"] if isinstance(f, dict) and f.get("ref") == ref)
            return next(known, {})  # left out by another move

        yield Move(f"dataset {name}", f"run without {name}", leave_out)
        yield from _fact(fact, same, tenant)


def _fact(fact: Mapping[str, Any], place: Callable[[Json], Json], tenant: Any) -> Iterator[Move]:
    name = _named(fact)

    def move(sentence: str, **values: Any) -> Move:
        return Move(f"{name} {min(values)}", sentence, lambda copy: place(copy).update(values))

    if "exists" not in fact:
        return  # a description of data that is to be registered
    if fact["exists"] is not True:
        known = {"exists": True, "tenant": tenant, "record_ok": True, "tampered": False, "signed": True}
        yield move(f"register {name}, with the verdict allow", **known, verdict="allow")
        return
    if fact.get("tampered") is not False or fact.get("record_ok") is not True:
        restored = {"tampered": False, "record_ok": True, "signed": True}
        yield move(f"have the registered data and record of {name} restored", **restored)
        anew = f"register {name} anew"
        if fact.get("problem"):
            anew = f"have {name} endorsed, if its key was revoked, or registered anew"
        yield move(f"{anew}, with the verdict allow", **restored, verdict="allow")
    elif fact.get("signed") is not True:
        yield move(f"have {name} registered again, signed", signed=True)
    if fact.get("tenant") != tenant:
        shared = fact.get("shared_with")
        with_us = [*(shared if isinstance(shared, list) else ()), tenant]
        yield move(f"have {fact.get('tenant')} share {name} with {tenant}", shared_with=with_us)
    if fact.get("verdict") != "allow":
        said = f"have {name}, now {fact.get('verdict')}, corrected and registered with the verdict "
        yield move(f"{said}allow", verdict="allow")
        if fact.get("verdict") != "warn":
            yield move(f"{said}warn", verdict="warn")
    rules = fact.get("critical_rules")
    if fact.get("verdict") == "quarantine" and isinstance(rules, list) and rules:
        end = {"author": "one person", "approver": "another", "expires_ns": 2**63 - 1}
        waived = [{"rule_id": rule, **end} for rule in rules]
        yield move(f"have {', '.join(map(str, rules))} on {name} waived by two people", waived=waived)


def _named(fact: Mapping[str, Any]) -> str:
    return f"dataset {fact.get('ref') or '(without a reference)'}"

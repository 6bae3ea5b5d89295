"""What the gates read in a runtime environment: the job's credential, and which fields are in use. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from compute_guard.ray_plugin.gates.wire import Refusal
from guard_core.identity import TOKEN

CREDENTIAL = "TRAINGUARD_TOKEN"
GIVEN = frozenset({CREDENTIAL, "TRAINGUARD_HOME"})
"""Variables that admission itself puts into every job's environment."""
_EMPTY: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Brought:
    """What a lease's runtime environment brings: the job's credential, and the fields in use."""

    credential: str
    fields: tuple[str, ...]


@lru_cache(2_000)
def brought_by(serialized: str) -> Brought:
    """What is read of a runtime environment, Ray's JSON text. Raises Refusal for text that is none."""
    environment = environment_of(serialized)
    return Brought(credential_in(environment), fields_of(environment))


def environment_of(serialized: str) -> Mapping[str, Any]:
    """A runtime environment from Ray's JSON text. Raises Refusal for text that is none."""
    if not serialized or serialized == "{}":
        return _EMPTY
    try:
        environment = json.loads(serialized)
    except ValueError as error:
        raise Refusal(f"the runtime environment cannot be read: {error}") from error
    if not isinstance(environment, dict):
        raise Refusal("the runtime environment is no object")
    return environment


def credential_in(environment: Mapping[str, Any]) -> str:
    """The job credential a runtime environment carries; empty without one."""
    variables = environment.get("env_vars")
    token = variables.get(CREDENTIAL, "") if isinstance(variables, Mapping) else ""
    return token if isinstance(token, str) else ""


def credential_id(token: str) -> str:
    """The public part of a credential; empty for what is none."""
    found = TOKEN.fullmatch(token)
    return found[1] if found else ""


def fields_of(environment: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the fields in use, and ``env_vars.NAME`` for each variable a person set."""
    fields = {str(name) for name, value in environment.items() if value and not str(name).startswith("_ray")}
    variables = environment.get("env_vars")
    if isinstance(variables, Mapping):
        fields |= {f"env_vars.{name}" for name in variables if name not in GIVEN}
        if not set(variables) - GIVEN:
            fields.discard("env_vars")
    return tuple(sorted(fields))

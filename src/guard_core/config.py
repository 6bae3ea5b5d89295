"""Settings: defaults, then a YAML file, then ``TRAINGUARD_*`` variables, then options. Later wins.

The file is ``$TRAINGUARD_CONFIG``, else ``<home>/config.yaml``. A key that means nothing is an error that
names it, because a misspelt security setting must not be ignored. Every value remembers where it came
from (``trainguard config show``). Variables are the key's path in capitals: ``policy.server_url`` is
``TRAINGUARD_POLICY_SERVER_URL``.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, field_validator

from guard_core.errors import UserError

PREFIX = "TRAINGUARD_"
DEFAULT_HOME = ".trainguard"
CONFIG_FILE = "config.yaml"
NOT_SETTINGS = frozenset({"CONFIG", "OPA", "READS", "READS_CA"})
"""Variables with our prefix that are no settings: the file's own place, the OPA binary of the tests, and
where a job that may not see the home asks for what it reads."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PolicySettings(_Section):
    """Which policy engine answers, and with which policies."""

    engine: Literal["embedded", "server"] = "embedded"
    dir: Path | None = Field(default=None, description="folder of policies; empty = the shipped ones")
    server_url: str = "http://127.0.0.1:8181"
    server_token_file: Path | None = Field(
        default=None, description="file with the OPA server's bearer token"
    )
    server_ca_file: Path | None = Field(default=None, description="PEM; empty = the machine's authorities")
    server_client_cert: Path | None = Field(
        default=None, description="PEM certificate we prove ourselves with"
    )
    server_client_key: Path | None = Field(default=None, description="PEM key of server_client_cert")
    deadline_ms: int = Field(default=250, ge=1, le=60_000)


class AuditSettings(_Section):
    """What the audit log keeps."""

    mask_on_write: bool = Field(
        default=False,
        description="decisions are written without what guard/audit/mask hides; replay cannot know it then",
    )


class OidcSettings(_Section):
    """An identity provider whose tokens count beside the credentials issued here; off without an issuer."""

    issuer: str | None = Field(default=None, description="the `iss` that tokens must have")
    audience: str | None = Field(default=None, description="the `aud` that tokens must have")
    jwks: str | None = Field(default=None, description="the provider's key set: a file or an https URL")
    tenant_claim: str = Field(default="tenant", description="the claim that names the tenant")
    tenant_map: dict[str, str] = Field(default={}, description="tenant by that claim's value")
    user_claim: str = Field(default="sub", description="the claim that names the user")
    roles_claim: str | None = Field(default=None, description="the claim that lists roles; empty = none")
    admin_role: str | None = Field(default=None, description="the role there that makes a platform-admin")

    @field_validator("tenant_map", mode="before")
    @classmethod
    def _from_variable(cls, value: object) -> object:
        return json.loads(value) if isinstance(value, str) else value


class Settings(_Section):
    """All settings of one TRAINGUARD_HOME. Immutable, picklable; ``home`` is absolute."""

    home: Path
    policy: PolicySettings = PolicySettings()
    audit: AuditSettings = AuditSettings()
    oidc: OidcSettings = OidcSettings()
    storage_url: str | None = Field(default=None, description="database URL; empty = SQLite in the home")
    token: SecretStr | None = Field(default=None, description="credential; empty = the home's local token")
    signing_key: Path | None = Field(
        default=None, description="Ed25519, P-256 or P-384 key (PEM); empty = made in the home"
    )
    signing_key_pem: SecretStr | None = Field(default=None, description="the key itself instead of its file")


SECRET_KEYS = frozenset({"token", "signing_key_pem"})
"""Settings that ``config show`` masks (of a database URL, the password)."""


def load_settings(**overrides: Any) -> Settings:
    """The settings in force. ``overrides`` are settings (``home``, ``policy={...}``) and ``config``.

    Raises UserError naming the key, and where it was given, when a value cannot be used.
    """
    return load_settings_with_origins(**overrides)[0]


def load_settings_with_origins(**overrides: Any) -> tuple[Settings, dict[str, str]]:
    """As :func:`load_settings`, with each key's origin: ``default``, a file, a variable or ``option``."""
    config = overrides.pop("config", None)
    layers: list[tuple[str, Any, str]] = []  # (dotted key, value, origin), weakest first
    named = config or os.environ.get(PREFIX + "CONFIG")
    environment = list(_environment())
    if named:
        file = Path(named).expanduser().absolute()
        if not _is_file(file):
            raise UserError(
                f"the configuration file {file} does not exist; create it or unset TRAINGUARD_CONFIG"
            )
    else:
        asked = overrides.get("home") or {k: v for k, v, _ in environment}.get("home") or DEFAULT_HOME
        file = _path(asked) / CONFIG_FILE
    if _is_file(file):
        layers += _flatten(_read_yaml(file), f"file {file}")
    layers += environment
    layers += _flatten({k: v for k, v in overrides.items() if v is not None}, "option")
    values: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for key, value, origin in layers:
        if key not in _FIELDS:
            raise UserError(f"unknown setting {key!r} in {origin}{_suggest(key)}")
        values[key], origins[key] = (
            _from_file(key, value, file if origin.startswith("file ") else None),
            origin,
        )
    values.setdefault("home", DEFAULT_HOME)
    values["home"] = _path(values["home"])
    try:
        settings = Settings.model_validate(_nest(values))
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"setting {key!r} from {origins.get(key, 'default')} cannot be used: {first['msg'].lower()}"
        ) from None
    _require_whole_provider(settings.oidc, origins)
    return settings, {key: origins.get(key, "default") for key in _FIELDS}


def _require_whole_provider(oidc: OidcSettings, origins: Mapping[str, str]) -> None:
    """An identity provider that is half configured would be off, or break the first token shown."""
    off = OidcSettings()
    given = [name for name in OidcSettings.model_fields if getattr(oidc, name) != getattr(off, name)]
    missing = [name for name in ("issuer", "audience", "jwks") if not getattr(oidc, name)]
    if given and missing:
        key = f"oidc.{given[0]}"
        origin = origins.get(key, "default")
        raise UserError(
            f"setting 'oidc.{missing[0]}' is missing: {key!r} is given in {origin}, and an identity provider "
            "needs issuer, audience and jwks; see docs/admin/compute.md"
        )


def flat(settings: Settings) -> dict[str, Any]:
    """Every setting by its dotted key, in declaration order, secrets still wrapped."""
    values: dict[str, Any] = {}
    for key in _FIELDS:
        node: Any = settings
        for part in key.split("."):
            node = getattr(node, part)
        values[key] = node
    return values


def unknown_variables() -> list[str]:
    """``TRAINGUARD_*`` variables that are no settings and were not refused: for ``trainguard doctor``."""
    known = {_variable(key) for key in _FIELDS} | {PREFIX + name for name in NOT_SETTINGS}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def _field_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, _Section):
            yield from _field_names(kind, f"{prefix}{name}.")
        else:
            yield prefix + name


_FIELDS = tuple(_field_names(Settings))
_SECTIONS = {key.split(".")[0] for key in _FIELDS if "." in key}


def _variable(key: str) -> str:
    return PREFIX + key.replace(".", "_").upper()


def _environment() -> Iterator[tuple[str, Any, str]]:
    keys = {_variable(key): key for key in _FIELDS}
    for name in sorted(n for n in os.environ if n.startswith(PREFIX)):
        if name in keys:
            if os.environ[name] != "":
                yield keys[name], os.environ[name], f"environment {name}"
        elif name.removeprefix(PREFIX) not in NOT_SETTINGS:
            near = difflib.get_close_matches(name, keys, n=1, cutoff=0.85)
            section = any(name.startswith(f"{PREFIX}{s.upper()}_") for s in _SECTIONS)
            if near or section:
                hint = f"; did you mean {near[0]}?" if near else "; see: trainguard config show"
                raise UserError(f"the environment variable {name} is not a setting{hint}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        raise UserError(
            f"the configuration file {path} cannot be looked at ({error.strerror}); mend its permissions"
        ) from None


def _read_yaml(file: Path) -> Mapping[str, Any]:
    import yaml

    try:
        value = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{file} line {line} is not valid YAML: {error.problem}") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"the configuration file {file} cannot be read: {error}") from None
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise UserError(f"{file} must be a mapping of settings, got {type(value).__name__}")
    return value


def _flatten(value: Mapping[str, Any], origin: str, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    for name, item in value.items():
        key = f"{prefix}{name}"
        if isinstance(item, BaseModel):
            item = item.model_dump()
        if key in _SECTIONS:
            if not isinstance(item, Mapping):
                raise UserError(f"setting {key!r} in {origin} must be a mapping, got {type(item).__name__}")
            yield from _flatten(item, origin, f"{key}.")
        else:
            yield key, item, origin


def _from_file(key: str, value: Any, file: Path | None) -> Any:
    """A relative path in a file is relative to that file; ``~`` is the user's home everywhere."""
    if key not in _PATHS or value is None or not isinstance(value, str | Path):
        return value
    path = Path(value).expanduser()
    return path if file is None else file.parent / path


_PATHS = frozenset(
    {"home", "policy.dir", "signing_key"}
    | {f"policy.server_{name}" for name in ("token_file", "ca_file", "client_cert", "client_key")}
)


def _nest(values: Mapping[str, Any]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for key, value in values.items():
        *parents, leaf = key.split(".")
        node = nested
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = value
    return nested


def _path(value: str | Path) -> Path:
    return Path(value).expanduser().absolute()


def _suggest(key: str) -> str:
    near = difflib.get_close_matches(key, _FIELDS, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; known settings: {', '.join(_FIELDS)}"

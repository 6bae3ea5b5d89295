"""A bundle: Rego modules and policy data read from one directory, immutable, named by its content.

Directory layout (``opa_policies`` is the shipped one)::

    .manifest                           OPA's bundle manifest: roots and Rego version
    guard/<area>/<decision>/x.rego      the policies; x_test.rego beside them
    data/<stem>.yaml                    what admins edit: appears to Rego as data.guard.config.<stem>
    data/schemas/<stem>.schema.json     what such a file must look like

``revision`` is ``sha256:<64 hex>`` over the modules and the data, tests and comments in data excluded,
so the same policy has the same revision on every machine. A broken file refuses the whole bundle.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any
from zoneinfo import available_timezones

from guard_core.errors import UserError
from guard_core.policy.data_yaml import Document, Field, read_document

BUNDLE_NAME = "guard"
ROOTS = ("guard",)
MAX_MODULE_BYTES = 1 << 20
_DATA_SUFFIXES = (".yaml", ".yml", ".json")
_SCHEMA_SUFFIX = ".schema.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """Modules and data in force together. ``modules`` and ``tests`` map a relative path to Rego text."""

    revision: str
    modules: Mapping[str, str]
    tests: Mapping[str, str]
    config: Mapping[str, Any]
    data_json: str = field(repr=False)
    source: str = ""

    @property
    def manifest(self) -> dict[str, Any]:
        """OPA's ``.manifest`` for this bundle."""
        return {"revision": self.revision, "roots": list(ROOTS), "rego_version": 1}


def shipped_policies() -> Path:
    """The policies that come with TrainGuard: inside the wheel, or ``opa_policies`` of a source checkout."""
    package = Path(__file__).resolve().parent.parent
    packaged = package / "_opa_policies"
    return packaged if packaged.is_dir() else package.parent.parent / "opa_policies"


def make_bundle(
    modules: Mapping[str, str],
    config: Mapping[str, Any],
    *,
    tests: Mapping[str, str] | None = None,
    source: str = "",
) -> Bundle:
    """A bundle of values already checked. ``config`` becomes ``data.guard.config``."""
    data_json = json.dumps({"guard": {"config": config}}, ensure_ascii=False, allow_nan=False, sort_keys=True)
    digest = hashlib.sha256(b"trainguard-bundle-1\0")
    for name in sorted(modules):
        digest.update(f"{len(name)}:{name}".encode())
        digest.update(hashlib.sha256(modules[name].encode()).digest())
    digest.update(hashlib.sha256(data_json.encode()).digest())
    return Bundle(
        revision=f"sha256:{digest.hexdigest()}",
        modules=MappingProxyType(dict(sorted(modules.items()))),
        tests=MappingProxyType(dict(sorted((tests or {}).items()))),
        config=MappingProxyType(dict(config)),
        data_json=data_json,
        source=source,
    )


def load_bundle(directory: Path) -> Bundle:
    """Read and check a policy directory. Raises UserError naming file, line and field of the first fault."""
    if not directory.is_dir():
        what = "is not a directory" if directory.exists() else "does not exist"
        raise UserError(f"policy directory {directory} {what}; set policy.dir or TRAINGUARD_POLICY_DIR")
    modules, tests = _read_modules(directory)
    if not modules:
        raise UserError(
            f"policy directory {directory} holds no .rego file; point policy.dir at a whole policy set"
        )
    return make_bundle(modules, load_config(directory / "data"), tests=tests, source=str(directory))


def undecided(bundle: Bundle, shipped: Bundle) -> tuple[str, ...]:
    """Folders with rules in ``shipped`` and none in ``bundle``: questions it leaves without an answer.

    A folder is a package (the gate sees to that), and a package is a question. A question without an answer
    is denied, which is safe, and a surprise to whoever deleted or misspelt a folder.
    """
    folders = {name.rpartition("/")[0] for name in bundle.modules}
    return tuple(sorted({name.rpartition("/")[0] for name in shipped.modules} - folders))


def write_bundle(bundle: Bundle, directory: Path) -> Path:
    """Write ``bundle`` as a directory for ``opa run --server --bundle``: policies, data, manifest.

    ``directory`` must not exist yet; it appears complete or not at all.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, text in bundle.modules.items():
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            (partial / name).write_text(text, encoding="utf-8")
        (partial / "data.json").write_text(bundle.data_json, encoding="utf-8")
        (partial / ".manifest").write_text(json.dumps(bundle.manifest), encoding="utf-8")
        partial.chmod(0o755)
        partial.rename(directory)
    except OSError as exc:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(
            f"bundle directory {directory} cannot be written ({exc.strerror}); choose another"
        ) from exc
    return directory


def _read_modules(directory: Path) -> tuple[dict[str, str], dict[str, str]]:
    modules: dict[str, str] = {}
    tests: dict[str, str] = {}
    for path in sorted(directory.rglob("*.rego")):
        name = path.relative_to(directory).as_posix()
        if any(part.startswith(".") for part in Path(name).parts):
            continue
        try:
            raw = path.read_bytes()
            text = raw.decode("utf-8")
        except UnicodeDecodeError as exc:
            raise UserError(f"{path}: byte {exc.start} is not UTF-8 text; save the file as UTF-8") from exc
        except OSError as exc:
            raise UserError(f"{path}: cannot be read ({exc.strerror}); check its permissions") from exc
        if len(raw) > MAX_MODULE_BYTES:
            raise UserError(f"{path}: {len(raw)} bytes of Rego; split it (the limit is {MAX_MODULE_BYTES})")
        (tests if name.endswith("_test.rego") else modules)[name] = text
    return modules, tests


def load_config(directory: Path) -> dict[str, Any]:
    """Every data file of ``directory`` under its stem, each checked against its JSON schema."""
    if not directory.is_dir():
        raise UserError(
            f"policy data directory {directory} does not exist; copy the shipped data/ there and edit it"
        )
    schemas = _schemas(directory / "schemas")
    config: dict[str, Any] = {}
    for path in sorted(p for p in directory.iterdir() if p.is_file() and p.suffix in _DATA_SUFFIXES):
        if path.stem in config:
            raise UserError(
                f"{path}: {path.stem} is given twice, in YAML and in JSON; keep one of the two files"
            )
        if path.stem not in schemas:
            known = ", ".join(sorted(schemas))
            raise UserError(
                f"{path}: no schema data/schemas/{path.stem}.schema.json; known data files: {known}"
            )
        document = read_document(path)
        _check_once(document, schemas[path.stem])
        config[path.stem] = document.value
    missing = sorted(set(schemas) - set(config))
    if missing:
        raise UserError(
            f"{directory / (missing[0] + '.yaml')}: missing; copy the shipped file there and edit it"
        )
    return config


def read_data(path: Path, stem: str) -> Any:
    """One data file by itself (``stem`` is its kind: ``quotas``), checked against the shipped schema."""
    document = read_document(path)
    _check_once(document, _schemas(path.parent / "schemas")[stem])
    return document.value


_valid: set[bytes] = set()
"""Digests of documents with the schemas that took them."""
_VALID_KEPT = 1024


def _check_once(document: Document, schema: str) -> None:
    """:func:`check_schema`, unless the same values were taken before: every opening of a home asks."""
    digest = hashlib.sha256(f"{schema}\0{json.dumps(document.value)}".encode()).digest()
    if digest not in _valid:
        check_schema(document, _validator(schema))
        if len(_valid) >= _VALID_KEPT:
            _valid.clear()
        _valid.add(digest)


def _schemas(directory: Path) -> dict[str, str]:
    """The directory's own schemas over the shipped ones: code relies on the shipped shapes being there."""
    shipped = shipped_policies() / "data" / "schemas"
    found: dict[str, str] = {}
    for place in (shipped, directory):
        for path in sorted(place.glob(f"*{_SCHEMA_SUFFIX}")) if place.is_dir() else ():
            stem, text = path.name.removesuffix(_SCHEMA_SUFFIX), path.read_text(encoding="utf-8")
            if text != found.get(stem):
                # That those as shipped are schemas is tested: seeing to it took 0.2 s of every command.
                _require_schema(path, text, json_only=place == shipped)
                found[stem] = text
    return found


def _require_schema(path: Path, text: str, *, json_only: bool) -> None:
    """Raise UserError for what is no JSON schema."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    try:
        schema = json.loads(text)
        if not json_only:
            Draft202012Validator.check_schema(schema)
    except (json.JSONDecodeError, SchemaError) as exc:
        raise UserError(f"{path}: not a valid JSON schema ({exc})") from exc


@lru_cache(maxsize=64)
def _validator(schema: str) -> Any:
    # jsonschema costs 60 ms to import: only when a bundle is read
    from jsonschema import Draft202012Validator, FormatChecker

    formats = FormatChecker(formats=())
    formats.checks("instant", raises=ValueError)(_is_instant)
    formats.checks("time-zone", raises=ValueError)(_is_time_zone)
    return Draft202012Validator(json.loads(schema), format_checker=formats)


def _is_instant(value: object) -> bool:
    """``2027-01-31T00:00:00Z`` that exists: Rego would fail on any other, and every decision with it."""
    if isinstance(value, str):
        moment = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        return 1970 <= moment.year < 2262  # nanoseconds since 1970 in 64 bits
    return True


def _is_time_zone(value: object) -> bool:
    """A zone name of the tz database."""
    return not isinstance(value, str) or value in _time_zones()


_time_zones = cache(available_timezones)  # it walks through the whole database


def check_schema(document: Document, validator: Any) -> None:
    """Raise UserError for the first violation in file order, naming file, line, field and remedy."""
    errors = list(validator.iter_errors(document.value))
    if not errors:
        return
    # An unknown key comes first: it is usually the misspelling of the key that is then missed.
    first = min(errors, key=lambda e: (e.validator != "additionalProperties", _line(document, _field_of(e))))
    field_path, message = _field_of(first), first.message
    more = f" ({len(errors) - 1} more)" if len(errors) > 1 else ""
    raise document.error(field_path, f"{message}{more}")


def _field_of(error: Any) -> Field:
    """Where a violation stands; for an unknown key, that key rather than the mapping around it."""
    field_path: Field = tuple(error.absolute_path)
    if error.validator == "additionalProperties" and isinstance(error.validator_value, bool):
        unknown = sorted(set(error.instance) - set(error.schema.get("properties", ())))
        return (*field_path, *unknown[:1])
    if error.validator == "anyOf" and error.context:
        return min((tuple(e.absolute_path) for e in error.context), key=len)
    return field_path


def _line(document: Document, field_path: Field) -> int:
    while field_path and field_path not in document.lines:
        field_path = field_path[:-1]
    return document.lines.get(field_path, 0)

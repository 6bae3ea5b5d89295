"""What ``trainguard doctor`` looks at in the kernel. Each probe takes the settings and changes nothing."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from guard_core.audit.segments import segments
from guard_core.clock import system_clock
from guard_core.config import Settings, unknown_variables
from guard_core.counting import counted
from guard_core.doctor import Probe
from guard_core.errors import GuardError, MissingExtra
from guard_core.identity import LOCAL_TOKEN
from guard_core.storage import Storage
from guard_core.storage.database import SCHEMA_VERSION

QUICK_AUDIT_BYTES = 256 * 1024 * 1024
PYTHONS = ((3, 11), (3, 14))
EXTRA_HOSTS = {
    "mlflow": "mlflow",
    "great_expectations": "gx",
    "ray": "ray",
    "sklearn": "labels",
}


def packages(settings: Settings) -> Iterator[Probe]:  # noqa: ARG001 - every probe has this form
    """Python, TrainGuard and each required package, with versions."""
    here = ".".join(map(str, sys.version_info[:3]))
    if PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:
        yield Probe("python", "version", "ok", here)
    else:
        yield Probe(
            "python", "version", "broken", f"{here} is not supported", "use Python 3.11, 3.12 or 3.13"
        )
    try:
        ours = distribution("trainguard")
    except PackageNotFoundError:
        remedy = "run: pip install trainguard (or pip install -e . in a checkout)"
        yield Probe(
            "package", "trainguard", "broken", "is not installed, so no plug-in is registered", remedy
        )
        return
    yield Probe("package", "trainguard", "ok", ours.version)
    for requirement in ours.requires or []:
        yield from _requirement(requirement)


def _requirement(text: str) -> Iterator[Probe]:
    name = re.split(r"[\s<>=!~;\[(]", text, maxsplit=1)[0]
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)", text)
    if name == "trainguard" or (extra and extra[1] == "all"):
        return
    try:
        found = version(name)
    except PackageNotFoundError:
        if extra:
            remedy = f'run: pip install "trainguard[{extra[1]}]"'
            yield Probe("package", name, "info", "is not installed (optional)", remedy)
        else:
            yield Probe("package", name, "broken", "is not installed", "run: pip install trainguard")
        return
    wanted = _wanted(text)
    if wanted is None or wanted.contains(found, prereleases=True):
        yield Probe("package", name, "ok", found)
    else:
        yield Probe(
            "package",
            name,
            "broken",
            f"{found} does not satisfy {wanted}",
            f'run: pip install "{name}{wanted}"',
        )


def _wanted(text: str) -> Any:
    try:
        from packaging.requirements import Requirement
    except ImportError:  # comes with every host we plug into, but is no dependency of ours
        return None
    return Requirement(text).specifier


def environment(settings: Settings) -> Iterator[Probe]:
    """The settings in force, and variables that look like settings but are none."""
    yield Probe("settings", "home", "ok", str(settings.home))
    for name in unknown_variables():
        yield Probe(
            "settings",
            name,
            "info",
            "is set but is no setting of the kernel",
            f"unset {name} if it is misspelt",
        )


def home(settings: Settings) -> Iterator[Probe]:
    """The home directory and the permissions of what must stay private."""
    root = settings.home
    if not root.exists():
        yield Probe("home", "directory", "info", f"{root} does not exist yet; it is made at first use")
        return
    yield _private(root, 0o700, "directory")
    for path in (root / "credentials" / LOCAL_TOKEN, settings.signing_key or root / "keys" / "signing.key"):
        if path.exists():
            yield _private(path, 0o600, path.name)
    for path in (root / "credentials", root / "keys"):
        if path.exists():
            yield _private(path, 0o700, path.name)


def _private(path: Path, mode: int, name: str) -> Probe:
    found = path.stat().st_mode & 0o777
    if found & 0o077:
        message = f"{path} has mode {found:o}: other users of this machine can get at it"
        return Probe("home", name, "broken", message, f"run: chmod {mode:o} {path}")
    return Probe("home", name, "ok", f"{path} is private (mode {found:o})")


def storage(settings: Settings) -> Iterator[Probe]:
    """The database: reachable, migrated, undamaged."""
    database = Storage.in_home(settings.home, settings.storage_url)
    kind = "sqlite" if database.is_sqlite else "postgresql"
    if database.is_sqlite and not database.sqlite_path.exists():
        yield Probe(
            "storage", kind, "info", f"{database.safe_url} does not exist yet; it is made at first use"
        )
        return
    try:
        found = database.schema_version()
        if found == SCHEMA_VERSION:
            yield Probe("storage", kind, "ok", f"{database.safe_url}, schema {found}")
        elif found is None or found < SCHEMA_VERSION:
            message = f"{database.safe_url} has schema {found}; the next use migrates it to {SCHEMA_VERSION}"
            yield Probe("storage", kind, "info", message)
        else:
            message = f"{database.safe_url} has schema {found}, newer than {SCHEMA_VERSION}"
            yield Probe("storage", kind, "broken", message, "upgrade trainguard")
        if database.is_sqlite:
            yield from _sqlite(database)
    except GuardError as error:
        yield Probe("storage", kind, "broken", str(error), "do what the message says")
    finally:
        database.close()


def _sqlite(database: Storage) -> Iterator[Probe]:
    import sqlite3

    try:
        with closing(sqlite3.connect(f"file:{database.sqlite_path}?mode=ro", uri=True)) as connection:
            said = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    except sqlite3.Error as error:
        said = str(error)
    if said == "ok":
        yield Probe("storage", "integrity", "ok", "SQLite's quick_check finds no damage")
    else:
        yield Probe(
            "storage", "integrity", "broken", f"SQLite finds damage: {said}", "restore the file from a backup"
        )


def audit(settings: Settings) -> Iterator[Probe]:
    """The audit log: whole, and signed up to its end."""
    from guard_core.audit.verify import verify

    folder = settings.home / "audit"
    size = sum(path.stat().st_size for path in segments(folder))
    begun = (settings.home / "keys" / "audit.anchor").exists()
    if not size and not begun:
        yield Probe("audit", "log", "info", f"{folder} has no records yet")
        return
    if size > QUICK_AUDIT_BYTES:
        message = f"{folder} has {size >> 20} MiB: too much for a quick look"
        yield Probe("audit", "log", "info", message, "run: trainguard audit verify")
        return
    report = verify(folder)
    if report.ok:
        torn = f"; {report.torn_bytes} torn bytes will be repaired" if report.torn_bytes else ""
        yield Probe("audit", "log", "ok", f"{report.records} records, {report.signed} signed, whole{torn}")
    for problem in report.problems:
        remedy = "find out who changed it, then run: trainguard audit restart --reason ..."
        yield Probe("audit", "log", "broken", problem.message, remedy)


def policy(settings: Settings) -> Iterator[Probe]:
    """The policy engine in use, asked whether it is well."""
    from guard_core.policy.engine import make_engine

    try:
        engine = make_engine(settings)
        problems = list(engine.health())
    except GuardError as error:
        yield Probe("policy", settings.policy.engine, "broken", str(error), "run: trainguard policy check")
        return
    for problem in problems:
        yield Probe("policy", settings.policy.engine, "broken", problem, "run: trainguard policy check")
    if not problems:
        yield Probe("policy", settings.policy.engine, "ok", f"{engine.name}, revision {engine.revision}")


def identity(settings: Settings) -> Iterator[Probe]:
    """The keys of the identity provider, where the settings name one."""
    from guard_core.oidc import OidcTokens

    oidc = settings.oidc
    if not oidc.issuer:
        return
    remedy = (
        "correct oidc in the home's config.yaml (docs/admin/compute.md); until then its tokens are refused"
    )
    try:
        names = OidcTokens(oidc, system_clock).key_names()
    except GuardError as error:
        yield Probe("identity", "oidc", "broken", str(error), remedy)
        return
    if names:
        yield Probe("identity", "oidc", "ok", f"{oidc.issuer}: {counted(len(names), 'key')} at {oidc.jwks}")
    else:
        yield Probe("identity", "oidc", "broken", f"{oidc.jwks} lists no key with an id", remedy)


def plugins(settings: Settings) -> Iterator[Probe]:  # noqa: ARG001
    """Every entry point we declare is really loaded."""
    for point in _declared():
        where = f"{point.group}:{point.name}"
        host = point.group.split(".")[0]
        if host in EXTRA_HOSTS and find_spec(host) is None:
            yield _missing(where, host)
            continue
        try:
            point.load()
        except MissingExtra as error:
            yield Probe("plug-in", where, "info", str(error), str(error).partition("run: ")[2])
        except ModuleNotFoundError as error:
            top = (error.name or "").split(".")[0]
            if top in EXTRA_HOSTS and find_spec(top) is None:
                yield _missing(where, top)
            else:
                yield _broken(where, point, error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the plug-in is not there
            yield _broken(where, point, error)
        else:
            yield Probe("plug-in", where, "ok", point.value)


def _declared() -> list[EntryPoint]:
    try:
        points = distribution("trainguard").entry_points
    except PackageNotFoundError:
        return []
    return sorted((p for p in points if p.group != "console_scripts"), key=lambda p: (p.group, p.name))


def _missing(where: str, host: str) -> Probe:
    remedy = f'run: pip install "trainguard[{EXTRA_HOSTS[host]}]"'
    return Probe("plug-in", where, "info", f"{host} is not installed (optional)", remedy)


def _broken(where: str, point: EntryPoint, error: BaseException) -> Probe:
    message = f"{point.value} cannot be loaded: {type(error).__name__}: {error}"
    return Probe("plug-in", where, "broken", message, "reinstall trainguard; if it stays, report it as a bug")


def mlflow_registries(settings: Settings) -> Iterator[Probe]:  # noqa: ARG001
    """What MLflow really registered, against what we declared: it only warns when a plug-in breaks.

    MLflow is imported by name: the kernel does not depend on it, and asks only if it is there.
    """
    if find_spec("mlflow") is None:
        return
    registered: dict[str, Callable[[EntryPoint], bool]] = {
        "mlflow.dataset_source": _is_source,
        "mlflow.dataset_constructor": _is_constructor,
        "mlflow.run_context_provider": _is_context,
        "mlflow.request_header_provider": _is_header,
    }
    for point in _declared():
        if point.group not in registered:
            continue
        where = f"{point.group}:{point.name}"
        try:
            there = registered[point.group](point)
        except Exception as error:  # noqa: BLE001 - a plug-in that cannot load is not registered either
            message = f"MLflow could not register it: {type(error).__name__}: {error}"
            yield Probe("mlflow", where, "broken", message, "see the plug-in's own line below")
            continue
        if there:
            yield Probe("mlflow", where, "ok", "registered")
        else:
            remedy = "run: python -W always -c 'import mlflow.data' to see MLflow's reason"
            yield Probe("mlflow", where, "broken", "declared, but MLflow did not register it", remedy)


def _is_source(point: EntryPoint) -> bool:
    registry = import_module("mlflow.data.dataset_source_registry")._dataset_source_registry
    return point.load() in registry.sources


def _is_constructor(point: EntryPoint) -> bool:
    import_module("mlflow.data")  # fills the registry
    registry = import_module("mlflow.data.dataset_registry")._dataset_registry
    return registry.constructors.get(point.name) is point.load()


def _is_header(point: EntryPoint) -> bool:
    registry = import_module("mlflow.tracking.request_header.registry")._request_header_provider_registry
    return any(type(provider) is point.load() for provider in registry)


def _is_context(point: EntryPoint) -> bool:
    registry = import_module("mlflow.tracking.context.registry")._run_context_provider_registry
    return any(type(provider) is point.load() for provider in registry)

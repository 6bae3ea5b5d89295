"""Changing quotas.yaml without breaking it: one number, its comments kept, checked before it counts.

With a policy directory in the settings the file itself is changed (a running guard follows it). Otherwise
the change becomes a candidate beside the policies in force, to be tried, approved and promoted like others.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compute_guard.quota.limits import Quotas
from guard_core.errors import UserError
from guard_core.files import write_atomic

if TYPE_CHECKING:
    from guard_core.home import Home

FILE = Path("data") / "quotas.yaml"


@dataclass(frozen=True, slots=True)
class Change:
    """What was changed: ``file`` in place, or ``candidate`` staged under the name ``change``.

    ``replaces`` is the change that was staged until then, if any.
    """

    before: Any
    after: Any
    file: Path | None = None
    candidate: Path | None = None
    change: str = ""
    replaces: str = ""


def set_quota(home: Home, path: tuple[str, ...], value: int | str | None) -> Change:
    """Set the number at ``path`` (``queues, acme, weight``). Raises UserError, with nothing changed."""
    if home.settings.policy.dir is not None:
        return _in_place(home.settings.policy.dir, path, value)
    return _staged(home, path, value)


def edited(text: str, path: tuple[str, ...], value: int | str | None) -> tuple[str, Any]:
    """``text`` (YAML) with the scalar at ``path`` replaced, and what it was. Everything else stays as it is.

    Raises UserError when there is no such scalar.
    """
    import yaml

    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, name in enumerate(path):
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        found = next((inner for key, inner in pairs if key.value == name), None)
        if found is None:
            where = ".".join(path[:depth]) or "the file"
            have = ", ".join(str(key.value) for key, _ in pairs) or "nothing"
            raise UserError(f"quotas.yaml: {where} has no {name!r} (it has {have}); add it by hand first")
        node = found
    if not isinstance(node, yaml.ScalarNode):
        raise UserError(f"quotas.yaml: {'.'.join(path)} is no single value")
    before = yaml.safe_load(node.value) if node.style is None else node.value
    start, end = node.start_mark.index, node.end_mark.index
    return text[:start] + ("null" if value is None else str(value)) + text[end:], before


def _in_place(folder: Path, path: tuple[str, ...], value: int | str | None) -> Change:
    file = folder / FILE
    text, before = edited(file.read_text(encoding="utf-8"), path, value)
    with tempfile.TemporaryDirectory(prefix="trainguard-quota-") as scratch:
        trial = Path(scratch) / "policies"
        shutil.copytree(folder, trial)
        (trial / FILE).write_text(text, encoding="utf-8")
        _check(trial)
    write_atomic(file, text.encode(), mode=file.stat().st_mode & 0o777)
    return Change(before, value, file=file)


def _staged(home: Home, path: tuple[str, ...], value: int | str | None) -> Change:
    import yaml

    from guard_core.policy.bundle import shipped_policies
    from guard_core.policy.lifecycle.opening import bundle_of, store_of
    from guard_core.policy.lifecycle.steps import PolicySteps

    folder = Path(tempfile.mkdtemp(prefix="quota-", dir=_candidates(home)))
    candidate = folder / "policies"
    state = store_of(home).state()
    if state is None:
        shutil.copytree(shipped_policies(), candidate)
    else:
        bundle = bundle_of(home)
        for name, text in {**bundle.modules, **bundle.tests}.items():
            _write(candidate / name, text)
        for stem, content in bundle.config.items():
            _write(candidate / "data" / f"{stem}.yaml", yaml.safe_dump(_plain(content), sort_keys=False))
    try:
        file = candidate / FILE
        text, before = edited(file.read_text(encoding="utf-8"), path, value)
        file.write_text(text, encoding="utf-8")
        _check(candidate)
        staged = PolicySteps(home).stage("shadow", candidate=candidate).stage
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    until_now = "" if state is None or state.stage is None else state.stage.change
    change = "" if staged is None else staged.change
    return Change(before, value, candidate=candidate, change=change, replaces=until_now)


def _candidates(home: Home) -> Path:
    folder = home.path("policy-candidates")
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value


def _check(folder: Path) -> None:
    """Schema, gate and arithmetic, as at the moment it would count. Raises UserError."""
    from guard_core.policy.bundle import load_bundle
    from guard_core.policy.engine import accepted

    bundle = accepted(load_bundle(folder))
    Quotas.from_config(bundle.config["quotas"])

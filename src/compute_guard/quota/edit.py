"""Changing quotas.yaml without breaking it: one setting, its comments kept, checked before it counts.

With a policy directory in the settings the file itself is changed (a running guard follows it). Otherwise
the change becomes a candidate beside the policies in force, to be tried, approved and promoted like others.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from compute_guard.quota.limits import Quotas
from compute_guard.quota.settings import placed
from guard_core.errors import UserError
from guard_core.files import write_atomic

if TYPE_CHECKING:
    from guard_core.home import Home

FILE = Path("data") / "quotas.yaml"
UNSET: Final = "not set"
"""What a setting was that was not written."""


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


def set_quota(home: Home, queue: str, what: str, value: int | str | None) -> Change:
    """Set ``what`` of ``queue``, as :mod:`compute_guard.quota.settings` knows it.

    Raises UserError, with nothing changed.
    """
    if home.settings.policy.dir is not None:
        return _in_place(home.settings.policy.dir, queue, what, value)
    return _staged(home, queue, what, value)


def edited(text: str, queue: str, what: str, value: int | str | None) -> tuple[str, Any]:
    """``text`` (quotas.yaml) with one setting of ``queue`` changed, and what it was (`UNSET`: nothing).

    Everything else stays as it is, comments too. Raises UserError for an unknown queue or setting.
    """
    import yaml

    before: Any = yaml.safe_load(text)
    place, content = placed(before, queue, what, value)
    node = yaml.compose(text, Loader=yaml.SafeLoader)
    for depth, name in enumerate(place[:-1]):
        inner = _below(node, name)
        if inner is None:
            raise UserError(f"quotas.yaml: {'.'.join(place[:depth])} has no {name!r}; add it by hand first")
        node = inner
    old = _below(node, place[-1])
    if old is None:
        written = _with_pair(text, node, place[-1], content)
    else:
        written = text[: old.start_mark.index] + _flow(content) + text[_end(old) :]
    was = _set(before, place, content)
    if yaml.safe_load(written) != before:
        raise UserError(
            f"quotas.yaml: {'.'.join(place)} is written in a way that only you can change by hand"
        )
    return written, was


def _below(node: Any, name: str) -> Any:
    """The node under a key, or the entry of a list that has this ``name``; None when there is none."""
    import yaml

    if isinstance(node, yaml.SequenceNode):
        return next((one for one in node.value if getattr(_below(one, "name"), "value", None) == name), None)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((inner for key, inner in pairs if key.value == name), None)


def _set(document: Any, place: tuple[str, ...], content: Any) -> Any:
    """Change a loaded document in the same way; what was there, or `UNSET`."""
    for name in place[:-1]:
        document = (
            next(one for one in document if one["name"] == name)
            if isinstance(document, list)
            else document[name]
        )
    was = document.get(place[-1], UNSET)
    document[place[-1]] = content
    return was


def _with_pair(text: str, node: Any, name: str, content: Any) -> str:
    """``text`` with one more pair at the end of a mapping that has some: in its line or one of its own."""
    pair, at = f"{name}: {_flow(content)}", _end(node.value[-1][1])
    if node.flow_style:
        return f"{text[:at]}, {pair}{text[at:]}"
    line_end = text.find("\n", at)
    at = len(text) if line_end < 0 else line_end
    return f"{text[:at]}\n{' ' * node.start_mark.column}{pair}{text[at:]}"


def _end(node: Any) -> int:
    """Where a node's text ends; that of a block is followed by what its lines are followed by."""
    if isinstance(node.value, list) and node.value and not node.flow_style:
        last = node.value[-1]
        return _end(last[1] if isinstance(last, tuple) else last)
    return int(node.end_mark.index)


def _flow(content: Any) -> str:
    if isinstance(content, Mapping):
        return "{" + ", ".join(f"{name}: {_flow(value)}" for name, value in content.items()) + "}"
    return "null" if content is None else str(content)


def _in_place(folder: Path, queue: str, what: str, value: int | str | None) -> Change:
    file = folder / FILE
    text, before = edited(file.read_text(encoding="utf-8"), queue, what, value)
    with tempfile.TemporaryDirectory(prefix="trainguard-quota-") as scratch:
        trial = Path(scratch) / "policies"
        shutil.copytree(folder, trial)
        (trial / FILE).write_text(text, encoding="utf-8")
        _check(trial)
    write_atomic(file, text.encode(), mode=file.stat().st_mode & 0o777)
    return Change(before, value, file=file)


def _staged(home: Home, queue: str, what: str, value: int | str | None) -> Change:
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
        text, before = edited(file.read_text(encoding="utf-8"), queue, what, value)
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

    try:
        bundle = accepted(load_bundle(folder))
        Quotas.from_config(bundle.config["quotas"])
    except UserError as error:  # names a file of the trial copy, which is nobody's to look at
        said = str(error).replace(f"{folder}/", "")
        raise UserError(f"{said}; nothing was changed") from error

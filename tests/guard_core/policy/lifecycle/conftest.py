"""A key and a small policy set for the life cycle's tests."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from guard_core.config import load_settings
from guard_core.home import Home
from guard_core.policy.bundle import shipped_policies
from guard_core.policy.lifecycle.bundle_signature import BundleKey, BundleVerifier
from guard_core.testing import FrozenClock


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one RSA bundle key (made once: 3072 bits take a moment)."""
    folder = tmp_path_factory.mktemp("keys")
    BundleKey.open(folder)
    return folder


@pytest.fixture(scope="session")
def key(keys: Path) -> BundleKey:
    return BundleKey.open(keys)


@pytest.fixture(scope="session")
def verifier(keys: Path) -> BundleVerifier:
    return BundleVerifier.of(keys)


@pytest.fixture
def staged_home(home_dir: Path, keys: Path, clock: FrozenClock) -> Iterator[Home]:
    """A home that begins with the shipped policies; its owner acts."""
    shutil.copytree(keys, home_dir / "keys" / "policy")
    with Home.open(load_settings(home=home_dir), clock=clock) as opened:
        yield opened


@pytest.fixture
def acting_as(staged_home: Home) -> Iterator[Callable[[str], Home]]:
    """The same home, opened by another person with a credential of their own."""
    opened: list[Home] = []

    def open_as(user: str, roles: tuple[str, ...] = ("platform-admin",)) -> Home:
        token = staged_home.credentials.issue(tenant="local", user=user, roles=roles)
        settings = load_settings(home=staged_home.settings.home, token=token)
        opened.append(Home.open(settings, clock=staged_home.clock))
        return opened[-1]

    yield open_as
    for other in opened:
        other.close()


@pytest.fixture
def candidate(tmp_path: Path) -> Path:
    """A whole policy directory to edit."""
    folder = tmp_path / "candidate"
    shutil.copytree(shipped_policies(), folder)
    return folder

"""A key and a small policy set for the life cycle's tests."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from guard_core.policy.bundle import shipped_policies
from guard_core.policy.lifecycle.bundle_signature import BundleKey, BundleVerifier


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
def candidate(tmp_path: Path) -> Path:
    """A whole policy directory to edit: a copy of the shipped one."""
    folder = tmp_path / "candidate"
    shutil.copytree(shipped_policies(), folder)
    return folder

"""File effects that must be all or nothing: exclusive locks, atomic writes, durable directories."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """Hold an exclusive ``flock`` on ``path`` (made when missing, 0600); yields its file descriptor.

    The kernel drops the lock when the process ends, however it ends: no stale locks after ``kill -9``.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


def write_atomic(
    path: Path, content: bytes, *, mode: int = 0o644, exclusive: bool = False, durable: bool = True
) -> None:
    """Write ``content`` to ``path`` so that a reader sees the old file or the whole new one, never a part.

    With ``exclusive``, an existing file wins and FileExistsError is raised. Without ``durable`` nothing waits
    for the disk: for what means nothing after a power loss. Raises OSError; the temporary file never stays
    behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        if exclusive:
            os.link(temporary, path)
        else:
            temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
    if durable:
        sync_directory(path.parent)


@contextmanager
def replaced_after(path: Path, content: bytes, *, mode: int = 0o644) -> Iterator[None]:
    """``path`` has ``content`` once the block has ended well; as it was when the block fails.

    The new file is written before the block and forced to disk after it: where the block waits for the disk,
    a journal commits both at once, and little is left to wait for. Only then it gets its name. A power loss
    may take the name back: the old file is there then, whole.
    Raises OSError; the temporary file never stays behind.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            yield
            os.fsync(handle)
        temporary.replace(path)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def sync_directory(path: Path) -> None:
    """Make the directory's entries durable (a new file's name survives power loss)."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

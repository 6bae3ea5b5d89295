"""Where data lies: a local path, or a file or folder of a filesystem that pyarrow or fsspec speaks to.

``s3``, ``gs``, ``abfs`` and ``hdfs`` URLs go through pyarrow's own filesystems, all others through fsspec
when it is installed. Credentials come from where those libraries look for them (environment, profile,
instance role), never from the URL, because URLs are recorded. What a store says about a file (ETag, time)
is evidence of nothing: bytes are read and hashed.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pyarrow as pa

from dataset_guard.urls import is_url
from guard_core.errors import MissingExtra, UserError

_ARROW_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "hdfs", "viewfs")
_SECRETS = ("access_key", "secret_key", "session_token", "account_key", "sas_token")


@dataclass(frozen=True, slots=True)
class Stat:
    """The three fields of ``os.stat_result`` that reading asks for."""

    st_size: int
    st_mtime_ns: int
    st_ino: int = 0


@dataclass(frozen=True, slots=True)
class RemotePath:
    """A file or folder of ``filesystem`` (a ``pyarrow.fs.FileSystem``), with the face of a path. Picklable.

    ``head + path + tail`` is its URL.
    """

    filesystem: Any
    path: str
    head: str = ""
    tail: str = ""

    def __str__(self) -> str:
        return self.head + self.path + self.tail

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def suffix(self) -> str:
        """The extension with its dot."""
        return PurePosixPath(self.path).suffix

    @property
    def suffixes(self) -> list[str]:
        """All extensions."""
        return PurePosixPath(self.path).suffixes

    @property
    def parent(self) -> RemotePath:
        """The folder it lies in."""
        return self._at(self.path.rstrip("/").rpartition("/")[0])

    def _at(self, path: str) -> RemotePath:
        return RemotePath(self.filesystem, path, self.head, self.tail)

    def absolute(self) -> RemotePath:
        """Itself."""
        return self

    def relative_to(self, other: RemotePath) -> PurePosixPath:
        """The path below ``other``. Raises ValueError."""
        return PurePosixPath(self.path).relative_to(PurePosixPath(other.path))

    def _info(self) -> Any:
        return self.filesystem.get_file_info(self.path)

    def exists(self) -> bool:
        """Whether there is a file or folder. Raises OSError when the store cannot be asked."""
        return bool(self._info().type.name != "NotFound")

    def is_dir(self) -> bool:
        """Whether it is a folder (of an object store: whether objects lie below it)."""
        return bool(self._info().type.name == "Directory")

    def is_file(self) -> bool:
        """Whether it is a file."""
        return bool(self._info().type.name == "File")

    def stat(self) -> Stat:
        """Size and time. Raises FileNotFoundError, OSError."""
        info = self._info()
        if info.type.name == "NotFound":
            raise FileNotFoundError(str(self))
        return Stat(int(info.size or 0), int(info.mtime_ns or 0))

    def open(self, mode: str = "rb") -> Any:  # noqa: ARG002 - the face of pathlib
        """The bytes, as a buffered binary file."""
        return io.BufferedReader(self.filesystem.open_input_file(self.path))

    def files(self) -> list[RemotePath]:
        """Every file below this folder."""
        from pyarrow.fs import FileSelector

        found = self.filesystem.get_file_info(FileSelector(self.path, recursive=True))
        return [self._at(info.path) for info in found if info.type.name == "File"]


Place = Path | RemotePath


def place_of(where: Any, filesystem: Any = None) -> Place:
    """The place that ``where`` names: a path, a URL, or a path on ``filesystem`` (pyarrow's or fsspec's).

    Raises UserError for a URL that carries credentials, or that nothing installed can open.
    """
    if isinstance(where, RemotePath):
        return where
    if filesystem is not None:
        return _on_filesystem(os.fspath(where), filesystem)
    if is_url(where):
        return _of_url(where)
    return Path(where)


def random_access(place: Place) -> Any:
    """A ``pyarrow.NativeFile`` that can seek."""
    if isinstance(place, RemotePath):
        return place.filesystem.open_input_file(place.path)
    return pa.OSFile(str(place))


def text_stream(place: Place) -> Any:
    """A ``pyarrow.NativeFile`` over the text of ``place``, decompressed as its name says."""
    if isinstance(place, RemotePath):
        return place.filesystem.open_input_stream(place.path, compression="detect")
    return pa.input_stream(str(place), compression="detect")


def _of_url(url: str) -> Place:
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if parts.password or parts.username or any(name in _SECRETS for name in parse_qs(parts.query)):
        raise UserError(
            f"the URL {scheme}://{parts.hostname or ''}... carries credentials, and URLs are recorded; "
            "set them in the environment instead (for S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY)"
        )
    if scheme == "file":
        return Path(unquote(parts.path))
    try:
        filesystem, path = _arrow(url) if scheme in _ARROW_SCHEMES else _fsspec(url)
    except (pa.ArrowException, OSError, ValueError) as error:
        said = str(error).strip().splitlines()
        raise UserError(f"the URL {url} cannot be opened ({said[0][:160] if said else error!r})") from error
    bare = url.partition("?")[0].rstrip("/") if scheme in _ARROW_SCHEMES else url.rstrip("/")
    path = path.rstrip("/")
    head = bare.removesuffix(path) if bare.endswith(path) else f"{scheme}://"
    tail = f"?{parts.query}" if scheme in _ARROW_SCHEMES and parts.query else ""
    return RemotePath(filesystem, path, head, tail)


def _arrow(url: str) -> tuple[Any, str]:
    from pyarrow.fs import FileSystem

    filesystem, path = FileSystem.from_uri(url)
    return filesystem, path


def _fsspec(url: str) -> tuple[Any, str]:
    try:
        import fsspec  # type: ignore[import-untyped]
    except ImportError:
        raise MissingExtra(
            f"the URL {url} needs fsspec and the package of its store; run: pip install fsspec"
        ) from None
    from pyarrow.fs import FSSpecHandler, PyFileSystem

    try:
        filesystem, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UserError(f"the URL {url} needs another package: {error}") from error
    return PyFileSystem(FSSpecHandler(filesystem)), str(path)


def _on_filesystem(path: str, filesystem: Any) -> Place:
    from pyarrow import fs

    if isinstance(filesystem, fs.LocalFileSystem):
        return Path(path)
    if isinstance(filesystem, fs.PyFileSystem) and isinstance(filesystem.handler, fs.FSSpecHandler):
        return _on_filesystem(path, filesystem.handler.fs)
    if isinstance(filesystem, fs.SubTreeFileSystem):
        return _on_filesystem(f"{filesystem.base_path.rstrip('/')}/{path}", filesystem.base_fs)
    if isinstance(filesystem, fs.FileSystem):
        scheme = {"s3": "s3", "gcs": "gs", "abfs": "abfs", "hdfs": "hdfs"}.get(filesystem.type_name)
        return RemotePath(filesystem, path.rstrip("/"), f"{scheme or filesystem.type_name}://")
    if type(filesystem).__module__.startswith("fsspec.implementations.local"):
        return Path(path)
    bare = str(filesystem._strip_protocol(path)).rstrip("/")
    url = str(filesystem.unstrip_protocol(bare))
    handler = fs.PyFileSystem(fs.FSSpecHandler(filesystem))
    return RemotePath(handler, bare, url.removesuffix(bare))

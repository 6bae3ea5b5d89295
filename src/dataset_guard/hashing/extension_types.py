"""Name and parameters of Arrow extension types, whether or not this process knows the type.

The same column is an extension type where a library has registered it, and a storage type with
field metadata where none has. Both must have the same logical type, so both are read as the Arrow
columnar format defines them: field metadata ``ARROW:extension:name`` and ``:metadata``.
"""

from __future__ import annotations

import ctypes
import json
import struct
from typing import Any

import pyarrow as pa

_NAME = b"ARROW:extension:name"
_PARAMETERS = b"ARROW:extension:metadata"


class _CSchema(ctypes.Structure):
    """``struct ArrowSchema`` of the Arrow C data interface, as far as it is read here."""

    _fields_ = (
        ("format", ctypes.c_char_p),
        ("name", ctypes.c_char_p),
        ("metadata", ctypes.c_void_p),
    )


def extension_of(field: pa.Field) -> tuple[str, str] | None:
    """(extension name, parameters as text) of ``field``, or None for a plain type.

    Parameters that are JSON are written without spaces and with sorted keys, because libraries
    differ in how they print the same JSON; other bytes are written as ``hex:...``.
    """
    metadata = dict(field.metadata or {})
    if isinstance(field.type, pa.BaseExtensionType):
        metadata = _exported_metadata(field)
    if _NAME not in metadata:
        return None
    return metadata[_NAME].decode(errors="backslashreplace"), _parameters(metadata.get(_PARAMETERS, b""))


def _parameters(raw: bytes) -> str:
    if not raw:
        return ""
    try:
        return json.dumps(json.loads(raw), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    except ValueError:
        return "hex:" + raw.hex()


def _exported_metadata(field: pa.Field) -> dict[bytes, bytes]:
    """Field metadata as another Arrow library would see it.

    pyarrow has no public way to ask a built-in extension type for its parameters, but exporting the
    field through the C data interface writes them (format: i32 pairs, then i32 length + bytes each).
    """
    capsule = field.__arrow_c_schema__()
    pointer = _capsule_pointer(capsule)
    schema = _CSchema.from_address(pointer)
    if not schema.metadata:
        return {}
    at = schema.metadata

    def take(count: int) -> bytes:
        nonlocal at
        raw = ctypes.string_at(at, count)
        at += count
        return raw

    (pairs,) = struct.unpack("=i", take(4))
    found = {}
    for _ in range(pairs):
        key = take(struct.unpack("=i", take(4))[0])
        found[key] = take(struct.unpack("=i", take(4))[0])
    return found


def _capsule_pointer(capsule: Any) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return int(get(capsule, b"arrow_schema"))

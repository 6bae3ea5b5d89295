"""Eight bytes at a time, wherever they begin: what numba's arrays cannot say, said to LLVM.

A byte array can be read and written by kernels one byte at a time only, because a view of wider numbers
begins at multiples of their size. Processors can do it at any byte; these two say so (``align=1``). Words are
in the machine's byte order, which the fingerprint takes to be little-endian everywhere.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from dataset_guard.hashing.jit import inlined


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), context.get_value_type(types.uint64).as_pointer())


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def word_at(_: Any, array: Any, at: Any) -> Any:
    """The uint64 of the eight bytes of ``array`` (uint8) from ``at`` on; all of them must exist."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *args), align=1)

    del at  # numba casts it
    return types.uint64(array, types.int64), generate


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def put_word(_: Any, array: Any, at: Any, word: Any) -> Any:
    """Write the uint64 ``word`` to the eight bytes of ``array`` (uint8) from ``at`` on."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array, index, word = args
        builder.store(word, _place(context, builder, signature.args[0], array, index), align=1)
        return context.get_dummy_value()

    del at, word  # numba casts them
    return types.void(array, types.int64, types.uint64), generate


@inlined
def copy_bytes(source: Any, first: Any, size: Any, out: Any, to: Any) -> None:
    """Copy ``size`` bytes; no byte beside them is read or written."""
    done = 0
    while done + 8 <= size:
        put_word(out, to + done, word_at(source, first + done))
        done += 8
    if done and done < size:  # the last word again, up to the last byte
        put_word(out, to + size - 8, word_at(source, first + size - 8))
    else:
        while done < size:
            out[to + done] = source[first + done]
            done += 1

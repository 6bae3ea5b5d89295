"""Sixteen blocks of 64 bytes, word by word: what a vector of lanes is loaded from.

Blocks lie one after the other; lanes want the first words of all blocks, then the second ones: a matrix is
turned round. Word by word that costs as much as half of the hashing, so here it is said to LLVM in vectors of
eight words (the three rounds of an 8 x 8 transpose), for which processors have instructions.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

LANES = 16

_VECTOR = ir.VectorType(ir.IntType(32), 8)
_ROUNDS = (  # (distance of partners, which of sixteen words go to the first of them, and to the second)
    (1, (0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)),
    (2, (0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
    (4, (0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
)
_ORDER = (0, 2, 1, 3, 4, 6, 5, 7)  # where the rounds leave the words


def _turned(builder: Any, rows: list[Any]) -> list[Any]:
    """Eight vectors whose j-th words are the words of the j-th of ``rows``."""
    for distance, low, high in _ROUNDS:
        found = list(rows)
        for i in range(8):
            if not i & distance:
                pair = rows[i], rows[i + distance]
                found[i] = builder.shuffle_vector(*pair, ir.Constant(_VECTOR, low))
                found[i + distance] = builder.shuffle_vector(*pair, ir.Constant(_VECTOR, high))
        rows = found
    return [rows[i] for i in _ORDER]


@intrinsic  # type: ignore[untyped-decorator]  # numba has no types
def turn_blocks(_: Any, words: Any, bases: Any, block: Any) -> Any:
    """Write word j of the block at ``words[bases[i]]`` to ``block[j * LANES + i]``; both are uint32."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        source, places, target = (
            context.make_array(kind)(context, builder, value).data
            for kind, value in zip(signature.args, args, strict=True)
        )
        at = [ir.Constant(ir.IntType(64), i) for i in range(16 * LANES)]

        def vector(pointer: Any) -> Any:
            return builder.bitcast(pointer, _VECTOR.as_pointer())

        begins = [builder.gep(source, [builder.load(builder.gep(places, [at[i]]))]) for i in range(LANES)]
        for lane in range(0, LANES, 8):
            for word in (0, 8):
                pointers = [builder.gep(begin, [at[word]]) for begin in begins[lane : lane + 8]]
                rows = [builder.load(vector(pointer), align=4) for pointer in pointers]
                for j, row in enumerate(_turned(builder, rows)):
                    builder.store(row, vector(builder.gep(target, [at[(word + j) * LANES + lane]])), align=4)
        return context.get_dummy_value()

    return types.void(words, bases, block), generate

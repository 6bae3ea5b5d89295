"""What a model has learnt by heart: outputs that repeat the texts of a registered set word for word.

After Carlini et al. 2021/2023 ("Extracting training data from large language models", "Quantifying
memorization"): 50 tokens verbatim are memorisation, not chance. Outputs are cut into overlapping pieces of 64
words, which are looked up in the set's texts (:mod:`.checks.leakage.suite_index`).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from dataset_guard.disclosure.canary import texts_of
from dataset_guard.disclosure.disclosed import opened_data
from dataset_guard.registry.caller import caller_of, opened_home
from guard_core.errors import UserError

if TYPE_CHECKING:
    from guard_core.home import Home

PIECE_WORDS, STRIDE_WORDS = 64, 32


@dataclass(frozen=True, slots=True)
class Recital:
    """One output that repeats the set: its number (0-based), the longest run in tokens, and the set's
    rows."""

    output: int
    longest_run: int
    share: float
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Memorised:
    """The outputs that repeat ``ref``, of ``outputs`` in all."""

    ref: str
    outputs: int
    recitals: tuple[Recital, ...]

    def to_json(self) -> dict[str, Any]:
        """As ``dataset memorised --format json`` prints it."""
        told = [
            {"output": r.output, "longest_run": r.longest_run, "share": r.share, "rows": list(r.rows)}
            for r in self.recitals
        ]
        return {"against": self.ref, "outputs": self.outputs, "memorised": told}


def memorised(
    outputs: Path, *, against: str, run: int = 50, tenant: str | None = None, home: Home | None = None
) -> Memorised:
    """The outputs (lines of a text file, or texts of a data file) that repeat texts of ``against``.

    An output counts when ``run`` tokens in a row are the set's (of runs that a cut divides, a little less: 41
    of 50), or when nearly all of an output of 12 tokens or more is. Raises UserError, Denied, Tampered.
    """
    from dataset_guard.registry.store import Registry

    if run < 8:
        raise UserError(f"a run of {run} tokens is in any text; ask for 8 or more")
    numbers, pieces = _pieces(outputs)
    with opened_home(home) as opened:
        principal = caller_of(opened, against, tenant=tenant)
        reference = Registry(opened).reference(against, tenant=principal.tenant)
        found = _looked_up(pieces, numbers, opened_data(reference), run)
    recitals = [
        Recital(number, longest, round(share, 4), tuple(sorted(rows)[:100]))
        for number, (longest, share, rows) in sorted(found.items())
    ]
    return Memorised(reference.ref, int(numbers.max(initial=-1)) + 1, tuple(recitals))


def _pieces(outputs: Path) -> tuple[np.ndarray[Any, np.dtype[np.int64]], list[str]]:
    """Pieces of the outputs and the output that each is of."""
    numbers, pieces, before = [], [], 0
    for _, first, texts in texts_of(outputs):
        for at, text in enumerate(texts.to_pylist()):
            words = (text or "").split()
            number = max(first + at, before)
            for start in range(0, max(1, len(words) - STRIDE_WORDS), STRIDE_WORDS):
                numbers.append(number)
                pieces.append(" ".join(words[start : start + PIECE_WORDS]))
            before = number
    return np.array(numbers, np.int64), pieces


def _looked_up(
    pieces: list[str], numbers: Any, source: Any, run: int
) -> dict[int, tuple[int, float, set[int]]]:
    from dataset_guard.checks.leakage.suite_index import index_of, search
    from dataset_guard.scanning.profile import is_text, plain

    known = pa.array(pieces, pa.large_string()).dictionary_encode()  # a model may say one thing often
    holders: dict[int, list[int]] = defaultdict(list)
    for piece, unit in enumerate(known.indices.to_pylist()):
        holders[unit].append(int(numbers[piece]))
    units = index_of(known.dictionary)
    # What a run of that length leaves in one piece at least, wherever the cuts fall.
    in_one_piece = min(run, PIECE_WORDS // 4 + run // 2, PIECE_WORDS)
    sizes = np.diff(units.starts)
    names = [f.name for f in source.schema if is_text(f.type)]
    if not names:
        raise UserError("the set has no column of text, so no output can repeat it")
    found: dict[int, tuple[int, float, set[int]]] = {}
    row = 0
    for batch in source.batches(columns=names):
        for column in batch.columns:
            for hits in search(units, plain(column), 0.1):
                whole = (hits.scores >= 0.95) & (sizes[hits.units] >= 12)
                for i in np.flatnonzero(whole | (hits.runs >= in_one_piece)).tolist():
                    for output in holders[int(hits.units[i])]:
                        longest, share, rows = found.get(output, (0, 0.0, set()))
                        rows.add(int(hits.texts[i]) + row)
                        found[output] = (
                            max(longest, int(hits.runs[i])),
                            max(share, float(hits.scores[i])),
                            rows,
                        )
        row += batch.num_rows
    return found

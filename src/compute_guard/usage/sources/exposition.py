"""A fast reader of Prometheus' text exposition format, for scrapes of many GPUs.

Format: Prometheus documentation, "Exposition formats", text format 0.0.4. A general parser takes every
line apart; a scrape repeats the same series names each time. So a series' text (``name{labels}``) is taken
apart once, when first seen, and *interned*: afterwards a line is a lookup and a number. The cutting of
lines, the lookup and the numbers are done by NumPy and Arrow over the whole scrape; every line that is
not plainly ``series value`` (timestamps, odd white space, escapes gone wrong) goes to the strict parser
:func:`parse_line`, one by one. A malformed line is counted and skipped: one bad line of a hostile exporter
must not blind the monitor to the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Resolve = Callable[[str, Mapping[str, str]], int]
"""Gives the slot (>= 0) of a series from its metric name and labels, or :data:`UNWANTED`."""

UNWANTED: Final = -1
_MALFORMED: Final = -2
_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*(?:([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*)"((?:[^"\\]|\\.)*)"\s*(,|$)', re.DOTALL)
_ESCAPE = re.compile(r'\\(["\\n])')
_SPACE, _TAB, _RETURN, _NEWLINE, _HASH, _BRACE = b" \t\r\n#}"


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: metric name, labels, value, and its own time in milliseconds if it carries one."""

    name: str
    labels: Mapping[str, str]
    value: float
    timestamp_ms: int | None


@dataclass(frozen=True, slots=True)
class Scrape:
    """The wanted samples of one scrape: ``slots`` (n,) and ``values`` (n,), in no promised order.

    ``lines`` counts sample lines, ``malformed`` those that could not be read, ``first_malformed`` is the
    1-based number of the first (0 when there is none).
    """

    slots: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]
    lines: int
    malformed: int = 0
    first_malformed: int = 0


def parse_line(line: str) -> Sample:
    """Parse one sample line strictly. Raises ValueError saying what is wrong with it."""
    text = line.strip()
    start, end = _series_span(text)
    name, labels = parse_series(text[:end] if start else text[:end].strip())
    rest = text[end:].split()
    if not rest or len(rest) > 2:
        raise ValueError(f"expected a value and at most a timestamp after the series, got {len(rest)} words")
    return Sample(name, labels, _number(rest[0]), int(_number(rest[1])) if len(rest) == 2 else None)


def _series_span(text: str) -> tuple[int, int]:
    """Position of ``{`` (0 when there is none) and the end of the series text."""
    match = _NAME.match(text)
    if not match:
        raise ValueError("the line does not start with a metric name")
    brace = match.end()
    while brace < len(text) and text[brace] in " \t":
        brace += 1
    if brace == len(text) or text[brace] != "{":
        return 0, match.end()
    quoted = escaped = False
    for position in range(brace + 1, len(text)):
        char = text[position]
        if escaped:
            escaped = False
        elif quoted and char == "\\":
            escaped = True
        elif char == '"':
            quoted = not quoted
        elif char == "}" and not quoted:
            return brace, position + 1
    raise ValueError("the label set is not closed")


def parse_series(text: str) -> tuple[str, dict[str, str]]:
    """Metric name and labels of ``name{label="value",...}``. Raises ValueError when it is not one."""
    name, brace, rest = text.partition("{")
    name = name.rstrip()
    if not _NAME.fullmatch(name):
        raise ValueError("the metric name is not valid")
    labels: dict[str, str] = {}
    if not brace:
        return name, labels
    if not rest.endswith("}"):
        raise ValueError("the label set is not closed")
    body, position = rest[:-1].strip(), 0
    while position < len(body):
        match = _LABEL.match(body, position)
        if not match or match.group(1) in labels:
            raise ValueError('a label is not of the form name="value", or is named twice')
        labels[match.group(1)] = _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], match.group(2))
        position = match.end()
    return name, labels


def _number(word: str) -> float:
    if "_" in word:
        raise ValueError(f"{word!r} is not a number")
    return float(word)


class Reader:
    """Reads scrape after scrape, remembering the series it has seen. One reader per exporter.

    ``resolve`` is asked once per series. At most ``max_series`` series are remembered; when an exporter
    shows more, the memory starts anew, so that invented labels cost time and never memory.
    """

    def __init__(self, resolve: Resolve, *, max_series: int = 4_000_000) -> None:
        self._resolve = resolve
        self._max_series = max_series
        self._known: dict[bytes, int] = {}
        self._layout: tuple[bytes, npt.NDArray[np.int64]] | None = None

    def read(self, text: bytes) -> Scrape:
        """The wanted samples of ``text``, one whole scrape. Never raises for what an exporter wrote."""
        data = text if text.endswith(b"\n") else text + b"\n"
        raw = np.frombuffer(data, dtype=np.uint8)
        ends = np.flatnonzero(raw == _NEWLINE)
        starts = np.concatenate([[0], ends[:-1] + 1])
        blank = (raw[starts] == _NEWLINE) | (raw[starts] == _HASH)
        numbers = np.flatnonzero(~blank)
        starts, ends = starts[numbers], ends[numbers]
        if not len(starts):
            return Scrape(np.zeros(0, np.int64), np.zeros(0), 0)
        spaces = np.flatnonzero(raw == _SPACE)
        first = np.searchsorted(spaces, starts)
        after = np.searchsorted(spaces, ends)
        split = spaces[np.maximum(after - 1, 0)] if len(spaces) else np.zeros_like(ends)
        before = raw[np.maximum(split - 1, 0)]
        last = raw[ends - 1]
        tabs = np.searchsorted(np.flatnonzero(raw == _TAB), np.stack([starts, ends]))
        plain = (
            (after > first)  # has a space,
            & ((before == _BRACE) | (after - first == 1))  # with one word after the series,
            & (split > starts)
            & (split < ends - 1)
            & (last != _RETURN)
            & (tabs[0] == tabs[1])
            & (raw[starts] != _SPACE)
        )
        slots, values = self._plain(data, starts[plain], split[plain], ends[plain])
        odd = np.concatenate([np.flatnonzero(~plain), np.flatnonzero(plain)[(slots == _MALFORMED)]])
        more, bad, skipped = self._strict(data, starts, ends, odd)
        wanted = slots >= 0
        return Scrape(
            slots=np.concatenate([slots[wanted], np.asarray([s for s, _ in more], dtype=np.int64)]),
            values=np.concatenate([values[wanted], np.asarray([v for _, v in more], dtype=np.float64)]),
            lines=len(starts) - skipped,
            malformed=len(bad),
            first_malformed=int(numbers[min(bad)]) + 1 if bad else 0,
        )

    def _plain(
        self,
        data: bytes,
        starts: npt.NDArray[np.int64],
        split: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """Slots and values of lines that look like ``series value``; ``_MALFORMED`` where they are not."""
        if not len(starts):
            return np.zeros(0, np.int64), np.zeros(0)
        buffer = pa.py_buffer(data)
        keys, numbers = _cut(buffer, starts, split), _cut(buffer, split + 1, ends)
        slots = self._slots(keys)
        values, readable = _floats(numbers)
        return np.where(readable, slots, _MALFORMED), values

    def _slots(self, keys: pa.Array) -> npt.NDArray[np.int64]:
        # Exporters write the same series in the same order; then the whole lookup is one comparison of bytes.
        text = keys.buffers()[2].to_pybytes() + keys.buffers()[1].to_pybytes()
        if self._layout is not None and self._layout[0] == text:
            return self._layout[1]
        slots = np.fromiter((self._slot(key) for key in keys.to_pylist()), dtype=np.int64, count=len(keys))
        self._layout = (text, slots)
        return slots

    def _slot(self, key: bytes) -> int:
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= self._max_series:
                self._known.clear()
            try:
                name, labels = parse_series(key.decode())
            except (ValueError, UnicodeDecodeError):
                found = _MALFORMED
            else:
                found = self._resolve(name, labels)
            self._known[key] = found
        return found

    def _strict(
        self,
        data: bytes,
        starts: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        odd: npt.NDArray[np.int64],
    ) -> tuple[list[tuple[int, float]], list[int], int]:
        """Samples, indices of malformed lines, and how many were comments or blank after all."""
        found: list[tuple[int, float]] = []
        bad: list[int] = []
        skipped = 0
        for index in odd.tolist():
            line = data[starts[index] : ends[index]].strip()
            if not line or line.startswith(b"#"):
                skipped += 1
                continue
            try:
                sample = parse_line(line.decode())
            except (ValueError, UnicodeDecodeError):
                bad.append(index)
                continue
            slot = self._resolve(sample.name, sample.labels)
            if slot >= 0:
                found.append((slot, sample.value))
        return found, bad, skipped


def _cut(buffer: pa.Buffer, starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64]) -> pa.Array:
    """The pieces ``[start, end)`` of a buffer as a binary array; pieces are disjoint and in order."""
    bounds = np.empty(2 * len(starts) + 1, dtype=np.int64)
    bounds[0:-1:2], bounds[1::2], bounds[-1] = starts, ends, ends[-1]
    pieces = pa.Array.from_buffers(pa.large_binary(), 2 * len(starts), [None, pa.py_buffer(bounds), buffer])
    return pieces.take(pa.array(np.arange(0, 2 * len(starts), 2)))


def _floats(words: pa.Array) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Numbers of ``words`` and which of them Arrow could read; the rest is the strict parser's business."""
    text = words.cast(pa.large_string(), safe=False) if _is_ascii(words) else None
    if text is not None:
        try:
            values = pc.cast(text, pa.float64()).to_numpy(zero_copy_only=False)
            return values, np.ones(len(words), dtype=np.bool_)
        except pa.ArrowInvalid:
            pass
    values = np.zeros(len(words))
    readable = np.zeros(len(words), dtype=np.bool_)
    for index, word in enumerate(words.to_pylist()):
        try:
            values[index] = _number(word.decode())
            readable[index] = True
        except (ValueError, UnicodeDecodeError):
            continue
    return values, readable


def _is_ascii(words: pa.Array) -> bool:
    return not (np.frombuffer(words.buffers()[2], dtype=np.uint8) & 0x80).any()

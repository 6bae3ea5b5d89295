"""Questions to policy answered in a second process, beside the one that asks.

regorus holds Python's lock while it evaluates, so a thread would not help. The process is given the very
modules and data that are in force, and does what the asking process would do: the same engine, the same
answer, the same text for the audit log. It can only save work, never hold anything up or decide anything by
itself: whoever asks evaluates what it has not answered yet (:mod:`guard_core.policy.asking`), drops an answer
of another revision, and goes on alone when it is slow, stopped or dead. It holds nothing: no home, no key, no
credential, no file. It ends with the process that asks, however that ends.

Frames on their socket: a length of four bytes and a pickle. To it: ``("bundle", revision, modules, data)``,
``("part", number, inquiries)``, ``("drop", number)``. From it: ``(0, None)`` when it has started, and
``(number, answers)``, where None as answers means: ask yourself.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import count
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

from guard_core.audit.decision_event import decision_event
from guard_core.audit.record import prepared
from guard_core.policy.bundle import Bundle
from guard_core.policy.embedded import EmbeddedEngine
from guard_core.policy.inquiry import Answered, Inquiry

WARM = 256
"""Questions that come many at once before a process is started: one that asks seldom needs none."""
AGAIN_SECONDS = 60.0
"""After one has died, the next is not started earlier."""
MOST_BYTES = 16 << 20
"""Larger bundles are not handed over, and one who reads so little of what it is sent is given up."""
_NOT_FOR_IT = ("TRAINGUARD_", "RAY_")
"""Variables that may hold a token, and settings that it has no use for."""
_LENGTH = struct.Struct("!I")
_READ_BYTES = 1 << 17
_NUMBERS = count(1)
"""Of parts; none is given twice, not by the next process either."""


class Aside:
    """The asking process's end. Starts the other one when it is worth it. Safe across threads and forks."""

    def __init__(self) -> None:
        self._guard = Lock()
        self._link: _Link | None = None
        self._asked = 0
        self._not_before = 0.0
        self._pid = os.getpid()

    def ready(self, questions: int) -> bool:
        """Whether it takes questions, of which so many have come at once."""
        with self._guard:
            self._asked += questions
            link = self._own()
            if link is None and self._worth_it():
                self._not_before = time.monotonic() + AGAIN_SECONDS
                with suppress(OSError):
                    link = self._link = _Link()
            return link is not None and link.started()

    def _worth_it(self) -> bool:
        cores = os.cpu_count() or 1
        return self._asked >= WARM and cores > 1 and time.monotonic() >= self._not_before

    def put(self, bundle: Bundle, parts: Sequence[Sequence[Inquiry]]) -> list[int]:
        """Hand questions over, to be answered under ``bundle``: a number for each part, 0 if not taken."""
        with self._guard:
            link = self._own()
            return [0] * len(parts) if link is None else link.put(bundle, parts)

    def take(self, number: int) -> list[Answered] | None:
        """The answers to what was handed over as ``number``; None: not there yet, or there will be none."""
        with self._guard:
            link = self._own()
            return None if link is None else link.take(number)

    def drop(self, numbers: Sequence[int]) -> None:
        """Nobody waits any more for the answers to these."""
        with self._guard:
            link = self._own()
            if link is not None:
                link.drop(numbers)

    def close(self) -> None:
        """End the process, if there is one. It may be started again."""
        with self._guard:
            link, self._link, self._not_before = self._own(), None, 0.0
            if link is not None:
                link.end()

    def _own(self) -> _Link | None:
        if self._pid != os.getpid():  # a forked child must not speak on its parent's socket
            self._link, self._pid = None, os.getpid()
        if self._link is not None and self._link.dead:
            self._link = None
        return self._link


class _Link:
    """One process and the socket to it. Never blocks."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-P", "-m", __name__, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env={k: v for k, v in os.environ.items() if not k.startswith(_NOT_FOR_IT)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        ours.setblocking(False)
        self._socket, self._process = ours, process
        self.end = weakref.finalize(self, _end, ours, process)
        self._out, self._in = bytearray(), bytearray()
        self._answers: dict[int, list[Answered] | None] = {}
        self._waiting: set[int] = set()
        self._revision = ""
        self._has_started = False
        self.dead = False

    def started(self) -> bool:
        """Whether it has said that it is there."""
        self._exchange()
        return self._has_started and not self.dead

    def put(self, bundle: Bundle, parts: Sequence[Sequence[Inquiry]]) -> list[int]:
        if bundle.revision != self._revision:
            if len(bundle.data_json) > MOST_BYTES:
                return [0] * len(parts)
            self._out += _frame(("bundle", bundle.revision, dict(bundle.modules), bundle.data_json))
            self._revision = bundle.revision
        numbers = [self._put(inquiries) for inquiries in parts]
        self._exchange()
        return numbers

    def _put(self, inquiries: Sequence[Inquiry]) -> int:
        number = next(_NUMBERS)
        try:
            self._out += _frame(("part", number, inquiries))
        except Exception:  # noqa: BLE001 - what cannot be sent is evaluated where it is
            return 0
        self._waiting.add(number)
        return number

    def take(self, number: int) -> list[Answered] | None:
        if number not in self._answers:
            self._exchange()
        found = self._answers.pop(number, None)
        if found is not None:
            self._waiting.discard(number)
        return found

    def drop(self, numbers: Sequence[int]) -> None:
        waiting = self._waiting.intersection(numbers)
        for number in waiting:
            self._answers.pop(number, None)
            self._out += _frame(("drop", number))
        if waiting:
            self._waiting -= waiting
            self._exchange()

    def _exchange(self) -> None:
        """Send and read what can be without waiting."""
        if self.dead:
            return
        try:
            with suppress(BlockingIOError):
                while self._out:
                    del self._out[: self._socket.send(self._out)]
            with suppress(BlockingIOError):
                while True:
                    read = self._socket.recv(_READ_BYTES)
                    if not read:
                        raise ConnectionError
                    self._in += read
            for number, answers in _frames_in(self._in):
                if number == 0:
                    self._has_started = True
                elif number in self._waiting:
                    self._answers[number] = answers
        except Exception:  # noqa: BLE001 - whatever is wrong with it, nobody needs it
            self._give_up()
        if len(self._out) > 2 * MOST_BYTES:
            self._give_up()

    def _give_up(self) -> None:
        """It is dead, or does not read what it is sent."""
        self.dead = True
        self._process.kill()
        self.end()


def _end(link: socket.socket, process: subprocess.Popen[bytes]) -> None:
    link.close()  # at which it ends by itself
    try:
        process.wait(1)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _frame(message: object) -> bytes:
    text = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    return _LENGTH.pack(len(text)) + text


def _frames_in(buffer: bytearray) -> Iterator[Any]:
    """The whole messages at the beginning of ``buffer``, which they leave."""
    at = 0
    while len(buffer) - at >= _LENGTH.size:
        (length,) = _LENGTH.unpack_from(buffer, at)
        if len(buffer) - at - _LENGTH.size < length:
            break
        at += _LENGTH.size
        yield pickle.loads(memoryview(buffer)[at : at + length])  # noqa: S301 - a process of ours
        at += length
    del buffer[:at]


# --- the other process ------------------------------------------------------------------------------------


def serve(link: socket.socket) -> None:
    """Answer until the other side has gone."""
    inbox: SimpleQueue[tuple[Any, ...]] = SimpleQueue()
    dropped: set[int] = set()
    # It always reads, so that neither side waits for the other to read.
    Thread(target=_receive, args=(link, inbox, dropped), daemon=True).start()
    engine: EmbeddedEngine | None = None
    link.sendall(_frame((0, None)))
    while True:
        kind, *rest = inbox.get()
        if kind == "bundle":
            engine = _engine(*rest)
            continue
        number, inquiries = rest
        wanted = number not in dropped
        for old in [one for one in tuple(dropped) if one <= number]:
            dropped.remove(old)
        if wanted:
            link.sendall(_frame((number, None if engine is None else _answers(engine, inquiries))))


def _receive(link: socket.socket, inbox: SimpleQueue[tuple[Any, ...]], dropped: set[int]) -> None:
    buffer = bytearray()
    try:
        while read := link.recv(_READ_BYTES):
            buffer += read
            for message in _frames_in(buffer):
                if message[0] == "drop":
                    dropped.add(message[1])
                else:
                    inbox.put(message)
    finally:
        os._exit(0)  # nobody is there any more


def _engine(revision: str, modules: dict[str, str], data_json: str) -> EmbeddedEngine | None:
    with suppress(Exception):
        return EmbeddedEngine(Bundle(revision, modules, {}, {}, data_json))
    return None


def _answers(engine: EmbeddedEngine, inquiries: Sequence[Inquiry]) -> list[Answered] | None:
    found = []
    try:
        for one in inquiries:
            answer = engine.evaluate(one.path, one.question)
            if answer.error is not None:
                return None
            decision = one.decided(answer, revision=answer.revision, engine=engine.name)
            event = decision_event(
                decision,
                question=one.question,
                requested_by=one.requested_by,
                subject=one.subject,
                moment=one.moment,
            )
            record = prepared(event)
            answered = (
                one.decision_id,
                answer.value,
                answer.defined,
                answer.eval_ns,
                answer.revision,
                record,
            )
            found.append(Answered(*answered))
    except Exception:  # noqa: BLE001 - whoever asked meets the same, and says what it means
        return None
    return found


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # meant for the process that asks, whose end is ours
    os.nice(5)  # where cores are short, the one that asks needs them more
    with suppress(OSError):
        serve(socket.socket(fileno=int(sys.argv[1])))

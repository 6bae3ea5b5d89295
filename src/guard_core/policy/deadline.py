"""Run a blocking call with a hard deadline: the caller goes on at the deadline, whatever the call does.

Worker threads are daemons. ``concurrent.futures`` joins its threads when Python exits, so one server that
drips a byte a second would hold the whole process at exit.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class TooLate(Exception):
    """The call had not returned at the deadline (or no worker was free); its result is thrown away."""


class _Call(Generic[T]):
    __slots__ = ("done", "error", "function", "result")

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.done = threading.Event()
        self.result: T | None = None
        self.error: BaseException | None = None


class DeadlineCalls:
    """Up to ``workers`` calls at once. Threads are started when needed and wait for more work."""

    def __init__(self, workers: int, name: str) -> None:
        self._queue: SimpleQueue[_Call[object] | None] = SimpleQueue()
        self._limit = workers
        self._name = name
        self._lock = threading.Lock()
        self._threads = 0
        self._busy = 0

    def run(self, function: Callable[[], T], timeout_s: float) -> T:
        """``function()``, raising what it raises; raises TooLate at the deadline."""
        call: _Call[T] = _Call(function)
        with self._lock:
            self._busy += 1
            if self._busy > self._threads and self._threads < self._limit:
                self._threads += 1
                threading.Thread(target=self._work, name=f"{self._name}-{self._threads}", daemon=True).start()
        self._queue.put(call)  # type: ignore[arg-type]  # _Call is invariant, the worker only calls it
        if not call.done.wait(timeout_s):
            raise TooLate
        if call.error is not None:
            raise call.error
        return call.result  # type: ignore[return-value]  # set whenever there is no error

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            try:
                call.result = call.function()
            except BaseException as exc:  # noqa: BLE001  # handed to the caller, who raises it
                call.error = exc
            with self._lock:
                self._busy -= 1
            call.done.set()

    def close(self) -> None:
        """Let idle threads end."""
        with self._lock:
            for _ in range(self._threads):
                self._queue.put(None)
            self._threads = 0

"""A circuit breaker: after a run of failures a server is left alone, then tried by one question."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable


class Breaker:
    """Opens after ``limit`` failures within ``window_s``; ``rest_s`` later one question may try again.

    Thread-safe. The clock is injected, so that nothing sleeps in a test.
    """

    def __init__(
        self,
        *,
        limit: int = 5,
        window_s: float = 10.0,
        rest_s: float = 2.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._window = window_s
        self._rest = rest_s
        self._now = monotonic
        self._lock = threading.Lock()
        self._failures: deque[float] = deque()
        self._opened: float | None = None

    @property
    def failures(self) -> int:
        """Failures counted now."""
        return len(self._failures)

    @property
    def open(self) -> bool:
        """Whether questions are held back."""
        return self._opened is not None

    def allows(self) -> bool:
        """Whether to ask: always when closed; once per rest when open."""
        with self._lock:
            if self._opened is None:
                return True
            if self._now() - self._opened < self._rest:
                return False
            self._opened = self._now()  # this question is the trial; the next waits its turn
            return True

    def success(self) -> None:
        """An answer came: close."""
        with self._lock:
            self._failures.clear()
            self._opened = None

    def failure(self) -> None:
        """No answer came: count it, and open at the limit."""
        with self._lock:
            now = self._now()
            self._failures.append(now)
            while self._failures and now - self._failures[0] > self._window:
                self._failures.popleft()
            if len(self._failures) >= self._limit or self._opened is not None:
                self._opened = now

"""How a node's lease gate talks to the head: one TCP connection, one JSON object a line.

gRPC would cost several times the CPU per question; this costs tens of microseconds. The node proves itself
with the cluster's own token in the first line. A broken connection loses nothing: questions are asked
again, and the node's own account of its leases is sent first.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from compute_guard.ray_plugin.gates.identity import same
from compute_guard.ray_plugin.gates.wire import Refusal

logger = logging.getLogger(__name__)
LINE_BYTES = 8 << 20
RETRY_SECONDS = 0.05
LAZY_SECONDS = 0.02

Answer = Mapping[str, Any]
Take = Callable[[Answer], None]
Ask = Callable[[str, Mapping[str, Any]], Awaitable[Answer]]
"""(node name, message) -> answer. Raises Refusal."""
Hear = Callable[[str, Mapping[str, Any]], Mapping[str, Any] | None]
"""Takes (node name, message) of a message that nobody waits for; gives what is to be told in return."""


class _Lines:
    """Writes what is sent in one turn of the event loop at once: a system call costs more than a line."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        self._waiting: list[bytes] = []
        self._due = False

    def send(self, line: bytes) -> None:
        self._waiting.append(line)
        if not self._due:
            self._due = True
            asyncio.get_running_loop().call_soon(self._flush)

    def send_with_others(self, line: bytes) -> None:
        """Nobody waits for this line: it leaves with the next one, or a moment later."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(LAZY_SECONDS, self._flush)
        self._waiting.append(line)

    def _flush(self) -> None:
        self._due = False
        lines, self._waiting = self._waiting, []
        if lines and not self._writer.is_closing():
            self._writer.write(b"".join(lines))

    def close(self) -> None:
        self._writer.close()


class Desk:
    """The head's end. ``greet`` takes a node's report and gives its name; ``ask`` answers its messages."""

    def __init__(
        self,
        token: Callable[[], str],
        greet: Callable[[Mapping[str, Any]], Awaitable[str]],
        ask: Ask,
        hear: Hear,
    ) -> None:
        self._token = token
        self._greet = greet
        self._ask = ask
        self._hear = hear
        self._open: dict[str, _Lines] = {}
        self._tasks: dict[str, dict[Any, asyncio.Task[None]]] = {}

    def tell(self, name: str, message: Mapping[str, Any]) -> None:
        """Say something to a node's gate; one that is not on the line now hears all there is to know anew."""
        if (lines := self._open.get(name)) is not None:
            lines.send(json.dumps(message).encode() + b"\n")

    def hang_up(self, name: str) -> None:
        """End a node's connection: it makes a new one and says everything from the beginning."""
        if (lines := self._open.get(name)) is not None:
            lines.close()

    def connected(self) -> frozenset[str]:
        """The nodes whose gates are on the line now."""
        return frozenset(self._open)

    async def start(self, host: str, port: int) -> asyncio.Server:
        """Listen. Raises OSError."""
        return await asyncio.start_server(self._serve, host, port, limit=LINE_BYTES)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks: dict[Any, asyncio.Task[None]] = {}
        lines, name = _Lines(writer), ""
        try:
            hello = json.loads(await asyncio.wait_for(reader.readline(), 10))
            if not same(str(hello.get("token", "")), self._token()):
                return
            name = await self._greet(hello)
            # What its former connection still asks for counts no more: this one asks again.
            for task in list(self._tasks.get(name, {}).values()):
                task.cancel()
            self._open[name], self._tasks[name] = lines, tasks
            lines.send(b'{"id":0,"ok":{}}\n')
            while line := await reader.readline():
                message = json.loads(line)
                number = message.pop("id", None)
                if number is None and message.get("op") != "forget":
                    try:
                        said = self._hear(name, message)
                    except Exception:
                        logger.exception("a message of %s was not understood", name)
                    else:
                        if said is not None:
                            lines.send(json.dumps(said).encode() + b"\n")
                    continue
                if number is None:
                    if (pending := tasks.get(message.get("of"))) is not None:
                        pending.cancel()
                    continue
                task = asyncio.ensure_future(self._answer(lines, name, number, message))
                tasks[number] = task
                task.add_done_callback(partial(_forget, tasks, number))
        except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError, Refusal) as error:
            logger.info("the connection of %s ended: %s", name or "a node", error)
        finally:
            # What this node still waits for, it will ask again on its next connection.
            for task in list(tasks.values()):
                task.cancel()
            if self._open.get(name) is lines:
                del self._open[name], self._tasks[name]
            writer.close()

    async def _answer(self, lines: _Lines, name: str, number: Any, message: Mapping[str, Any]) -> None:
        try:
            answer: dict[str, Any] = {"id": number, "ok": await self._ask(name, message)}
        except Refusal as no:
            answer = {"id": number, "no": no.text}
        except asyncio.CancelledError:
            raise
        except Exception as error:
            logger.exception("a node's question could not be answered")
            answer = {"id": number, "no": f"it could not be judged: {error!r}"}
        lines.send(json.dumps(answer).encode() + b"\n")


def _forget(tasks: dict[Any, asyncio.Task[None]], number: Any, _done: object) -> None:
    tasks.pop(number, None)


class Line:
    """A node's end: keeps connecting, greets with ``hello()``, asks again what was not answered.

    ``hear`` takes what the head says without being asked.
    """

    def __init__(
        self,
        host: str,
        port: int,
        token: Callable[[], str],
        hello: Callable[[], Mapping[str, Any]],
        hear: Callable[[Mapping[str, Any]], None],
    ) -> None:
        self._where = (host, port)
        self._token = token
        self._hello = hello
        self._hear = hear
        self._numbers = itertools.count(1)
        self._asked: dict[int, tuple[bytes, asyncio.Future[Answer], Take | None]] = {}
        self._lines: _Lines | None = None
        self.connected = asyncio.Event()

    async def run(self) -> None:
        """Stay connected for ever."""
        while True:
            try:
                await self._session()
            except (OSError, ValueError, TimeoutError, asyncio.IncompleteReadError) as error:
                logger.info("the head cannot be reached (%s); it is tried again", error)
            self._lines = None
            self.connected.clear()
            await asyncio.sleep(RETRY_SECONDS)

    async def _session(self) -> None:
        reader, writer = await asyncio.open_connection(*self._where, limit=LINE_BYTES)
        try:
            greeting = {"token": self._token(), **self._hello()}
            # What happens from now on is not in the greeting, so it is said behind it, accepted yet or not.
            lines = self._lines = _Lines(writer)
            lines.send(json.dumps(greeting).encode() + b"\n")
            for line, *_ in self._asked.values():
                lines.send(line)
            if not await asyncio.wait_for(reader.readline(), 10):
                raise OSError("the head did not accept this node")
            self.connected.set()
            while line := await reader.readline():
                message = json.loads(line)
                if "id" in message:
                    self._answered(message)
                else:
                    self._hear(message)
        finally:
            writer.close()

    def _answered(self, message: Mapping[str, Any]) -> None:
        _, future, take = self._asked.pop(message["id"], (b"", None, None))
        if future is None or future.done():
            return
        if "ok" in message:
            if take is not None:
                take(message["ok"])
            future.set_result(message["ok"])
        else:
            future.set_exception(Refusal(str(message.get("no", "refused"))))

    def ask(self, message: Mapping[str, Any], take: Take | None = None) -> asyncio.Future[Answer]:
        """The head's answer, however long it takes: a future, which may be cancelled. It raises Refusal.

        ``take`` is given the answer before anything is heard that the head said after it.
        """
        number = next(self._numbers)
        line = json.dumps({"id": number, **message}).encode() + b"\n"
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = (line, future, take)
        if self._lines is not None:
            self._lines.send(line)
        future.add_done_callback(partial(self._forget, number))
        return future

    def _forget(self, number: int, done: asyncio.Future[Answer]) -> None:
        if done.cancelled() and self._asked.pop(number, None) is not None:
            self.tell({"op": "forget", "of": number})

    def tell(self, message: Mapping[str, Any], *, soon: bool = True) -> None:
        """Say something that needs no answer; while the connection is down, the next greeting says it.

        Not ``soon``: it may wait for what is said next.
        """
        if self._lines is not None:
            line = json.dumps(message).encode() + b"\n"
            if soon:
                self._lines.send(line)
            else:
                self._lines.send_with_others(line)

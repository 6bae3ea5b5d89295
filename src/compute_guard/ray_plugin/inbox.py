"""Submissions that come in: decided together with all that arrive while another decision is being made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from compute_guard.admission.gateway import Admitted, Gateway, Held, Refused

if TYPE_CHECKING:
    from compute_guard.ray_plugin.last_mile import LastMile, Run
    from guard_core.identity import Principal

Outcome: TypeAlias = Admitted | Held | Refused
BATCH = 256
"""Submissions decided in one go; more would make the first of them wait for the last."""


class Inbox:
    """``decide`` runs something in the one deciding thread."""

    def __init__(self, gateway: Callable[[], Awaitable[Gateway]], decide: Run, last_mile: LastMile) -> None:
        self._gateway = gateway
        self._decide = decide
        self._last_mile = last_mile
        self._waiting: list[tuple[Principal, Mapping[str, Any], asyncio.Future[Outcome]]] = []
        self._task: asyncio.Task[None] | None = None

    async def submit(self, principal: Principal, body: Mapping[str, Any]) -> Outcome:
        """Decide a submission, together with all that arrive while another decision is being made.

        An admitted one is `underway` when this returns; the caller ends that (:meth:`LastMile.on_its_way`).
        """
        answer: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.append((principal, body, answer))
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._decide_all())
        try:
            return await answer
        except asyncio.CancelledError:
            if answer.done() and not answer.cancelled() and not answer.exception():
                self._let_go(answer.result())
            raise

    def _decided(
        self, gateway: Gateway, asked: Sequence[tuple[Principal, Mapping[str, Any]]]
    ) -> tuple[list[Outcome], list[Admitted]]:
        outcomes, others = gateway.submit_many(asked)
        self._last_mile.take([*(one for one in outcomes if isinstance(one, Admitted)), *others])
        return outcomes, others

    def _let_go(self, outcome: Outcome) -> None:
        """The client has gone: the reconciler hands an admitted one over."""
        if isinstance(outcome, Admitted):
            self._last_mile.underway.discard(outcome.id)

    async def _decide_all(self) -> None:
        try:
            gateway = await self._gateway()
            while self._waiting:
                batch, self._waiting = self._waiting[:BATCH], self._waiting[BATCH:]
                asked = [(principal, body) for principal, body, _ in batch]
                try:
                    outcomes, others = await self._decide(partial(self._decided, gateway, asked))
                except Exception as error:  # noqa: BLE001 - every one of the batch has to hear of it
                    for _, _, answer in batch:
                        if not answer.done():
                            answer.set_exception(error)
                    continue
                for (_, _, answer), outcome in zip(batch, outcomes, strict=True):
                    if not answer.done():
                        answer.set_result(outcome)
                    else:
                        self._let_go(outcome)
                await self._last_mile.hand_over_all(gateway, others)
        finally:
            self._task = None
            if self._waiting:
                self._task = asyncio.get_running_loop().create_task(self._decide_all())

"""Log tailing for a job that waits: its reasons while it does, Ray's log once it runs.

``ray job submit`` tails right after submitting, so this is where a person at a terminal reads why nothing
happens yet.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from compute_guard.admission.workload import WorkloadState
from compute_guard.ray_plugin.service import Service
from compute_guard.ray_plugin.views import message_of

POLL_SECONDS = 1.0


async def follow_logs(web: Any, service: Service, request: Any, submission_id: str) -> Any:
    """A WebSocket that speaks until the job has ended or the client has gone."""
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    gateway = await service.gateway()
    said = ""
    while not socket.closed:
        entry = await service.read(lambda: gateway.ledger.get(submission_id))
        if entry is None:
            break
        waiting = await service.decide(partial(gateway.explain, [entry]))
        line = f"[trainguard] {message_of(entry, waiting.get(entry.id, ''))}\n"
        if line != said and entry.state is not WorkloadState.ADMITTED:
            await socket.send_str(line)
            said = line
        if entry.state.terminal and not await service.last_mile.known_to_ray(entry):
            break
        if entry.state is not WorkloadState.PENDING and await service.last_mile.known_to_ray(entry):
            await _copy(service, socket, submission_id)
            break
        try:
            await socket.receive(timeout=POLL_SECONDS)
        except TimeoutError:
            continue
    await socket.close()
    return socket


async def _copy(service: Service, socket: Any, submission_id: str) -> None:
    import aiohttp

    url = f"{await service.own_address()}/api/jobs/{submission_id}/logs/tail"
    headers = {"Authorization": f"Bearer {service.token()}"}
    async with aiohttp.ClientSession() as session, session.ws_connect(url, headers=headers) as upstream:
        async for message in upstream:
            if message.type == aiohttp.WSMsgType.TEXT:
                await socket.send_str(message.data)

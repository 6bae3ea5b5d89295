"""The dashboard's own Job API, called by the guard beside it with the cluster's token."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class JobApi:
    """``address`` gives ``http://host:port`` of the dashboard. Trouble is status 0 with the error's words."""

    def __init__(self, address: Callable[[], Awaitable[str]], token: Callable[[], str]) -> None:
        self._address = address
        self._token = token

    async def delete(self, submission_id: str) -> int:
        """Delete Ray's record of a submission: the HTTP status."""
        return (await self._call("DELETE", f"/api/jobs/{submission_id}", None))[0]

    async def post(self, path: str, body: object) -> tuple[int, str]:
        """The HTTP status and text of a POST."""
        return await self._call("POST", path, body)

    async def _call(self, method: str, path: str, body: object) -> tuple[int, str]:
        import aiohttp

        headers = {"Authorization": f"Bearer {self._token()}"}
        timeout = aiohttp.ClientTimeout(total=60)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            try:
                async with session.request(
                    method, await self._address() + path, json=body, headers=headers
                ) as answer:
                    return answer.status, await answer.text()
            except (aiohttp.ClientError, TimeoutError) as error:
                return 0, repr(error)

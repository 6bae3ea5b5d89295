"""A tenant's calls to the GCS's key-value store, each sent to where :mod:`.kv` places its keys."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ray.core.generated import gcs_service_pb2 as pb

from compute_guard.ray_plugin.gates import kv
from compute_guard.ray_plugin.gates.messages import request_of
from compute_guard.ray_plugin.gates.tenancy import Jobs
from compute_guard.ray_plugin.gates.upstream import Upstream
from compute_guard.ray_plugin.gates.wire import Call

_SERVICE = "InternalKVGcsService.InternalKV"


class KeyValues:
    """Call from one event loop."""

    def __init__(
        self, upstream: Upstream, jobs: Jobs, owner_of: Callable[[str], Awaitable[str | None]]
    ) -> None:
        self._upstream = upstream
        self._jobs = jobs
        self._owner_of = owner_of

    def rules(self) -> dict[str, Callable[[Call, str, bytes], Awaitable[bytes]]]:
        """What answers each call, by its name."""
        one = dict.fromkeys((_SERVICE + name for name in ("Get", "Exists", "Put", "Del")), self._one)
        return {**one, _SERVICE + "MultiGet": self._many, _SERVICE + "Keys": self._keys}

    async def _owners(self, namespace: bytes, keys: list[bytes]) -> Callable[[str], str | None]:
        if namespace != kv.JOB:
            return lambda _submission: None
        names = {key.decode("utf-8", "replace").removeprefix("_ray_internal_job_info_") for key in keys}
        found = {name: await self._owner_of(name) for name in names}
        return found.get

    async def _one(self, call: Call, tenant: str, request: bytes) -> bytes:
        message = request_of(call, request)
        owner_of = await self._owners(message.namespace, [message.key])
        write = call.name in ("InternalKVPut", "InternalKVDel")
        real = kv.place(
            tenant, message.namespace, message.key, write=write, jobs=self._jobs, owner_of=owner_of
        )
        message.namespace, message.key = real.namespace, real.key
        return await self._upstream.forward(call, message.SerializeToString())

    async def _many(self, call: Call, tenant: str, request: bytes) -> bytes:
        message = request_of(call, request)
        owner_of = await self._owners(message.namespace, list(message.keys))
        places = [
            kv.place(tenant, message.namespace, key, write=False, jobs=self._jobs, owner_of=owner_of)
            for key in message.keys
        ]
        if places:
            message.namespace = places[0].namespace
            del message.keys[:]
            message.keys.extend(real.key for real in places)
        return await self._upstream.forward(call, message.SerializeToString())

    async def _keys(self, call: Call, tenant: str, request: bytes) -> bytes:
        message = request_of(call, request)
        namespace = message.namespace
        real = kv.may_list(tenant, namespace, message.prefix, self._jobs, lambda _submission: None)
        message.namespace, message.prefix = real.namespace, real.key
        raw = await self._upstream.forward(call, message.SerializeToString())
        reply = pb.InternalKVKeysReply.FromString(raw)
        if real.namespace == namespace:
            found = list(reply.results)
            owner_of = await self._owners(namespace, found)
            del reply.results[:]
            reply.results.extend(kv.listed(tenant, namespace, found, self._jobs, owner_of))
        shown: bytes = reply.SerializeToString()
        return shown

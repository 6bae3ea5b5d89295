"""Puts the guard into Ray's HTTP middleware, in the two processes that serve the Job API."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any

logger = logging.getLogger(__name__)


def gcs_address_of(argv: list[str]) -> str:
    """The ``--gcs-address`` that Ray gave this process. Raises ValueError without one."""
    for index, argument in enumerate(argv):
        if argument.startswith("--gcs-address="):
            return argument.partition("=")[2]
        if argument == "--gcs-address" and index + 1 < len(argv):
            return argv[index + 1]
    raise ValueError("this process was started without --gcs-address")


def system_token() -> str:
    """The cluster's own token, as Ray's loader finds it. Raises RuntimeError when there is none."""
    import ray._raylet

    loader: Any = ray._raylet
    header = loader.AuthenticationTokenLoader.instance().get_token_for_http_header()
    for value in header.values():
        return str(value).removeprefix("Bearer ").strip()
    raise RuntimeError("token mode is on, but no system token was found")


def install(module: Any) -> None:
    """Replace ``module.get_token_auth_middleware`` (Ray's token check) by one that asks the guard first."""
    native: Callable[..., Any] = module.get_token_auth_middleware
    is_head = any(argument.endswith("ray/dashboard/dashboard.py") for argument in sys.orig_argv)

    def factory(aiohttp: Any, exact_paths: Any = None, path_prefixes: Any = None) -> Any:
        inner = native(aiohttp, exact_paths, path_prefixes)
        public = frozenset(exact_paths or ())
        address = gcs_address_of(sys.argv)
        logger.info("TrainGuard guards this process (%s)", "head" if is_head else "agent")
        if not is_head:
            from compute_guard.ray_plugin.agent import agent_middleware

            return agent_middleware(aiohttp, inner, public)
        from compute_guard.ray_plugin.head import head_middleware
        from compute_guard.ray_plugin.service import Service

        service = Service(address, system_token)
        service.start()
        return head_middleware(aiohttp, inner, service, public, tuple(path_prefixes or ()))

    module.get_token_auth_middleware = factory

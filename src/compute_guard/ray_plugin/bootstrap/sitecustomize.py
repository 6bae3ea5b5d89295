"""Found first on PYTHONPATH in every Python process of a guarded Ray node; acts in the dashboard's two only.

The dashboard head and every node's agent build their HTTP middleware with one function of Ray. When that
module is imported there, the function is replaced by the guarded one. Should that fail for any reason, the
process gets a middleware that refuses everything: a guard that cannot be loaded must not mean an open door.
A ``sitecustomize`` that this one hides (a distribution's, a site's) is run first.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from pathlib import Path
from typing import Any

TARGET = "ray._private.authentication.http_token_authentication"
GUARDED = ("ray/dashboard/dashboard.py", "ray/dashboard/agent.py")


def _run_hidden_sitecustomize() -> None:
    here = Path(__file__).resolve().parent
    paths = [path for path in sys.path if Path(path or ".").resolve() != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", paths)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


class _GuardFinder(importlib.abc.MetaPathFinder):
    """Lets the real finders load TARGET, then replaces its middleware factory."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> Any:  # noqa: ARG002 - the protocol
        if fullname != TARGET:
            return None
        sys.meta_path.remove(self)
        spec: Any = importlib.util.find_spec(fullname)
        load = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            load(module)
            try:
                from compute_guard.ray_plugin.patch import install

                install(module)
            except BaseException as error:  # noqa: BLE001 - whatever it is, the door stays shut
                module.get_token_auth_middleware = _refuse_everything(repr(error))

        spec.loader.exec_module = exec_module
        return spec


def _refuse_everything(why: str) -> Any:
    def factory(aiohttp: Any, exact_paths: Any = None, path_prefixes: Any = None) -> Any:  # noqa: ARG001
        async def refuse(request: Any, handler: Any) -> Any:
            if request.path in (exact_paths or ()) and request.path.endswith("healthz"):
                return await handler(request)
            text = "TrainGuard could not be loaded, so every request is refused: " + why
            return aiohttp.web.Response(status=503, text=text)

        return aiohttp.web.middleware(refuse)

    return factory


_run_hidden_sitecustomize()
if any(argument.endswith(GUARDED) for argument in sys.orig_argv[1:6]):
    sys.meta_path.insert(0, _GuardFinder())

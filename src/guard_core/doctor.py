"""``trainguard doctor``: is this installation what it says it is?

Every part is really used: entry points are loaded, the policy engine is asked, the audit log is verified,
MLflow's registries are compared with what we declared (MLflow only warns when a plug-in breaks, and a
guard that silently is not there is worse than none). Other packages add probes through the entry-point
group ``trainguard.doctor``: a function of nothing, or of the settings, that returns :class:`Probe` values.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import entry_points
from typing import Any, Literal

import click

from guard_core.config import Settings
from guard_core.errors import GuardError
from guard_core.output import echo_json, format_option

PROBES_GROUP = "trainguard.doctor"
Status = Literal["ok", "info", "broken"]


@dataclass(frozen=True, slots=True)
class Probe:
    """One thing looked at. ``broken`` always has a ``remedy``; ``info`` is optional, or worth knowing."""

    area: str
    name: str
    status: Status
    message: str
    remedy: str = ""

    def __post_init__(self) -> None:
        if self.status == "broken" and not self.remedy:
            raise ValueError(f"the broken probe {self.area}/{self.name} must say what to do")

    def to_json(self) -> dict[str, str]:
        """``{area, name, status, message, remedy}``."""
        return asdict(self)


def examine(settings: Settings) -> list[Probe]:
    """All probes, ours first. Raises nothing: a probe that fails is a broken probe."""
    from guard_core import probes
    from guard_core.policy.lifecycle.probe import policy_store

    found: list[Probe] = []
    for look in (
        probes.packages,
        probes.environment,
        probes.home,
        probes.storage,
        probes.audit,
        probes.policy,
        policy_store,
        probes.identity,
        probes.mlflow_registries,  # before the plug-ins, as users do: MLflow first, and it loads ours
        probes.plugins,
    ):
        found += guarded("kernel", look.__name__, look, settings)
    for point in sorted(entry_points(group=PROBES_GROUP), key=lambda e: e.name):
        try:
            look = point.load()
        except Exception:  # noqa: BLE001, S112 - already reported, with its reason, by probes.plugins
            continue
        found += guarded(point.name, "probes", look, settings)
    return found


def guarded(area: str, name: str, look: Callable[..., Iterable[Probe]], settings: Settings) -> list[Probe]:
    """What ``look`` finds; when it raises, one broken probe saying so."""
    try:
        return list(look(settings) if inspect.signature(look).parameters else look())
    except GuardError as error:
        return [Probe(area, name, "broken", str(error), "do what the message says")]
    except Exception as error:  # noqa: BLE001 - doctor must survive the illness it looks for
        return [
            Probe(area, name, "broken", f"the probe failed: {error!r}", "report this as a bug of TrainGuard")
        ]


@click.command()
@format_option("text", "json")
@click.pass_context
def doctor(ctx: click.Context, output_format: str) -> None:
    """Check the installation; each problem comes with its remedy. Exit status 1 when something is broken."""
    found = examine(ctx.obj.settings())
    broken = [probe for probe in found if probe.status == "broken"]
    if output_format == "json":
        shape: dict[str, Any] = {"ok": not broken, "probes": [probe.to_json() for probe in found]}
        echo_json(shape)
    else:
        click.echo("\n".join(_text(found)))
        click.echo(f"{len(broken)} broken" if broken else "nothing is broken")
    if broken:
        ctx.exit(1)


def _text(found: list[Probe]) -> Iterable[str]:
    width = max((len(f"{probe.area} {probe.name}") for probe in found), default=0)
    for probe in found:
        yield f"{probe.status:<6}  {f'{probe.area} {probe.name}':<{width}}  {probe.message}"
        if probe.remedy and probe.status != "ok":
            yield f"{'':<6}  {'':<{width}}  -> {probe.remedy}"

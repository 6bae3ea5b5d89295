"""``trainguard dataset``: register, scan, fingerprint, verify, diff, show, list, alias.

Further commands are in :mod:`dataset_guard.commands`: about one version, about suites, about MLflow runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dataset_guard.commands import disclosure as disclosure_cli
from dataset_guard.commands import reads as reads_cli
from dataset_guard.commands import runs as runs_cli
from dataset_guard.commands import suites as suite_cli
from dataset_guard.commands import versions as version_cli
from dataset_guard.scanning.batch_memory import memory_for_batches
from dataset_guard.scanning.collecting import collecting_seldom
from dataset_guard.urls import is_url
from guard_core.output import exit_status, fail_on_option, format_option, render

if TYPE_CHECKING:
    from dataset_guard.registration.report import Report
    from guard_core.home import Home

_Command = TypeVar("_Command", bound=Callable[..., Any])


class _Place(click.ParamType[Path | str]):
    """A path, or a URL as it is (``pathlib`` would make one slash of two)."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path | str:  # noqa: ARG002
        """The value as :func:`dataset_guard.reading.open_source` takes it."""
        return value if is_url(value) else Path(value)


_place = _Place()
_tenant = click.option("--tenant", metavar="T", help="Tenant to act for [your credential's]")


def _look_options(command: _Command) -> _Command:
    """What ``register`` and ``scan`` share."""
    options = (
        click.argument("path", type=_place),
        _tenant,
        click.option("--label", metavar="COL", help="The column with the labels."),
        click.option(
            "--split", type=click.Choice(["train", "validation", "test"]), help="Which split it is."
        ),
        click.option("--against", multiple=True, metavar="N@V", help="A set it must share no rows with."),
        click.option(
            "--eval",
            "evaluation",
            multiple=True,
            metavar="N@V|FILE",
            help="An evaluation suite whose items must not be in its texts.",
        ),
        click.option("--trusted", metavar="N@V", help="A trusted version to compare it with."),
        click.option("--suite", type=click.Path(path_type=Path), help="Expectations to check (JSON)."),
        click.option("--checks", metavar="A,B", help="Run only these checks."),
        click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="CHECK.PARAMETER=VALUE",
            help="A parameter of a check (its rule page lists them).",
        ),
        click.option("--budget", type=float, metavar="S", help="CPU-seconds for the checks while reading."),
        click.option("--ray", metavar="ADDRESS", help="Read on a Ray cluster (auto: the running one)."),
        format_option(),
        fail_on_option,
        click.pass_context,
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group()
@click.pass_context
def dataset(ctx: click.Context) -> None:
    """Register, scan, verify and compare datasets."""
    ctx.with_resource(collecting_seldom())  # before a command imports what it needs
    ctx.with_resource(memory_for_batches())


@dataset.command()
@click.option("--name", required=True, metavar="N", help="Name of the dataset; versions are numbered.")
@click.option(
    "--mlflow",
    "mlflow_uri",
    metavar="URI",
    envvar="MLFLOW_TRACKING_URI",
    show_envvar=True,
    help="Also record it as a run there.",
)
@click.option("--parent", "parents", multiple=True, metavar="N@V", help="A version it was made from.")
@click.option(
    "--transform", type=click.Path(path_type=Path), help="The code that made it; its digest is kept."
)
@click.option("--param", "parameters", multiple=True, metavar="K=V", help="A parameter of that code.")
@_look_options
def register(
    ctx: click.Context,
    path: Path | str,
    name: str,
    mlflow_uri: str | None,
    parameters: tuple[str, ...],
    **options: Any,
) -> None:
    """Check the data at PATH (or a URL) and keep a signed record of it as the next version of N."""
    from dataset_guard.registration.register import register as run

    pairs = [text.partition("=") for text in parameters]
    if any(not key or not equals for key, equals, _ in pairs):
        raise click.UsageError("write --param as NAME=VALUE")
    options["transform_parameters"] = {key: value for key, _, value in pairs}
    _look(ctx, run, path, name, mlflow_uri=mlflow_uri, **options)


@dataset.command()
@click.option("--name", default="scan", show_default=True, metavar="N", help="Name in the report.")
@_look_options
def scan(ctx: click.Context, path: Path | str, name: str, **options: Any) -> None:
    """Check the data at PATH (or a URL) and ask policy, but keep nothing."""
    from dataset_guard.registration.register import scan as run

    _look(ctx, run, path, name, **options)


def _look(
    ctx: click.Context,
    run: Callable[..., Report],
    path: Path | str,
    name: str,
    *,
    output_format: str,
    fail_on: str,
    checks: str | None,
    settings: tuple[str, ...],
    mlflow_uri: str | None = None,
    **options: Any,
) -> None:
    from dataset_guard.commands.progress import shown

    names = None if checks is None else [part.strip() for part in checks.split(",") if part.strip()]
    with shown() as show:
        report = run(
            path,
            name=name,
            checks=names,
            settings=_settings(settings),
            home=ctx.obj.home(),
            progress=lambda p: show(p.stage, p.rows, p.total_rows),
            **options,
        )
    document = report.to_json() if output_format == "json" else report.document()
    click.echo(render(document, output_format))
    if mlflow_uri:
        from dataset_guard.integrations.mlflow_data import record_registration

        # After the result is out: the version exists, whatever MLflow says.
        run_id = record_registration(report, tracking_uri=mlflow_uri)
        click.echo(f"MLflow run {run_id}", err=True)
    ctx.exit(max(exit_status(document, fail_on), int(report.verdict.value == "deny")))


def _settings(given: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """``check.parameter=value`` of each; a value is JSON, or text."""
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        name, equals, value = text.partition("=")
        check, dot, parameter = name.partition(".")
        if not (check and dot and parameter and equals):
            raise click.UsageError("write --set as CHECK.PARAMETER=VALUE")
        try:
            found.setdefault(check, {})[parameter] = json.loads(value)
        except ValueError:
            found.setdefault(check, {})[parameter] = value
    return found


@dataset.command()
@click.argument("path", type=_place)
@click.option("--set-root/--no-set-root", default=True, help="Also the root that ignores row order.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Hash on N threads.")
@click.option(
    "--ray", "ray_address", metavar="ADDRESS", help="Hash on a Ray cluster (auto: the running one)."
)
@click.option(
    "--base", metavar="N@V", help="A version it grew from: its unchanged files are not decoded again."
)
@_tenant
@format_option("text", "json")
@click.pass_context
def fingerprint(
    ctx: click.Context,
    path: Path | str,
    set_root: bool,
    threads: int,
    ray_address: str | None,
    base: str | None,
    tenant: str | None,
    output_format: str,
) -> None:
    """Print the dg1 fingerprint of the data at PATH (or a URL): what it holds, however it is stored."""
    from dataset_guard.commands.progress import shown
    from dataset_guard.reading import open_source
    from dataset_guard.scanning.identity import identify
    from dataset_guard.sidecars.known import known_of_base

    if ray_address is not None:
        if base is not None:
            raise click.UsageError("--ray and --base do not go together")
        document = _fingerprint_on_ray(path, ray_address, set_root=set_root)
    else:
        source = open_source(path)
        known = None
        if base is not None:
            known = known_of_base(source, base, set_root=set_root, tenant=tenant, home=ctx.obj.home())
        with shown() as show:
            found = identify(
                source,
                set_root=set_root and (known is None or known.rows is not None),
                threads=threads,
                known=known,
                progress=lambda r, n: show("fingerprint", r, n),
            )
        document = {**found.fingerprint.to_json(), "seconds": round(found.seconds, 3)}
    if output_format == "json":
        _echo_json(document)
    else:
        click.echo(document["fingerprint"])


def _fingerprint_on_ray(path: Path | str, address: str, *, set_root: bool) -> dict[str, Any]:
    from dataset_guard.ray_data import connected, fingerprint

    with connected(address):
        return {**fingerprint(path, set_root=set_root).to_json(), "seconds": None}


@dataset.command()
@click.argument("ref", metavar="N@V")
@click.option("--path", type=_place, help="Compare with this instead of where it was.")
@click.option(
    "--keyless", is_flag=True, help="By the signed BLAKE3 of each file alone, not by the tenant's keyed tags."
)
@_tenant
@format_option("text", "json")
@click.pass_context
def verify(
    ctx: click.Context,
    ref: str,
    path: Path | str | None,
    keyless: bool,
    tenant: str | None,
    output_format: str,
) -> None:
    """Is the data of N@V still what was registered? If not, say which file, block, column and rows."""
    from dataset_guard.changes.verify import verify as run
    from dataset_guard.commands.progress import shown
    from dataset_guard.commands.text import verification_text

    with shown() as show:
        found = run(
            ref,
            path=path,
            tenant=tenant,
            home=ctx.obj.home(),
            progress=lambda r, n: show("verify", r, n),
            keyless=keyless,
        )
    if output_format == "json":
        _echo_json(found.to_json())
    else:
        click.echo(verification_text(found))
    ctx.exit(0 if found.ok else 1)


@dataset.command()
@click.argument("a")
@click.argument("b")
@click.option("--key", metavar="COL", help="A column whose values name the rows.")
@_tenant
@format_option("text", "json")
@click.pass_context
def diff(ctx: click.Context, a: str, b: str, key: str | None, tenant: str | None, output_format: str) -> None:
    """What changed from A to B (registered versions or paths): columns, added, removed and changed rows."""
    from dataset_guard.changes.diff import diff as run
    from dataset_guard.commands.text import difference_text

    found = run(a, b, key=key, tenant=tenant, home=ctx.obj.home())
    if output_format == "json":
        _echo_json(found.to_json())
    else:
        click.echo(difference_text(found))


@dataset.command()
@click.argument("ref", metavar="N[@V]")
@_tenant
@format_option()
@click.pass_context
def show(ctx: click.Context, ref: str, tenant: str | None, output_format: str) -> None:
    """Show the report of a registered version (the latest when none is named)."""
    from dataset_guard.reads.access import stored_report
    from dataset_guard.registry.caller import caller_of
    from dataset_guard.registry.store import Registry
    from dataset_guard.registry.waivers import waivers_now

    home: Home = ctx.obj.home()
    reference = Registry(home).reference(ref, tenant=caller_of(home, ref, tenant=tenant).tenant)
    waived = waivers_now(home, [reference.version]).get(reference.version.ref, [])
    click.echo(render({**stored_report(reference).document(), "waived": waived}, output_format))


@dataset.command()
@click.argument("ref", metavar="N[@V]")
@_tenant
@format_option("text", "json")
@click.pass_context
def lineage(ctx: click.Context, ref: str, tenant: str | None, output_format: str) -> None:
    """Show what N@V was made from and what was made from it, with the digests of the transforms."""
    from dataset_guard.commands.text import lineage_text
    from dataset_guard.registry.lineage import lineage as run

    found = run(ref, tenant=tenant, home=ctx.obj.home())
    if output_format == "json":
        _echo_json(found.to_json())
    else:
        click.echo(lineage_text(found))


@dataset.command("list")
@_tenant
@format_option("text", "json")
@click.pass_context
def list_(ctx: click.Context, tenant: str | None, output_format: str) -> None:
    """List registered versions: the tenant's, or everybody's for a platform admin.

    One whose record is not to be trusted (a revoked key, a changed file) is `refused`, with the reason.
    """
    from dataset_guard.commands.text import version_json, versions_text
    from dataset_guard.registry.aliases import aliases_of
    from dataset_guard.registry.store import Registry
    from dataset_guard.registry.waivers import waivers_now

    home: Home = ctx.obj.home()
    principal = home.principal(tenant=tenant)
    everybody = principal.is_platform_admin and tenant is None
    tenants = sorted({*home.tenants(), principal.tenant}) if everybody else [principal.tenant]
    registry = Registry(home)
    found = [v for t in tenants for v in registry.all_versions(tenant=t) if v.deleted_at is None]
    aliases = {ref: names for t in tenants for ref, names in aliases_of(home, tenant=t).items()}
    waived = {
        ref: rules
        for ref, asked in waivers_now(home, found).items()
        if (rules := [one["rule_id"] for one in asked if one["approver"] is not None])
    }
    refused = {v.ref: problem for v in found if (problem := registry.problem(v)) is not None}
    if output_format == "json":
        _echo_json(
            [
                {
                    **version_json(v),
                    "problem": refused.get(v.ref),
                    "aliases": aliases.get(v.ref, []),
                    "waived": waived.get(v.ref, []),
                }
                for v in found
            ]
        )
        return
    if found:
        notes = {v.ref: [f"@{name}" for name in aliases.get(v.ref, [])] for v in found}
        for ref, rules in waived.items():
            notes[ref].append(f"waived {', '.join(rules)}")
        click.echo(versions_text(found, notes, refused))
    else:
        click.echo("no datasets are registered yet", err=True)


@dataset.command()
@click.argument("ref", metavar="N@V")
@click.argument("alias")
@click.option("--remove", is_flag=True, help="Let N@ALIAS name nothing any more.")
@_tenant
@click.pass_context
def alias(ctx: click.Context, ref: str, alias: str, remove: bool, tenant: str | None) -> None:
    """Let N@ALIAS name the version N@V from now on."""
    from dataset_guard.registry.aliases import move_alias, remove_alias

    if remove:
        version = remove_alias(ctx.obj.home(), ref, alias, tenant=tenant)
        click.echo(f"{version.ref} is no longer {version.tenant}/{version.name}@{alias}", err=True)
        return
    version = move_alias(ctx.obj.home(), ref, alias, tenant=tenant)
    click.echo(f"{version.tenant}/{version.name}@{alias} is now version {version.version}", err=True)


_GROUPS = (version_cli, suite_cli, disclosure_cli, runs_cli, reads_cli)
for _more in (command for group in _GROUPS for command in group.COMMANDS):
    dataset.add_command(_more)


def _echo_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))

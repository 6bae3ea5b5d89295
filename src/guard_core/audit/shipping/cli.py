"""``trainguard audit ship``."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from guard_core.counting import counted
from guard_core.errors import Denied, UserError
from guard_core.findings import Enforcement

if TYPE_CHECKING:
    from guard_core.audit.shipping.sinks import Sink


@click.command()
@click.option("--to", "target", required=True, metavar="FILE|URL", help="JSON lines file, or collector.")
@click.option("--follow", is_flag=True, help="Go on with what comes, and through failures, until stopped.")
@click.option("--kind", default="decision", show_default=True, help="Records to deliver, as export; or: all.")
@click.option(
    "--batch", "events", default=500, show_default=True, type=click.IntRange(1, 100_000), help="Most events."
)
@click.option(
    "--batch-bytes",
    default=1 << 20,
    show_default=True,
    type=click.IntRange(1),
    help="Most bytes, uncompressed.",
)
@click.option("--token-file", type=click.Path(path_type=Path), help="File with the collector's bearer token.")
@click.option("--ca-file", type=click.Path(path_type=Path), help="PEM authorities for an https collector.")
@click.option(
    "--client-cert",
    type=click.Path(path_type=Path),
    help="PEM certificate to show the collector (mutual TLS).",
)
@click.option(
    "--client-key", type=click.Path(path_type=Path), help="Its private key [in the certificate's file]."
)
@click.option(
    "--deadline",
    default=30.0,
    show_default=True,
    type=click.FloatRange(0.05, 600),
    help="Seconds a request may take.",
)
@click.option(
    "--attempts",
    default=5,
    show_default=True,
    type=click.IntRange(1),
    help="Without --follow: tries per batch.",
)
@click.option(
    "--poll",
    default=1.0,
    show_default=True,
    type=click.FloatRange(0.01),
    help="With --follow: seconds between looks.",
)
@click.option("--from-start", is_flag=True, help="Forget how far this target came; send everything.")
@click.pass_context
def ship(
    ctx: click.Context,
    target: str,
    follow: bool,
    kind: str,
    events: int,
    batch_bytes: int,
    token_file: Path | None,
    ca_file: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    deadline: float,
    attempts: int,
    poll: float,
    from_start: bool,
) -> None:
    """Deliver decisions to a file, or to a collector as OPA's decision-log plugin does (POST URL/logs).

    At least once, in order, masked by guard/audit/mask. How far each target came is kept in the home
    (audit-sinks/). Exit status 3 when the target does not take a batch; nothing is lost then.
    """
    from guard_core.audit.masked import Masks
    from guard_core.audit.shipping.shipper import Limits, Shipper, sink_file, sole

    home = ctx.obj.home()
    if not home.principal().is_platform_admin:
        raise Denied("only a platform admin may ship the audit log, which holds every tenant's records")
    sink = _sink(target, home.settings.home, token_file, deadline, (ca_file, client_cert, client_key))
    position = sink_file(home.settings.home, sink.target, kind)
    with sole(position):
        if from_start or not position.exists():  # on record before anything leaves
            home.audit.event(
                "audit.sink-begun",
                subject=position.stem,
                data={"target": sink.target, "records": kind, "from_start": from_start},
                enforcement=Enforcement.COOPERATIVE,
            )
        shipper = Shipper(
            home.audit.directory,
            home.audit.head,
            sink,
            Masks(lambda: home.policy, home.clock),
            position=position,
            kind=kind,
            instance=home.signer.key_id[:32],
            clock=home.clock,
            sleep=time.sleep,
            draw=random.random,
            tell=lambda text: click.echo(text, err=True),
            limits=Limits(events, batch_bytes),
            from_start=from_start,
        )
        before = shipper.cursor.delivered
        shipper.run(follow=follow, attempts=attempts, poll_s=poll)
        delivered = shipper.cursor.delivered - before
    click.echo(f"delivered {counted(delivered, 'event')} to {sink.target}", err=True)


def _sink(
    target: str,
    home: Path,
    token_file: Path | None,
    deadline: float,
    tls: tuple[Path | None, Path | None, Path | None],
) -> Sink:
    from guard_core.audit.shipping.sinks import FileSink, HttpSink

    if "://" in target:
        authorities, cert, key = tls
        return HttpSink(
            target,
            token_file=token_file,
            ca_file=authorities,
            client_cert=cert,
            client_key=key,
            deadline_s=deadline,
        )
    if token_file is not None or any(file is not None for file in tls):
        raise UserError(
            "--token-file, --ca-file, --client-cert and --client-key are for a URL, "
            f"and --to {target} is a file"
        )
    return FileSink(Path(target), forbidden=home)

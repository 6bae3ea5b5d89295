"""The root of the ``trainguard`` command.

Groups are entry points (``trainguard.commands``) and are imported only when they run, so that
``trainguard --help`` stays instant. Errors are one sentence on stderr with the leaf's exit code: 1 denied or
tampered, 2 the user's mistake, 3 undecidable; 130 interrupted, 70 a bug (with its traceback).
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import EntryPoint, PackageNotFoundError, distribution, entry_points
from typing import TYPE_CHECKING, Any

import click

from guard_core.errors import Denied, GuardError, UserError
from guard_core.version import __version__

if TYPE_CHECKING:
    from guard_core.config import Settings
    from guard_core.home import Home

COMMANDS_GROUP = "trainguard.commands"

SUMMARIES = {
    "demo": "Run the main job end to end on embedded defaults.",
    "doctor": "Check the installation; each problem comes with its remedy.",
    "config": "Show the settings in force and where each comes from.",
    "dataset": "Register, scan, verify and compare datasets.",
    "policy": "Check, test, replay and explain policies.",
    "compute": "Admission, quota and isolation on Ray.",
    "incident": "Unusual use: list, explain, acknowledge, resolve.",
    "response": "The response ladder: approve and undo actions.",
    "drill": "Rehearse incidents against a canary tenant.",
    "tenant": "Issue, list and revoke credentials.",
    "audit": "Verify, export and prove the audit log.",
    "keys": "Keys that sign records, and keys whose records are believed.",
}
"""One line for each of our groups, in the order of ``--help``, which must not import them to learn it."""


class CommandContext:
    """``ctx.obj`` of every command: settings and home of this call, opened when first asked for."""

    def __init__(self, *, home: str | None = None, config: str | None = None) -> None:
        self._overrides = {"home": home, "config": config}

    @cached_property
    def _settings(self) -> Settings:
        from guard_core.config import load_settings

        return load_settings(**self._overrides)

    @cached_property
    def _home(self) -> Home:
        from guard_core.home import Home

        return Home.open(self._settings)

    def settings(self) -> Settings:
        """The settings in force. Raises UserError."""
        return self._settings

    def settings_with_origins(self) -> tuple[Settings, dict[str, str]]:
        """The settings and each key's origin. Raises UserError."""
        from guard_core.config import load_settings_with_origins

        return load_settings_with_origins(**self._overrides)

    def home(self) -> Home:
        """The opened home. Raises UserError, Undecidable."""
        return self._home


class RootGroup(click.Group):
    """A group whose members are entry points, found by name and loaded when run."""

    @cached_property
    def _own(self) -> dict[str, EntryPoint]:
        # One distribution's metadata is read in well under a millisecond; all of them in tens.
        try:
            ours = distribution("trainguard").entry_points
        except PackageNotFoundError:
            return {}
        return {e.name: e for e in ours if e.group == COMMANDS_GROUP}

    @cached_property
    def _all(self) -> dict[str, EntryPoint]:
        # Ours win: another package cannot take the place of a command of TrainGuard.
        return {**{e.name: e for e in entry_points(group=COMMANDS_GROUP)}, **self._own}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Our groups in the order of the user's work, then other packages' by name."""
        order = list(SUMMARIES)
        return sorted(self._all, key=lambda name: (order.index(name) if name in order else len(order), name))

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Load one command. Raises UserError when its package is broken."""
        point = self._own.get(cmd_name) or self._all.get(cmd_name)
        if point is None:
            return None
        try:
            command = point.load()
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"the command {cmd_name!r} ({point.value}) cannot be loaded: {error}; run: trainguard doctor"
            ) from error
        if not isinstance(command, click.Command):
            raise UserError(f"the command {cmd_name!r} ({point.value}) is not a click command")
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run; a reader of stdout that has gone (``| head``) ends us as it would any program of the shell."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # click itself would exit with 1, which here means denied
            raise click.exceptions.Exit(_reader_gone()) from None
        except Denied as error:
            if error.decision_id:
                _say_what_would_be_allowed(ctx.obj, error)
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of ``--help``, without importing any of its commands."""
        with formatter.section("Commands"):
            formatter.write_dl(
                [
                    (name, SUMMARIES.get(name, f"({self._all[name].value})"))
                    for name in self.list_commands(ctx)
                ]
            )


@click.group(cls=RootGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--home", type=click.Path(), metavar="DIR", help="State directory [TRAINGUARD_HOME, .trainguard]"
)
@click.option("--config", type=click.Path(), metavar="FILE", help="Settings file [TRAINGUARD_CONFIG]")
@click.version_option(__version__, prog_name="trainguard")
@click.pass_context
def root(ctx: click.Context, home: str | None, config: str | None) -> None:
    """Guardrails for shared AI clusters: datasets, compute, one policy for both."""
    ctx.obj = CommandContext(home=home, config=config)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    # At exit Python looks through everything once more for cycles, just before the system takes it all back:
    # half a second after a command that has loaded pandas. Frozen, nothing is looked through.
    atexit.register(gc.freeze)
    try:
        status: Any = root.main(
            args=None if args is None else list(args), prog_name="trainguard", standalone_mode=False
        )
        sys.stdout.flush()
    except GuardError as error:
        _fail(str(error), error.exit_code)
        for note in getattr(error, "__notes__", ()):
            click.echo(note, err=True)
        return error.exit_code
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return error.exit_code
    except click.ClickException as error:
        where = (
            f" (see: {error.ctx.command_path} --help)"
            if isinstance(error, click.UsageError) and error.ctx
            else ""
        )
        said = " ".join(error.format_message().split())  # click lists choices one per line
        return _fail(said.rstrip(".") + where, 2)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    except BrokenPipeError:
        return _reader_gone()
    except Exception:  # noqa: BLE001 - the last line of defence: a bug keeps its traceback and its own status
        import traceback

        traceback.print_exc()
        return 70
    return status if isinstance(status, int) and not isinstance(status, bool) else 0


def _say_what_would_be_allowed(context: CommandContext, error: Denied) -> None:
    """Note the smallest changes that policy would have allowed: the person who was refused reads them.

    Where none was found, what the policy's own notes say to do instead.
    """
    from contextlib import suppress

    from guard_core.policy.explanation import explain

    with suppress(GuardError, click.ClickException):  # a denial is told whatever can be found out about it
        explained = explain(context.home(), error.decision_id)
        found = () if explained.would is None else explained.would.found[:3]
        for one in found:
            error.add_note(f"allowed if you {one.to_text()}")
        for said in () if found else explained.to_json()["instead"].values():
            error.add_note(f"instead: {said}")


def _reader_gone() -> int:
    """128 + SIGPIPE; and Python's own flush at exit finds something that takes it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 141


def _fail(sentence: str, status: int) -> int:
    click.echo(f"error: {sentence}", err=True)
    return status

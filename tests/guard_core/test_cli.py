import re
import subprocess
import sys
from importlib.metadata import EntryPoint, entry_points

import click
import pytest

from guard_core import cli
from guard_core.cli import main, root
from guard_core.errors import Denied, MissingExtra, Tampered, Undecidable, UserError

HEAVY = {
    "ray",
    "mlflow",
    "great_expectations",
    "pandas",
    "numba",
    "sklearn",
    "sqlalchemy",
    "alembic",
    "numpy",
    "pyarrow",
    "pydantic",
    "pydantic_settings",
    "cryptography",
    "yaml",
    "jinja2",
    "regorus",
    "asyncio",
    "requests",
}


@pytest.fixture
def command(monkeypatch):
    """Add a command to the root for one test."""

    def add(function, name="probe"):
        made = click.command(name)(function)
        point = EntryPoint(name, f"{__name__}:{name}", cli.COMMANDS_GROUP)
        monkeypatch.setattr(EntryPoint, "load", lambda self: made if self is point else load(self))
        monkeypatch.setitem(root._own, name, point)
        monkeypatch.setitem(root._all, name, point)

    load = EntryPoint.load
    return add


def test_help_loads_nothing_heavy_and_none_of_the_commands(run_python):
    said = run_python(
        f"""
        import io, contextlib, sys
        from guard_core.cli import main
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main(["--help"]) == 0
        assert "dataset" in out.getvalue()
        loaded = set(sys.modules)
        guards = [m for m in loaded if m.startswith(("dataset_guard", "compute_guard"))]
        print(sorted(loaded & {HEAVY!r}), guards)
        """
    )
    assert said.strip() == "[] []"


def test_help_lists_every_group_with_a_summary(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for name in root.list_commands(click.Context(root)):
        assert re.search(rf"^  {name} +\S", out, re.MULTILINE)


def test_every_command_of_ours_has_a_summary_and_every_summary_a_command():
    ours = entry_points(group=cli.COMMANDS_GROUP)
    assert {point.name for point in ours if point.dist.name == "trainguard"} == set(cli.SUMMARIES)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UserError("the file x is not there"), 2),
        (MissingExtra.of("mlflow", "mlflow"), 2),
        (Denied("not yours", "dec-1"), 1),
        (Tampered("block 3 differs"), 1),
        (Undecidable("the engine is down"), 3),
    ],
)
def test_an_error_is_one_sentence_on_stderr_and_its_own_exit_status(command, capsys, error, status):
    def probe():
        raise error

    command(probe)
    assert main(["probe"]) == status
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: {error}\n"


def test_a_bug_keeps_its_traceback_and_exits_70(command, capsys):
    def probe():
        raise ZeroDivisionError("a bug")

    command(probe)
    assert main(["probe"]) == 70
    assert "Traceback" in (err := capsys.readouterr().err)
    assert "ZeroDivisionError: a bug" in err


def test_an_interrupt_exits_130_without_a_traceback(command, capsys):
    def probe():
        raise KeyboardInterrupt

    command(probe)
    assert main(["probe"]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("way", ["ctx", "sys", "return"])
def test_a_command_may_choose_its_exit_status(command, way):
    @click.pass_context
    def probe(ctx):
        if way == "ctx":
            ctx.exit(1)
        if way == "sys":
            sys.exit(1)
        return 1

    command(probe)
    if way == "sys":
        with pytest.raises(SystemExit, match="1"):
            main(["probe"])
    else:
        assert main(["probe"]) == 1


@pytest.mark.parametrize(
    "arguments", [["nope"], ["--nope"], ["audit", "nope"], ["audit", "verify", "--format", "xml"]]
)
def test_wrong_usage_is_one_sentence_with_where_to_look_and_exits_2(capsys, arguments):
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "--help)" in err
    assert len(err.splitlines()) == 1


def test_a_missing_choice_is_told_on_one_line(capsys):
    assert main(["dataset", "export", "digits@1"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_command_that_cannot_be_loaded_is_named_and_the_others_work(monkeypatch, capsys):
    point = EntryPoint("broken", "no_such_module:x", cli.COMMANDS_GROUP)
    monkeypatch.setitem(root._own, "broken", point)
    monkeypatch.setitem(root._all, "broken", point)
    assert main(["broken"]) == 2
    assert "the command 'broken' (no_such_module:x) cannot be loaded" in capsys.readouterr().err
    assert main(["--help"]) == 0


def test_another_package_cannot_take_the_place_of_one_of_our_commands(monkeypatch):
    theirs = EntryPoint("audit", "evil:audit", cli.COMMANDS_GROUP)
    monkeypatch.setattr(cli, "entry_points", lambda group: [theirs])
    group = cli.RootGroup("trainguard")
    assert group._all["audit"].value == "guard_core.audit.cli:audit"


def test_the_options_of_the_root_reach_every_command(command, tmp_path):
    seen = []

    @click.pass_obj
    def probe(obj):
        seen.append(obj.home().settings.home)
        assert obj.home() is obj.home()

    command(probe)
    assert main(["--home", str(tmp_path / "h"), "probe"]) == 0
    assert seen == [tmp_path / "h"]


def test_the_installed_script_works_and_a_reader_that_leaves_early_is_no_denial(home):
    from guard_core.findings import Enforcement

    for _ in range(300):
        home.audit.append([{"kind": "test", "filler": "x" * 1000}] * 3)
    home.audit.event("x.y", subject="", data={}, enforcement=Enforcement.DETECTIVE)
    code = "import sys; from guard_core.cli import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "audit", "export"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == 141


def test_the_version_is_the_packages(capsys):
    from guard_core.version import __version__

    assert main(["--version"]) == 0
    assert __version__ in capsys.readouterr().out

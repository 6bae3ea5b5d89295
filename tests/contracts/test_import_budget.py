"""What starting costs: heavy packages stay out until something needs them."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"ray", "mlflow", "great_expectations", "pandas", "numba", "sklearn"} | {"sqlalchemy", "pyarrow"}


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split("\n")[-2].split())


def test_the_probe_sees_a_heavy_import_when_there_is_one() -> None:
    assert "pyarrow" in loaded_after("import pyarrow")


@pytest.mark.parametrize("package", ["guard_core", "dataset_guard", "compute_guard"])
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    assert loaded_after(f"import {package}") & HEAVY == set()


def test_help_loads_nothing_heavy() -> None:
    statement = (
        "from guard_core.cli import main\n"
        "import sys, contextlib, io\n"
        "sys.argv = ['trainguard', '--help']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n"
        "    main()"
    )
    assert loaded_after(statement) & HEAVY == set()

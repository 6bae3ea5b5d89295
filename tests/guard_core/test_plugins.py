"""Entry points are read once, and again when a package was installed or removed."""

import shutil
from importlib.metadata import entry_points

from guard_core import plugins
from guard_core.plugins import offered

GROUP = "dataset_guard.checks"


def test_it_is_what_the_library_says_and_is_read_once(monkeypatch):
    assert sorted(offered(GROUP)) == sorted(entry_points(group=GROUP)) != []
    monkeypatch.setattr(plugins, "entry_points", lambda: 1 / 0)
    assert "schema" in offered(GROUP).names
    assert list(offered("no.such.group")) == []


def test_a_package_that_is_installed_or_removed_meanwhile_is_seen(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    assert "late" not in offered(GROUP).names
    folder = tmp_path / "late-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: late\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text(f"[{GROUP}]\nlate = late:CHECK\n")
    assert "late" in offered(GROUP).names
    shutil.rmtree(folder)
    assert "late" not in offered(GROUP).names

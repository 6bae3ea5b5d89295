"""A worker that lowers the CPU share of its session lowers it for a moment only."""

import subprocess
from pathlib import Path

import pytest

from compute_guard.ray_plugin.gates.shares import restore


def test_a_lowered_share_is_put_back(tmp_path):
    file = tmp_path / "7" / "autogroup"
    file.parent.mkdir()
    for said, lowered in (("/autogroup-5 nice 0\n", False), ("/autogroup-5 nice 19\n", True)):
        file.write_text(said)
        assert restore(7, tmp_path) is lowered
    assert file.read_text() == "0"
    assert not restore(8, tmp_path)  # it has ended


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="a kernel without autogroups")
def test_the_kernel_takes_it():
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as process:
        try:
            share = Path(f"/proc/{process.pid}/autogroup")
            share.write_text("19")
            assert share.read_text().endswith("nice 19\n")
            assert restore(process.pid)
            assert share.read_text().endswith("nice 0\n")
        finally:
            process.kill()

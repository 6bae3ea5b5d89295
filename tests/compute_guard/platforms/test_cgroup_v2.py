"""Limits of tenants' processes in a kernel with cgroup v2: user-mode Linux, on this machine's files."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.clusters, pytest.mark.timeout(300)]

INIT = """#!/bin/sh
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
mount -t proc proc /proc; mount -t sysfs sys /sys
mount -t cgroup2 none /sys/fs/cgroup
{python} {script} && echo held
echo o > /proc/sysrq-trigger; sleep 60
"""
MACHINE = ("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "mem=700M", "quiet")


def test_a_kernel_holds_tenants_to_their_leases(tmp_path):
    if shutil.which("linux.uml") is None:
        pytest.skip("user-mode Linux is not installed; apt-get install user-mode-linux")
    init = tmp_path / "init"
    script = Path(__file__).with_name("inside_cgroup_v2.py")
    init.write_text(INIT.format(python=sys.executable, script=script))
    init.chmod(0o755)
    done = subprocess.run(
        ["linux.uml", *MACHINE, "con=null", "con0=fd:0,fd:1", f"init={init}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=240,
        check=False,
    )
    assert "\nheld" in done.stdout.replace("\r", ""), done.stdout

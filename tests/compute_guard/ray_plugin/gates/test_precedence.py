"""A gate runs before others as far as the kernel lets it, and what it starts does not."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from compute_guard.ray_plugin.gates.precedence import NICE, SLICE_NS

TOLD = """
import json, os, re, subprocess, sys
from pathlib import Path
from compute_guard.ray_plugin.gates import precedence
def seen():
    rows = Path("/proc/self/sched")
    found = re.search(r"se.slice +: +([0-9]+)", rows.read_text()) if rows.exists() else None
    share = Path("/proc/self/autogroup")
    share = share.read_text().rsplit(None, 1)[1] if share.exists() else None
    return [os.getpriority(os.PRIO_PROCESS, 0), int(found[1]) if found else None, share]
if sys.argv[1:] != ["child"]:
    os.setpriority(os.PRIO_PROCESS, 0, int(sys.argv[1]))
    before = seen()
    precedence.go_first()
    child = subprocess.check_output([sys.executable, __file__, "child"], start_new_session=True)
    print(json.dumps([before, seen(), json.loads(child)]))
else:
    precedence.go_like_others()
    print(json.dumps(seen()))
"""


def told(tmp_path: Path, nice: int) -> list[list[object]]:
    """(nice, slice, share) of a process before it goes first, then, and of a child that goes like others."""
    (tmp_path / "told.py").write_text(TOLD)
    command = [sys.executable, str(tmp_path / "told.py"), str(nice)]
    found: list[list[object]] = json.loads(subprocess.check_output(command, start_new_session=True))
    return found


KERNEL = tuple(int(part) for part in platform.release().split(".")[:2])


@pytest.mark.skipif(KERNEL < (6, 12), reason="this kernel has one slice for all")
def test_a_gate_asks_for_short_slices_and_its_children_have_everybodys(tmp_path):
    before, first, child = told(tmp_path, os.nice(0))
    assert first[1] == SLICE_NS
    assert child[1] == before[1]


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel gives precedence to root alone")
def test_a_gate_of_root_comes_before_others_and_its_children_do_not(tmp_path):
    before, first, child = told(tmp_path, 0)
    assert (before[0], first[0], child[0]) == (0, NICE, 0)
    if before[2] is not None:
        assert (first[2], child[2]) == (str(NICE), "0")


def test_who_starts_a_cluster_further_back_has_its_gates_there_too(tmp_path):
    _, first, child = told(tmp_path, os.nice(0) + 3)
    assert first[0] == child[0] == os.nice(0) + 3

"""Machines of our own on one: each has a network address, processes, a host name and files of its own.

Linux namespaces and an overlay of this machine's root file system, so that programs that reach other machines
by ssh, and `ray stop`, which ends every Ray process it sees, can be run as they are. Needs root, iproute2,
util-linux, Debian's openssh-server, rsync and sudo. What a machine writes is gone when it ends.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from compute_guard.testing import wait_until

NETWORK = "10.77.0"
USER = "ubuntu"
SOFTWARE = "/opt/trainguard"
NEEDED = ("sshd", "ssh", "ssh-keygen", "rsync", "sudo", "ip", "unshare", "nsenter")

_START = """
set -e
stage=$1 name=$2 address=$3 software=$4
until ip link show eth0 >/dev/null 2>&1; do sleep 0.05; done
ip link set lo up; ip addr add "$address/24" dev eth0; ip link set eth0 up
ip route add default dev eth0
hostname "$name"
mount -t tmpfs -o mode=755 tmpfs "$stage"
mkdir "$stage/upper" "$stage/work" "$stage/root"
mount -t overlay -o "lowerdir=/,upperdir=$stage/upper,workdir=$stage/work" overlay "$stage/root"
cd "$stage/root"
mkdir -p ".$SOFTWARE"
mount --rbind "$software" ".$SOFTWARE"
mount -t proc proc proc; mount --rbind /dev dev; mount --rbind /sys sys
for place in dev/shm tmp; do mount -t tmpfs -o mode=1777 tmpfs $place; done
mount -t tmpfs -o mode=755 tmpfs run
mkdir run/sshd
chmod 755 root; rm -f root/.ssh/* etc/ssh/ssh_host_*
printf '127.0.0.1 localhost\\n%s %s\\n' "$address" "$name" > etc/hosts
exec chroot . sh -ec "$PREPARE"
"""
_PREPARE = f"""
useradd --create-home --shell /bin/bash {USER}
echo '{USER} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{USER}
install -d -m 700 -o {USER} -g {USER} /home/{USER}/.ssh
printf '%s\\n' "$PUBLIC_KEY" > /home/{USER}/.ssh/authorized_keys
chown {USER} /home/{USER}/.ssh/authorized_keys
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key
unset PREPARE PUBLIC_KEY SOFTWARE
exec /usr/sbin/sshd -D -e
"""


def obstacle() -> str | None:
    """Why there can be no machines here, None when there can."""
    absent = [name for name in NEEDED if shutil.which(name) is None and not Path("/usr/sbin", name).exists()]
    if absent:
        return f"not installed: {', '.join(absent)}; apt-get install openssh-server rsync sudo iproute2"
    if Path(sys.prefix).is_relative_to("/tmp"):  # where a machine has a folder of its own
        return "machines do not see this checkout, because they have a /tmp of their own; clone it elsewhere"
    return None


@dataclass(frozen=True, slots=True)
class Machine:
    """``pid``: its first process."""

    name: str
    address: str
    pid: int

    def command(self, arguments: Sequence[str], *, user: str = "") -> list[str]:
        """``arguments``, to be run on this machine, as root or as ``user``."""
        enter = ["nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid"]
        login = ["sudo", "-H", "-u", user] if user else []
        return [*enter, "--root", "--wd", *login, *arguments]

    def run(self, *arguments: str, user: str = "", seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """Run to the end. Its output is one text."""
        return subprocess.run(
            self.command(arguments, user=user),
            env={"PATH": f"{SOFTWARE}/bin:{os.environ['PATH']}", "LANG": "C.UTF-8", "TERM": "dumb"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            check=False,
        )

    def put(self, path: str, text: str, *, mode: str = "644", user: str = USER) -> None:
        """Write ``text`` to the file ``path``, owned by ``user``."""
        subprocess.run(
            self.command(["install", "-D", f"--mode={mode}", f"--owner={user}", "/dev/stdin", path]),
            input=text,
            text=True,
            check=True,
        )


class Machines:
    """A network of machines. Ends all of them, with every process they started, on exit."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._keys = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-keys-")))
        self._switch = 0
        self._count = 0

    def __enter__(self) -> Machines:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self._keys / "id"], check=True)
        self._switch = self._spawn(["sleep", "infinity"], {})
        self._in_switch("ip", "link", "add", "lan", "type", "bridge")
        self._in_switch("ip", "link", "set", "lan", "up")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def key(self) -> str:
        """The private key with which every machine's user is reached."""
        return (self._keys / "id").read_text(encoding="ascii")

    def add(self, name: str) -> Machine:
        """One more machine, which answers ssh."""
        self._count += 1
        address = f"{NETWORK}.{self._count}"
        stage = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="tg-machine-")))
        public = (self._keys / "id.pub").read_text(encoding="ascii").strip()
        pid = self._spawn(
            ["sh", "-c", _START, "sh", str(stage), name, address, sys.prefix],
            {"PREPARE": _PREPARE, "PUBLIC_KEY": public, "SOFTWARE": SOFTWARE},
        )
        port = f"port{self._count}"
        self._in_switch("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        self._in_switch("ip", "link", "set", port, "master", "lan", "up")
        machine = Machine(name, address, pid)
        wait_until(lambda: self._answers(machine), seconds=60)
        return machine

    def _answers(self, machine: Machine) -> bool:
        return machine.run("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/22").returncode == 0

    def _in_switch(self, *arguments: str) -> None:
        subprocess.run(["nsenter", f"--target={self._switch}", "--net", *arguments], check=True)

    def _spawn(self, command: Sequence[str], variables: Mapping[str, str]) -> int:
        """The process id of ``command``, the first of namespaces of its own."""
        separate = ["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--kill-child", "--mount-proc"]
        outer = subprocess.Popen(
            ["unshare", *separate, "--propagation", "private", *command],
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **variables},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._stack.callback(_end, outer)
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        wait_until(lambda: bool(children.read_text().split()), seconds=10)
        return int(children.read_text().split()[0])


def _end(outer: subprocess.Popen[bytes]) -> None:
    # --kill-child: the first process of its namespace follows, and with it all the others.
    outer.send_signal(signal.SIGKILL)
    outer.wait()

"""A real Slurm on this machine alone: munged, slurmctld and a few slurmd, on the loopback device.

`python tests/experiments/sweep/slurm_cluster.py FOLDER` starts one, prints the line that points
Slurm's commands to it, and stops it at Ctrl-C. Root is needed, and Debian's `slurm-wlm` and `munge`
(`apt-get install slurm-wlm munge`). Nothing of a Slurm that the machine may have is touched: keys,
sockets, ports and logs are the folder's own.

Each slurmd has a host name of its own (a UTS namespace), as nodes have: what a run's lock says of
its holder is then tested, too.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

NODES = ("farl1", "farl2")
_CONFIGURATION = """
ClusterName=farl
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={port}
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=bf_interval=2,sched_min_interval=200000,batch_sched_delay=1
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
SlurmctldTimeout=10
SlurmdTimeout=10
KillWait=5
MinJobAge=3600
ReturnToService=2
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""


class Cluster:
    """Slurm's daemons in a folder; a context manager."""

    def __init__(self, folder: Path, nodes: Sequence[str] = NODES) -> None:
        """Say where and how many; nothing is started."""
        self.folder, self.nodes = Path(folder).absolute(), tuple(nodes)
        self.configuration = self.folder / "slurm.conf"
        self._daemons: dict[str, subprocess.Popen] = {}

    @property
    def environment(self) -> dict[str, str]:
        """What points Slurm's commands to this cluster."""
        return {"SLURM_CONF": str(self.configuration)}

    def __enter__(self) -> "Cluster":
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """All daemons; returns when every node is idle."""
        (self.folder / "state").mkdir(parents=True, exist_ok=True)
        self._write_configuration()
        key = self.folder / "munge.key"
        key.touch(0o600)
        key.write_bytes(os.urandom(128))
        paths = {"key-file": key, "socket": self.folder / "munge.socket"}
        paths |= {f"{name}-file": self.folder / f"munge.{name}" for name in ("pid", "log", "seed")}
        words = [f"--{name}={path}" for name, path in paths.items()]
        self._spawn("munged", ["munged", "--foreground", "--force", *words])
        wait_until("munged's socket", paths["socket"].exists, 10)
        self._spawn("slurmctld", ["slurmctld", "-D", "-f", str(self.configuration)])
        for node in self.nodes:
            self.start_node(node)
        wait_until("idle nodes", lambda: set(self.states().values()) == {"idle"}, 60)

    def start_node(self, node: str) -> None:
        """One slurmd, under a host name of its own."""
        (self.folder / f"spool.{node}").mkdir(exist_ok=True)
        hosts = self.folder / "hosts"
        hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in ("localhost", *self.nodes)))
        named = 'mount --bind "$1" /etc/hosts && hostname "$0" && exec slurmd -D -N "$0" -f "$2"'
        own = ["unshare", "--uts", "--mount", "sh", "-c", named]
        self._spawn(node, [*own, node, str(hosts), str(self.configuration)])

    def kill_node(self, node: str) -> None:
        """What a power cut does: slurmd, its steps and all their processes are gone at once."""
        slurmd = self._daemons.pop(node)
        there = _namespace(slurmd.pid)
        for pid in [slurmd.pid, *(pid for pid in _processes() if _namespace(pid) == there)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        slurmd.wait()

    def states(self) -> dict[str, str]:
        """Node -> idle, mixed, down and the like."""
        words = self.command("sinfo", "--noheader", "--Node", "--format=%N %T").split()
        return dict(zip(words[::2], words[1::2], strict=True))

    def task(self, job: str) -> int | None:
        """The process that an array's task, 4_3, runs in, None while there is none."""
        array, number = job.split("_")
        wanted = {f"SLURM_ARRAY_JOB_ID={array}", f"SLURM_ARRAY_TASK_ID={number}", "SLURM_PROCID=0"}
        for pid in _processes():
            name, words = _said(pid, "comm"), set(_said(pid, "environ").split("\0"))
            if wanted <= words and name.startswith("python"):
                return pid
        return None

    def command(self, *words: str) -> str:
        """The output of one of Slurm's commands."""
        environment = os.environ | self.environment
        done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=30)
        return done.stdout if done.returncode == 0 else ""

    def stop(self) -> None:
        """End what was started here, and nothing else."""
        for node in self.nodes:
            if node in self._daemons:
                self.kill_node(node)
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(5)
            daemon.kill()
        self._daemons.clear()

    def _spawn(self, name: str, words: list[str]) -> None:
        with (self.folder / f"{name}.out").open("a") as log:
            environment = os.environ | self.environment
            self._daemons[name] = subprocess.Popen(
                words, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _write_configuration(self) -> None:
        own, *others = _free_ports(1 + len(self.nodes))
        lines = [
            f"NodeName={node} NodeAddr=127.0.0.1 NodeHostname={node} Port={port} CPUs=2"
            for node, port in zip(self.nodes, others, strict=True)
        ]
        text = _CONFIGURATION.format(port=own, folder=self.folder, nodes="\n".join(lines))
        self.configuration.write_text(text.lstrip())


def wait_until(what: str, holds: Callable[[], Any], seconds: float) -> Any:
    """The first true value of `holds`, asked every tenth of a second."""
    end = time.monotonic() + seconds
    while not (value := holds()):
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)
    return value


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _said(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except OSError:
        return ""  # gone


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/uts")
    except OSError:
        return f"gone: {pid}"


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with Cluster(Path(sys.argv[1])) as cluster:
        print(f"export SLURM_CONF={cluster.configuration}", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()

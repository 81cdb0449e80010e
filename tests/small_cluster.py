"""A Slurm of its own on this machine: munged, slurmctld and a slurmd for each node, all on loopback and in one folder, and gone with their parent."""

import contextlib
import getpass
import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
SYSTEM = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])  # daemons are often not in the path of a user
MARK = "SMALL_CLUSTER_DAEMON"
CONF = """
ClusterName=small
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort={controller}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
SlurmdTimeout=60
KillWait=5
{nodes}
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 GraceTime=30
PartitionName=high Nodes=ALL MaxTime=INFINITE PriorityTier=2 PreemptMode=OFF
"""


def lacking():
    """The programs of Slurm that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=SYSTEM) is None]


def free_ports(count):
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in taken]


class SmallCluster:
    """Nodes ``n1``, ``n2``, ... of one processor each. ``environment`` is what a client of it needs."""

    def __init__(self, folder, nodes=3):
        self.folder, self.nodes, self.running = Path(folder), [f"n{each + 1}" for each in range(nodes)], {}
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": SYSTEM}

    def __enter__(self):
        for name in ("state", *self.nodes):
            (self.folder / name).mkdir(parents=True, mode=0o700)
        self.folder.chmod(0o700)  # munged takes no folder that others can write to
        (self.folder / "munge.key").touch(mode=0o600)
        (self.folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        controller, *ports = free_ports(1 + len(self.nodes))
        lines = [f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={port} CPUs=1" for name, port in zip(self.nodes, ports, strict=True)]
        text = CONF.format(folder=self.folder, user=getpass.getuser(), controller=controller, nodes="\n".join(lines))
        (self.folder / "slurm.conf").write_text(text.lstrip())
        try:
            self._start_all()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start_all(self):
        places = {"key-file": "munge.key", "socket": "munge.socket", "pid-file": "munged.pid", "log-file": "munged.log", "seed-file": "munged.seed"}
        self._start("munged", "munged", "--force", "--foreground", "--num-threads=2", *(f"--{name}={self.folder / file}" for name, file in places.items()))
        self.until(lambda: (self.folder / "munge.socket").exists())
        self._start("slurmctld", "slurmctld", "-D", "-i")
        self.until(lambda: "UP" in self.said("scontrol", "ping"))
        for name in self.nodes:
            self.start_node(name)
        self.until(lambda: self.said("sinfo", "-h", "-N", "-p", "low", "-o", "%T").split() == ["idle"] * len(self.nodes))

    def __exit__(self, *error):
        self.said("scancel", "-u", getpass.getuser())
        for name in list(self.running):
            self.kill(name)

    def start_node(self, name):
        self._start(name, "slurmd", "-D", "-N", name)

    def _start(self, name, *words):
        own = {**self.environment, MARK: f"{self.folder}/{name}"}  # what a daemon starts for itself inherits it
        with open(self.folder / f"{name}.out", "ab") as out:
            self.running[name] = subprocess.Popen(words, env=own, stdout=out, stderr=out, start_new_session=True)

    def kill(self, name):
        """Ends a daemon at once with all that works on its node, as a power cut does."""
        daemon, mine = self.running.pop(name), [f"{MARK}={self.folder}/{name}"]
        on_node = [f"SLURMD_NODENAME={name}", f"SLURM_CONF={self.folder}/slurm.conf"]
        alive = {pid: environment_of(pid) for pid in processes()}
        for pid in [daemon.pid, *(pid for pid, said in alive.items() if said.issuperset(mine) or said.issuperset(on_node))]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        daemon.wait()

    def said(self, *words, **more):
        """What a client prints, with its errors."""
        ended = subprocess.run(words, env=self.environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120, **more)
        return ended.stdout

    def until(self, found, seconds=120):
        """Waits for something to be true, and returns it."""
        end = time.monotonic() + seconds
        while not (value := found()):
            if time.monotonic() > end:
                raise AssertionError(f"waited {seconds} s in vain\n{self.logs()}")
            time.sleep(0.2)
        return value

    def logs(self):
        return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(self.folder.glob("*.[lo][ou][gt]")))


def processes():
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def environment_of(pid):
    with contextlib.suppress(OSError):
        return set(Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").split("\0"))
    return set()

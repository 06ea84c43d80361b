"""A real Slurm cluster of the tests' own: one node, this machine, on loopback. All its files are in one directory.

munged, slurmctld and slurmd run as root, as on a cluster, so that jobs become their users. Commands (`sbatch`,
`squeue`, `srun`, `scancel`) find it by `SLURM_CONF`. Imported by tests in directories beside this file.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

PARTITION = "cpu"
_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun")
_PATIENCE_S = 60.0


class Slurm:
    """A cluster that runs. `environment`: what a process needs in its environment to reach it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.configuration = directory / "slurm.conf"
        self.environment = {"SLURM_CONF": str(self.configuration)}
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, *command: str) -> str:
        """The output of one of Slurm's commands, as root."""
        done = subprocess.run(command, env={**os.environ, **self.environment}, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout.strip()

    def start(self) -> None:
        """Returns when jobs can run."""
        munge = self.directory / "munge"
        munge.mkdir(mode=0o755)
        (munge / "key").write_bytes(os.urandom(1024))
        (munge / "key").chmod(0o400)
        self._write_configuration(munge / "socket")
        self._start(
            "munged", "--foreground", f"--socket={munge / 'socket'}", f"--key-file={munge / 'key'}",
            f"--pid-file={munge / 'pid'}", f"--seed-file={munge / 'seed'}", "--force",
        )  # fmt: skip
        self._start("slurmctld", "-D", "-f", str(self.configuration))
        self._start("slurmd", "-D", "-f", str(self.configuration), "-N", "localhost")
        self._wait_until_ready()

    def stop(self) -> None:
        """Ends jobs and daemons, whatever state they are in."""
        with contextlib.suppress(AssertionError, OSError):
            self.run("scancel", "--state=RUNNING", f"--partition={PARTITION}")
        for process in reversed(self._processes):
            process.terminate()
        for process in reversed(self._processes):
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _start(self, *command: str) -> None:
        with (self.directory / f"{Path(command[0]).name}.log").open("ab") as log:
            self._processes.append(subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log))

    def _wait_until_ready(self) -> None:
        """Slurm tells nobody when a node is ready; this asks, outside of what the tests are about."""
        deadline = time.monotonic() + _PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(AssertionError):
                if self.run("sinfo", "-h", "-o", "%T") in ("idle", "mixed"):
                    return
            time.sleep(0.2)
        pytest.fail(f"Slurm did not start; see {self.directory}/*.log:\n{self._tail()}")

    def _tail(self) -> str:
        return "\n".join("\n".join(log.read_text().splitlines()[-5:]) for log in sorted(self.directory.glob("*.log")))

    def _write_configuration(self, munge_socket: Path) -> None:
        state, spool = self.directory / "state", self.directory / "spool"
        state.mkdir(mode=0o755)
        spool.mkdir(mode=0o755)
        ports = [_free_port(), _free_port()]
        (self.directory / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\n")
        self.configuration.write_text(
            f"""\
ClusterName=tests
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={munge_socket}
CredType=cred/munge
CommunicationParameters=NoAddrCache,NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={state}
SlurmdSpoolDir={spool}
SlurmctldPidFile={self.directory}/slurmctld.pid
SlurmdPidFile={self.directory}/slurmd.pid
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
ReturnToService=2
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
KillWait=2
MinJobAge=300
AccountingStorageType=accounting_storage/none
NodeName=localhost NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=4000 State=UNKNOWN
PartitionName={PARTITION} Nodes=localhost Default=YES MaxTime=04:00:00 State=UP
"""
        )
        self.configuration.chmod(0o644)


@contextlib.contextmanager
def slurm_cluster() -> Iterator[Slurm]:
    """A cluster that runs. Without its programs, or without root, the test is skipped; in CI (`CI=true`) it fails."""
    missing = [each for each in _PROGRAMS if shutil.which(each) is None]
    reason = ""
    if os.geteuid() != 0:
        reason = "Slurm's daemons run as root, to start jobs as their users"
    elif missing:
        reason = f"no {', '.join(missing)} here (Debian: apt-get install slurmctld slurmd slurm-client munge)"
    if reason:
        if os.environ.get("CI") == "true" and missing:
            pytest.fail(reason)
        pytest.skip(reason)
    directory = Path(tempfile.mkdtemp(prefix="farcall-slurm-", dir="/tmp"))
    directory.chmod(0o755)
    slurm = Slurm(directory)
    try:
        slurm.start()
        yield slurm
    finally:
        slurm.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])

"""SLURM itself on this machine, as one node, from Debian's packages, in a folder. Partitions: low, and high, whose jobs
take the place of those of low."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

from many_processes import free_port

PROGRAMS = {"munged": "munge", "slurmctld": "slurmctld", "slurmd": "slurmd", "sbatch": "slurm-client"}
_SBIN = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


def lacking() -> str:
    """The command that installs what is not here; empty where all is. As root only: slurmd starts jobs as anybody."""
    if os.getuid() != 0:
        return "run the test as root"
    missing = [package for name, package in PROGRAMS.items() if not shutil.which(name, path=_SBIN)]
    return f"apt-get install {' '.join(missing)}" if missing else ""


# The node is called localhost, since JAX takes the address of the coordinator from its name.
_CONFIG = """
ClusterName=one
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmctldPort={controller}
SlurmdPort={daemon}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=15
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
KillWait=60
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=low Nodes=localhost Default=YES PriorityTier=1 GraceTime=120 State=UP
PartitionName=high Nodes=localhost PriorityTier=9 State=UP
"""


@contextlib.contextmanager
def cluster(folder):
    """{variable: value} with which sbatch and its kind speak to a SLURM that lives as long as the context."""
    folder = pathlib.Path(folder)
    for name in ("state", "spool"):
        (folder / name).mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o600)
    config = folder / "slurm.conf"
    config.write_text(
        _CONFIG.format(folder=folder, controller=free_port(), daemon=free_port(), cpus=max(os.cpu_count(), 2))
    )
    env = os.environ | {"SLURM_CONF": str(config), "PATH": _SBIN}
    files = [
        f"--{name}={folder}/munge.{name.split('-')[0]}" for name in ("socket", "pid-file", "log-file", "seed-file")
    ]
    commands = [
        # --force: the folder is not one that root alone can write to on every machine.
        ["munged", "--foreground", "--force", f"--key-file={key}", *files],
        ["slurmctld", "-D", "-f", config],
        ["slurmd", "-D", "-f", config, "-N", "localhost"],
    ]
    running = []
    try:
        for command in commands:
            log = (folder / f"{command[0]}.out").open("w")
            running.append(subprocess.Popen(command, env=env, stdout=log, stderr=log))
            time.sleep(1)
        wait_until(lambda: "idle" in say(env, "sinfo", "-h", "-o", "%T"), 60, lambda: logs(folder))
        yield env
    finally:
        say(env, "scancel", "--full", "--signal=KILL", "--state=RUNNING")
        for process in reversed(running):
            process.terminate()
            process.wait(60)


def say(env, *words):
    """What a command of SLURM printed; empty where it fails."""
    return subprocess.run(words, env=env, text=True, capture_output=True, timeout=60).stdout.strip()


def logs(folder):
    """The ends of the daemons' logs."""
    paths = [path for pattern in ("*.log", "*.out") for path in sorted(pathlib.Path(folder).glob(pattern))]
    return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-2000:]}" for path in paths)


def wait_until(true, seconds, explain):
    """Returns once `true()`; an AssertionError with `explain()` after so many seconds."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, explain()
        time.sleep(0.5)

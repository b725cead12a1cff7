"""Processes of one run: who coordinates them, what each one sees, and that none waits for one that is gone.

JAX finds a cluster by itself on TPU pods, under SLURM, Open MPI and Kubernetes; elsewhere flags or the environment say
who coordinates, how many processes there are and which one this is. From then on every process tells the coordinator
that it lives, and why it stops; the others end with that line, where a collective would wait for ever.
"""

import contextlib
import hashlib
import os
import pathlib
import re
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from absl import flags, logging
from jax.experimental import multihost_utils

from msddf_jax import command

# Seconds. A coordinator that starts later is not waited for, and a process that says nothing for so long is gone:
# together less than the two minutes after which a user looks.
START_TIMEOUT = 90
SILENCE = 60
_BEAT = 2
_PREFIX = "msddf_jax"
# Variables that say where a process stands, as the flags do.
VARIABLES = {
    "coordinator": "JAX_COORDINATOR_ADDRESS",
    "num_processes": "JAX_NUM_PROCESSES",
    "process_id": "JAX_PROCESS_ID",
}


class Place(NamedTuple):
    """Arguments of `jax.distributed.initialize`; None where JAX finds them by itself."""

    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_device_ids: list[int] | None = None


def define_flags() -> None:
    """The flags of a command that may run as several processes."""
    flags.DEFINE_bool("distributed", False, "One process of several, started by the launch scripts; see launch/.")
    flags.DEFINE_string("coordinator", None, f"host:port of process 0; {VARIABLES['coordinator']} says the same.")
    flags.DEFINE_integer("num_processes", None, f"Processes in all; {VARIABLES['num_processes']} says the same.")
    flags.DEFINE_integer("process_id", None, f"Number of this one, from 0; {VARIABLES['process_id']} says the same.")


def find(coordinator=None, num_processes=None, process_id=None, environ=None, gpus=None) -> Place:
    """Where this process stands: flags, else environment, else what JAX finds.

    Args:
      coordinator: "host:port". num_processes, process_id: integers. environ: in place of `os.environ`. gpus: in place
        of `visible_gpus`.

    Returns:
      Place. Under SLURM and Open MPI, JAX gives a process the one GPU that its number on the node names; here it is an
      even share of all that it sees, and all where SLURM has bound GPUs to tasks.

    Raises:
      ValueError: a part of the three only, with what lacks; what is no number; GPUs that the tasks of a node do not
      share evenly.
    """
    environ = os.environ if environ is None else environ
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    given |= {name: environ.get(VARIABLES[name]) for name, value in given.items() if value is None}
    said = {name: value for name, value in given.items() if value is not None}
    slurm = {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID"} <= set(environ)
    mpi = "OMPI_COMM_WORLD_LOCAL_RANK" in environ
    managed = slurm or mpi or {"KUBERNETES_SERVICE_HOST", "TPU_WORKER_HOSTNAMES"} & set(environ)
    if said and len(said) < len(given) and not managed:
        lacking = " and ".join(f"--{name} (or {VARIABLES[name]})" for name in given if name not in said)
        raise ValueError(f"a run of several processes got {said} and lacks {lacking}")
    for name in ("num_processes", "process_id"):
        try:
            given[name] = None if given[name] is None else int(given[name])
        except ValueError as error:
            raise ValueError(f"{VARIABLES[name]} is {given[name]!r}, expected an integer") from error
    share = _share(environ, visible_gpus(environ) if gpus is None else gpus) if slurm or mpi else None
    return Place(given["coordinator"], given["num_processes"], given["process_id"], share)


def _share(environ, gpus):
    """GPUs of this task of a node, by number; None without GPUs."""
    if not gpus or "JAX_LOCAL_DEVICE_IDS" in environ:
        return None
    if {"SLURM_GPUS_PER_TASK", "SLURM_GPU_BIND"} & set(environ):
        return list(range(gpus))
    if "SLURM_LOCALID" in environ:
        # "2(x3),1": so many tasks on each node of the step.
        tasks = [
            int(count)
            for count, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", environ.get("SLURM_STEP_TASKS_PER_NODE", "1"))
            for _ in range(int(times or 1))
        ]
        here, own = tasks[int(environ.get("SLURM_NODEID", 0)) % len(tasks)], int(environ["SLURM_LOCALID"])
    else:
        here, own = (int(environ[f"OMPI_COMM_WORLD_LOCAL_{what}"]) for what in ("SIZE", "RANK"))
    if gpus % here:
        raise ValueError(
            f"{here} tasks on this node share {gpus} GPUs, which does not come out even: "
            "set --ntasks-per-node to 1, or to a number that divides the GPUs"
        )
    first = own * (gpus // here)
    return list(range(first, first + gpus // here))


def visible_gpus(environ=None, devices=pathlib.Path("/dev")) -> int:
    """How many NVIDIA GPUs a process may use, by CUDA_VISIBLE_DEVICES, else by the device files."""
    asked = (os.environ if environ is None else environ).get("CUDA_VISIBLE_DEVICES")
    files = sum(re.fullmatch(r"nvidia\d+", path.name) is not None for path in devices.glob("nvidia*"))
    if asked is None or not files:
        return files
    # What stands behind an entry that is none is not seen either (CUDA's own rule).
    entries = [entry.strip() for entry in asked.split(",")]
    wrong = next((i for i, entry in enumerate(entries) if entry in ("", "-1", "NoDevFiles")), len(entries))
    return wrong


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """The work of a command with the flags of `define_flags`: as one process, or as one of several.

    Raises:
      ValueError: as `find`; no coordinator; a cluster that JAX does not find; GPUs that nobody uses.
    """
    values = flags.FLAGS
    place = find(values.coordinator, values.num_processes, values.process_id) if _asked(values) else None
    if place is None:
        command.check_devices()
        check_gpus()
        yield
        return
    start(place)
    try:
        watch = Watch()
    except RuntimeError as error:  # the first time that processes talk to each other
        raise ValueError(f"{_name()} cannot talk to the others: {' '.join(str(error).split())}") from error
    with watch:
        command.check_devices()
        check_gpus()
        yield


def _asked(values):
    """Whether flags say that this is one process of several."""
    named = [name for name in VARIABLES if getattr(values, name) is not None]
    if named and values["distributed"].present and not values.distributed:
        raise ValueError(f"--nodistributed, and --{named[0]}: one of the two")
    return values.distributed or bool(named)


def start(place, timeout=START_TIMEOUT) -> None:
    """`jax.distributed.initialize`, in bounded time.

    place: Place. timeout: seconds until every process is there. Raises ValueError: no coordinator, no such cluster.
    """
    if place.coordinator_address and place.process_id:
        _wait_for(place.coordinator_address, timeout)
    # JAX ends a process that waited in vain without a line that a user can read.
    many = f" and {place.num_processes} processes" if place.num_processes else ""
    late = threading.Timer(
        timeout,
        _leave,
        (f"{_name()}: after {timeout} s not every process was there (coordinator {place.coordinator_address}{many}); "
         "start all of them within that time, with the same --coordinator and --num_processes",),
    )  # fmt: skip
    late.daemon = True
    late.start()
    # With all said JAX need not look for a cluster, and would warn of packages that it then wants.
    said = None not in (place.coordinator_address, place.num_processes, place.process_id)
    looks = {"cluster_detection_method": "deactivate"} if said else {}
    try:
        jax.distributed.initialize(**place._asdict(), **looks, initialization_timeout=2 * timeout)
    except (ValueError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"no cluster could be joined ({error}): outside of TPU pods, SLURM, Open MPI and Kubernetes give "
            "--coordinator host:port, --num_processes and --process_id"
        ) from error
    finally:
        late.cancel()


def _wait_for(address, timeout):
    """Returns once something listens at "host:port"."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"the coordinator's address is {address!r}, expected host:port")
    end, reason = time.monotonic() + timeout, ""
    while time.monotonic() < end:
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            return
        except OSError as error:
            reason = str(error)
            time.sleep(1)
    raise ValueError(
        f"no coordinator at {address} within {timeout} s ({reason}): process 0 listens there; is it started, and is "
        "the port open between the machines?"
    )


def check_gpus(count=None) -> None:
    """Raise ValueError where processes of this host leave GPUs unused that they see; warn where all are left.

    count: GPUs that are seen, in place of `visible_gpus`.
    """
    seen = visible_gpus() if count is None else count
    platform, used = jax.devices()[0].platform, jax.local_device_count()
    if jax.process_count() > 1:
        mine = np.array([_number_of(socket.gethostname()), used], np.int32)
        rows = np.asarray(multihost_utils.process_allgather(mine)).reshape(-1, 2)
        used = int(rows[rows[:, 0] == mine[0], 1].sum())
    if platform == "gpu" and used < seen:
        raise ValueError(
            f"{socket.gethostname()} has {seen} GPUs that this run sees and uses {used} of them: give each process its "
            "share (JAX_LOCAL_DEVICE_IDS=0,1,...), or hide the others (CUDA_VISIBLE_DEVICES)"
        )
    if platform == "cpu" and seen and not jax.config.jax_platforms:
        logging.warning(
            "%d GPUs are there and unused: this JAX has no support for them. Install it with `bash launch/install.sh "
            "cuda13` (or cuda12); JAX_PLATFORMS=cpu says that the CPU is meant", seen,
        )  # fmt: skip


def agree(what, value) -> None:
    """Raise ValueError on every process where a text is not the same on all: a data set, a file of weights.

    what: name of it, for the message. value: str.
    """
    if jax.process_count() == 1:
        return
    digest = np.frombuffer(hashlib.sha256(value.encode()).digest(), np.int32)
    rows = np.asarray(multihost_utils.process_allgather(digest)).reshape(-1, len(digest))
    other = np.flatnonzero((rows != rows[0]).any(1))
    if other.size:
        raise ValueError(
            f"{what} is not the same everywhere: {', '.join(_name(i) for i in other)} differ from {_name(0)}; give "
            "every host the same files"
        )


class Watch:
    """Tells the other processes that this one lives, and why it stops; ends this one when another has stopped.

    A context: an error that leaves it is reported to all. The others then leave with exit code 1, and so do they where
    one has said nothing for `SILENCE` seconds. Where the coordinator itself is killed, JAX ends the others.
    """

    def __init__(self, silence=SILENCE, beat=_BEAT):
        from jax._src import distributed  # the client that JAX itself and Orbax talk through

        self._client, self._silence, self._beat = distributed.global_state.client, silence, beat
        self._own, self._count = jax.process_index(), jax.process_count()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True, name="cluster")
        self._client.key_value_set(f"{_PREFIX}/host/{self._own}", socket.gethostname(), allow_overwrite=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, error, _):
        self._over.set()
        self._thread.join()
        if kind is None or (kind is SystemExit and not error.code):
            self._say("done", "")
            return
        reason = f"{kind.__name__}: {' '.join(str(error).split())}"
        # A broken connection is how the end of another process is seen first: what that one says comes before it.
        if lost := self._who_is_gone(patience=self._silence if _is_broken_link(reason) else 0):
            _leave(lost)
        self._say("failed", reason)
        if logging.get_verbosity() >= logging.DEBUG:
            logging.error("where it was raised:", exc_info=error)
        logging.error("%s: %s (--verbosity=1 shows where)", _name(), reason)
        # Time for the others to read it.
        time.sleep(3 * self._beat)
        # Not sys.exit: JAX would wait for the others to come to the end too.
        _leave("")

    def _say(self, key, text):
        with contextlib.suppress(Exception):  # whoever coordinates may be gone
            self._client.key_value_set(f"{_PREFIX}/{key}/{self._own}", text or "-", allow_overwrite=True)

    def _all(self, key):
        """{process: text} of what the processes have said."""
        found = self._client.key_value_dir_get(f"{_PREFIX}/{key}/")
        return {int(name.rpartition("/")[2]): text for name, text in found}

    def _look(self):
        number, seen = 0, {}
        while not self._over.wait(self._beat):
            number += 1
            self._say("alive", str(number))
            if lost := self._gone(seen):
                logging.error("%s", lost)
                if self._own == 0:
                    # The connection of all goes with the one that coordinates: last of all.
                    time.sleep(5 * self._beat)
                _leave("")

    def _gone(self, seen):
        """A line about another process that has stopped, or None. seen: {process: (text, when it was new)}."""
        try:
            failed, alive, done = (self._all(key) for key in ("failed", "alive", "done"))
        except Exception as error:  # of the client's own types
            return f"{_name(0)}, which coordinates, does not answer: it stopped or its machine is gone ({error})"
        for process, reason in failed.items():
            if process != self._own:
                return f"stopped, since {_name(process)} did: {reason}"
        for process in set(range(self._count)) - {self._own} - set(done):
            text = alive.get(process, "")
            if process not in seen or seen[process][0] != text:
                seen[process] = (text, time.monotonic())
            if time.monotonic() - seen[process][1] > self._silence:
                return (
                    f"stopped, since {_name(process)} has said nothing for {self._silence} s: it was killed, or its "
                    "machine is gone. The same command on every host resumes the run"
                )
        return None

    def _who_is_gone(self, patience):
        seen, end = {}, time.monotonic() + patience
        while True:
            if lost := self._gone(seen):
                return lost
            if time.monotonic() >= end + self._beat:
                return None
            self._say("alive", str(time.monotonic()))
            time.sleep(self._beat)


def _number_of(text):
    """31 bits that stand for a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") >> 1


def _is_broken_link(reason):
    """Whether an error is that of a collective whose other side is gone."""
    return re.search(r"Gloo|NCCL|[Cc]onnection|[Hh]eartbeat|[Bb]arrier|coordination|DEADLINE|UNAVAILABLE", reason)


def _name(process=None) -> str:
    """ "process 1 on gpu-node-2"."""
    from jax._src import distributed

    state = distributed.global_state
    if process is None or process == state.process_id:
        return f"process {state.process_id} on {socket.gethostname()}"
    try:
        found = dict(state.client.key_value_dir_get(f"{_PREFIX}/host/"))
        host = next(text for name, text in found.items() if name.endswith(f"/{process}"))
    except Exception:  # not said yet, or nobody answers
        return f"process {process}"
    return f"process {process} on {host}"


def _leave(line):
    """Ends this process with exit code 1, whatever its other threads wait for."""
    if line:
        logging.error("%s", line)
    logging.flush()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)

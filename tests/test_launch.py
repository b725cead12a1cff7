"""launch/: which accelerator and interpreter are chosen, what gcloud and SLURM are told, what a container holds."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
from launch_stand_ins import ROOT, Machine

SCRIPTS = sorted((ROOT / "launch").glob("*.sh"))
EXTRAS = re.findall(r'^    "(\w+)": \[', (ROOT / "setup.py").read_text().partition("EXTRAS = {")[2], re.MULTILINE)


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_bash_reads_every_script():
    for path in SCRIPTS:
        assert path.read_text().startswith("#!/usr/bin/env bash\n# "), path
        subprocess.run(["bash", "-n", path], check=True)


def test_shellcheck_finds_nothing():
    program = shutil.which("shellcheck", path=pathlib.Path(sys.executable).parent) or shutil.which("shellcheck")
    if program is None:
        pytest.skip("shellcheck is not there: bash launch/install.sh test")
    done = subprocess.run([program, *SCRIPTS], text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


def test_extras_that_are_named_somewhere_exist():
    files = list(ROOT.glob("*.md"))
    for folder in ("docs", "colabs", "benchmarks", "msddf_jax", "data_prep"):
        files += [path for path in (ROOT / folder).rglob("*") if path.suffix in (".md", ".py", ".ipynb")]
    found = {path: re.findall(r"\.\[([a-z0-9,]+)\]", path.read_text()) for path in files}
    named = {(extra, path.name) for path, groups in found.items() for extra in ",".join(groups).split(",") if extra}
    assert {"tpu", "cuda13"} <= {extra for extra, _ in named} <= set(EXTRAS), named


@pytest.mark.parametrize(
    ("driver", "capability", "expected", "said"),
    [
        ("580.65.06", "9.0", "cuda13", "8 NVIDIA GPU(s), driver 580.65.06: CUDA 13"),
        ("595.10", "12.0", "cuda13", "driver 595.10: CUDA 13"),
        ("580.65.06", "7.0", "cuda12", "compute capability 7.0: CUDA 12 (CUDA 13 needs 7.5)"),
        ("579.99", "9.0", "cuda12", "driver 579.99: CUDA 12 (CUDA 13 needs driver 580)"),
        ("525.60.13", "8.0", "cuda12", "driver 525.60.13: CUDA 12"),
        ("470.82.01", "8.0", "", "driver 470.82.01; JAX needs 525 or newer"),
        ("No devices were found", "", "", "gave no driver version but: No devices were found"),
    ],
)
def test_the_driver_says_which_cuda(machine, driver, capability, expected, said):
    machine.add_nvidia(driver, capability, gpus=8)
    done = machine.run("accelerator.sh")
    assert (done.returncode, done.stdout) == (0, f"{expected}\n")
    assert done.stderr.startswith("accelerator: ") and said in done.stderr
    done = machine.run("accelerator.sh", JAX_PLATFORMS="cpu")
    assert done.stdout == "\n" and "JAX_PLATFORMS=cpu" in done.stderr


def test_a_driver_that_does_not_answer(machine):
    machine.add("nvidia-smi", "echo 'NVIDIA-SMI has failed because'; echo more; exit 9")
    done = machine.run("accelerator.sh")
    assert (done.returncode, done.stdout) == (0, "\n")
    assert done.stderr == "accelerator: none used: nvidia-smi is there and failed: NVIDIA-SMI has failed because\n"


@pytest.mark.parametrize(
    ("names", "expected", "said"),
    [
        (["accel0", "accel1"], "tpu", "TPU (DEV/accel0)"),
        (["vfio/vfio", "vfio/0", "vfio/10"], "tpu", "TPU (DEV/vfio/0)"),
        (["vfio/vfio"], "", "the CPU"),
        (["accel/accel0"], "", "the CPU"),  # another maker's
        (["nvidiactl", "nvidia0"], "", "DEV/nvidia0 is there, and nvidia-smi"),
        (["null"], "", "none found (no nvidia-smi, no TPU in DEV): the CPU"),
    ],
)
def test_device_files_say_what_is_there(machine, names, expected, said):
    for name in names:
        path = machine.folder / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    done = machine.run("accelerator.sh")
    assert (done.returncode, done.stdout) == (0, f"{expected}\n")
    assert said.replace("DEV", str(machine.folder / "dev")) in done.stderr


def _installed_with(machine):
    """(interpreter that made .venv, what pip installed) by the calls."""
    calls = machine.calls()
    (made,) = [line.split()[0] for line in calls if line.endswith("-m venv .venv")]
    (pip,) = [line for line in calls if line.startswith("python -m pip install")]
    return made, pip.split(" -e ")[1]


def test_a_newer_interpreter_on_the_path(machine):
    machine.add_python("python3", "3.10.12")
    machine.add_python("python3.11", "3.11.2")
    machine.add_python("python3.12", "3.12.4")
    done = machine.run("install.sh")
    assert done.returncode == 0, done.stderr
    assert _installed_with(machine) == ("python3.12", ".")
    assert "Python 3.10.12 is too old or incomplete: using python3.12" in done.stderr
    # All is there: nothing is asked for again, unless the lock is newer.
    assert machine.run("install.sh").returncode == 0 and machine.calls() == []
    later = time.time() + 5
    (machine.tree / "requirements.lock").touch()
    os.utime(machine.tree / "requirements.lock", (later, later))
    machine.run("install.sh")
    assert len(machine.calls()) == 1


def test_an_interpreter_from_apt(machine):
    machine.add_python("python3", "3.10.12")
    machine.add("id", "echo 1000")
    machine.add("sudo", 'exec "$@"')
    spare = machine.add_python("spare", "3.11.9", folder=machine.folder)
    machine.add("apt-get", f'note "$@"; [ "$1" = update ] || cp {spare} {machine.bin}/python3.11')
    done = machine.run("install.sh")
    assert done.returncode == 0 and "using python3.11 from apt-get" in done.stderr, done.stderr
    asked = [line for line in machine.calls() if line.startswith("apt-get")]
    assert asked[0] == "apt-get update -qq" and asked[1].endswith(" python3.11 python3.11-venv")
    # The lock is for this version.
    machine.run("install.sh", "test")
    (call,) = machine.calls()
    assert call.endswith(" -c requirements.lock -e .\\[test\\]")


def test_an_interpreter_without_its_venv_module(machine):
    machine.add("id", "echo 0")
    machine.add_python("python3", "3.12.3", complete=False)
    spare = machine.add_python("spare", "3.12.3", folder=machine.folder)
    machine.add("apt-get", f'note "$@"; [ "$1" = update ] || cp {spare} {machine.bin}/python3.12')
    done = machine.run("install.sh")
    assert done.returncode == 0 and "python3 lacks the modules venv and ensurepip" in done.stderr, done.stderr
    assert machine.calls()[1].endswith(" python3.12 python3.12-venv")


@pytest.mark.parametrize("there", [True, False])
def test_an_interpreter_from_uv(machine, there):
    machine.add("id", "echo 0")
    machine.add(
        "apt-get", 'note "$@"; [ "$1" = update ] || { echo "E: Unable to locate package python3.11"; exit 100; }'
    )
    own = machine.add_python("python3.11", "3.11.13", folder=machine.folder / "of_uv")
    body = f'note "$@"; [ "$2 $UV_PYTHON_PREFERENCE" != "find only-managed" ] || echo {own}'
    if there:
        machine.add("uv", body)
    else:
        machine.add("uv", body, folder=machine.folder)
    machine.add_python("python3", "3.10.12", pip=f'mkdir -p "$7/bin" && cp {machine.folder}/uv "$7/bin"')
    done = machine.run("install.sh")
    assert done.returncode == 0 and f"using {own} from uv" in done.stderr, done.stderr
    calls = machine.calls()
    assert (
        ("uv python install 3.11" in calls) and ("uv python find 3.11" in calls) and "python3.11 -m venv .venv" in calls
    )
    assert any(line.startswith("python3 -m pip install") and line.endswith(" uv") for line in calls) != there


def test_no_interpreter_at_all(machine):
    done = machine.run("install.sh")
    assert done.returncode == 1 and "newer is needed and no python3 was found" in done.stderr
    machine.add_python("python3", "3.10.12", pip="echo no such package; exit 1")
    done = machine.run("install.sh")
    assert done.returncode == 1 and not (machine.tree / ".venv").exists()
    last = done.stderr.splitlines()[-1]
    assert "found: Python 3.10.12" in last and "Neither apt-get nor uv" in last and "set PYTHON" in last
    done = machine.run("install.sh", PYTHON="python3")
    assert done.returncode == 1 and "PYTHON=python3 is Python 3.10.12" in done.stderr


def test_auto_stands_for_the_accelerator(machine):
    machine.add_python("python3", "3.13.1")
    machine.add_nvidia("550.54.15")
    done = machine.run("install.sh", "test,auto")
    assert done.returncode == 0 and "driver 550.54.15: CUDA 12" in done.stderr
    assert _installed_with(machine) == ("python3", ".\\[test\\,cuda12\\]")
    # What was installed by name counts too: a node without a network needs nothing.
    assert machine.run("install.sh", "auto").returncode == 0 and machine.calls() == []
    machine.add_nvidia("580.65.06")
    done = machine.run("install.sh", "auto")
    assert "cuda13 takes the place of cuda12" in done.stderr
    assert [line.split(" --")[0] for line in machine.calls()] == ["python -m pip uninstall", "python -m pip install"]
    (machine.bin / "nvidia-smi").unlink()
    assert machine.run("install.sh", "auto").returncode == 0 and machine.calls() == []  # the CPU: no extra


def test_two_installations_take_turns(machine):
    machine.add_python("python3", "3.12.0")
    (machine.tree / ".venv").mkdir()
    with subprocess.Popen(["flock", machine.tree / ".venv" / ".lock", "sleep", "1"]):
        _until(lambda: (machine.tree / ".venv" / ".lock").exists())
        time.sleep(0.1)
        done = machine.run("install.sh")
    assert done.returncode == 0 and "another installation into .venv is at work: waiting" in done.stderr
    assert len(machine.calls()) == 2


@pytest.mark.parametrize("name", ["local", "ablate", "real", "reproduce", "slurm"])
def test_what_trains_installs_what_the_accelerator_wants(name):
    assert 'bash launch/install.sh "${EXTRAS:-auto}"' in (ROOT / "launch" / f"{name}.sh").read_text()


def test_an_extra_that_is_none(machine):
    machine.add_python("python3", "3.12.0")
    done = machine.run("install.sh", "test,cuda")
    assert done.returncode == 1 and machine.calls() == []
    assert (
        done.stderr == f"setup.py has no extra cuda; it has: auto (the accelerator that is found) {' '.join(EXTRAS)}\n"
    )


def test_local_installs_and_trains(machine):
    machine.add_python("python3", "3.12.0")
    machine.add_nvidia("580.1", gpus=2)
    done = machine.run("local.sh", "configs/msddf.py", "runs/a b", "--config.steps=3")
    assert done.returncode == 0 and "2 NVIDIA GPU(s)" in done.stderr
    calls = machine.calls()
    assert calls[-2].endswith("-e .\\[cuda13\\]")
    assert calls[-1] == "python -m msddf_jax.main --config configs/msddf.py --workdir runs/a\\ b --config.steps=3"


def test_the_demo_ends_with_what_all_test_videos_are_called(machine):
    machine.add_python("python3", "3.12.0")
    done = machine.run("demo.sh", "out", JAX_COMPILATION_CACHE_DIR="cache")
    assert done.returncode == 0, done.stderr
    calls = [line.split() for line in machine.calls() if line.startswith("python -m ")]
    steps = ["data_prep.toy", "data_prep.prepare", "data_prep.build", "msddf_jax.main", "msddf_jax.predict"]
    assert [words[2] for words in calls[-7:]] == [*steps, "msddf_jax.report", "msddf_jax.confusion"]
    assert calls[-1][3:] == ["--workdir", "out/workdir", "--root", "out/toy"]


STOPPED = "stopped by signal at step 4; checkpoint saved. Run the same command to resume."
STOPS = f"trap 'echo \"{STOPPED}\"; exit 0' TERM; touch ready; while true; do sleep 0.05; done"


def test_the_words_of_a_stopped_run_are_the_trainers():
    assert "Run the same command to resume" in (ROOT / "msddf_jax" / "train.py").read_text()
    assert 'grep -q "Run the same command to resume"' in (ROOT / "launch" / "train.sh").read_text()


@pytest.mark.parametrize(
    ("body", "sends", "code"),
    [
        ("echo trained", None, 0),
        (f"echo '{STOPPED}'", None, 75),
        ("exit 3", None, 3),
        ("kill -KILL $$", None, 137),
        ("kill -TERM $$", None, 143),  # nobody asked for it
        (STOPS, os.kill, 75),
        (STOPS, os.killpg, 75),  # as SLURM does
        ("touch ready; exec sleep 30", os.kill, 75),  # before the loop, or behind it
        ("trap 'exit 1' TERM; touch ready; while true; do sleep 0.05; done", os.kill, 1),
    ],
)
def test_the_exit_code_says_whether_to_start_it_again(machine, body, sends, code):
    asked = '[ "$PYTHONUNBUFFERED$*" = "1-m msddf_jax.main --a=b c" ] || exit 9'
    machine.add("python", f"{asked}\n{body}", machine.tree / ".venv/bin")
    command = ["bash", "launch/train.sh", "--a=b", "c"]
    begin = {"cwd": machine.tree, "stdout": subprocess.PIPE, "text": True, "start_new_session": True}
    process = subprocess.Popen(command, **begin)
    while sends and not (machine.tree / "ready").exists():
        time.sleep(0.02)
    if sends:
        sends(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=20)
    assert process.returncode == code
    assert (STOPPED in said) == (STOPPED in body)


@pytest.mark.parametrize("code", [0, 75, 1])
def test_a_slurm_job_that_was_stopped_goes_back_into_the_queue(machine, code):
    machine.add_python("python3", "3.12.0")
    for name, end in {"srun": code, "scontrol": 0}.items():
        machine.add(name, f'note "$@"; exit {end}')
    job = {"SLURM_SUBMIT_DIR": str(machine.tree), "SLURM_JOB_ID": "7", "SLURM_CPUS_PER_TASK": "32"}
    done = machine.run("slurm.sh", "c.py", "gs://b/run", "--x=a b", **job)
    assert done.returncode == (0 if code == 75 else code)
    calls = machine.calls()
    (step,) = [line for line in calls if line.startswith("srun")]
    assert step == (
        "srun --kill-on-bad-exit=0 --cpus-per-task=32 bash launch/train.sh --distributed --config c.py "
        "--workdir gs://b/run --x=a\\ b"
    )
    assert ("scontrol requeue 7" in calls) == (code == 75)
    assert "sbatch" in machine.run("slurm.sh", "c.py", "w").stderr
    assert "root of the repository" in machine.run("slurm.sh", "c.py", "w", SLURM_SUBMIT_DIR="/").stderr


CREATED = {
    "create": "tpu-vm create n --zone=z --accelerator-type=v4-32 --version=base --spot",
    "queue": "queued-resources create n --zone=z --node-id=n --accelerator-type=v4-32 --runtime-version=base --spot",
}


@pytest.fixture
def slice_of_tpus(machine):
    """A machine whose gcloud has one host, the folder `host`; the tree is a git repository with a commit."""
    host = machine.folder / "host"
    host.mkdir()
    machine.add(
        "gcloud",
        f"""note "$@"
for word; do
  case "$word" in
    --command=*) cd {host} && HOME={host} exec sh -c "${{word#--command=}}" ;;
    *.tar.gz) [ -e "$word" ] && cp "$word" {host}/msddf_jax.tar.gz ;;
  esac
done
case "$*" in
  *queued-resources\\ describe*) [ -e {host}/../queued ] && echo ACTIVE || exit 1 ;;
  *describe*) [ -e {host}/msddf_jax ] && echo READY || exit 1 ;;
esac
exit 0""",
    )
    install = 'echo "$@" >>../installed; mkdir -p .venv/bin; touch .venv/bin/python\n'
    (machine.tree / "launch" / "install.sh").write_text(install)
    trap = "trap 'exit 75' TERM"
    (machine.tree / "launch" / "train.sh").write_text(
        f"printf '%s\\0' \"$@\" >../arguments; {trap}; echo at work; while true; do sleep 0.05; done\n"
    )
    (machine.tree / ".gitignore").write_text(".venv/\n/runs/\n")
    (machine.tree / "gone.py").touch()
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        subprocess.run([*git, *words], cwd=machine.tree, check=True)
    yield machine
    machine.run("detached.sh", "stop")
    subprocess.run(["bash", host / "msddf_jax/launch/detached.sh", "stop"], capture_output=True)


TPU = {"TPU_NAME": "n", "ZONE": "z"}


def test_a_slice_is_asked_for(slice_of_tpus):
    for verb, expected in CREATED.items():
        done = slice_of_tpus.run("tpu_vm.sh", verb, "--spot", ACCELERATOR="v4-32", VERSION="base", **TPU)
        assert done.returncode == 0 and slice_of_tpus.calls() == [f"gcloud compute tpus {expected}"]
        assert "type of the slice" in slice_of_tpus.run("tpu_vm.sh", verb, **TPU).stderr
    assert "name of the TPU VM" in slice_of_tpus.run("tpu_vm.sh", "status").stderr
    assert "unknown verb fly: create, queue" in slice_of_tpus.run("tpu_vm.sh", "fly", **TPU).stderr


def test_a_slice_is_described_and_deleted(slice_of_tpus):
    run = lambda *words: (slice_of_tpus.run("tpu_vm.sh", *words, **TPU), slice_of_tpus.calls())
    done, _ = run("status")
    assert done.returncode == 1 and "describes no such slice" in done.stdout
    _, calls = run("delete", "--quiet")
    assert calls[-1] == "gcloud compute tpus tpu-vm delete n --zone=z --quiet"
    (slice_of_tpus.folder / "queued").touch()
    _, calls = run("delete", "--quiet")
    assert calls[-1] == "gcloud compute tpus queued-resources delete n --zone=z --force --quiet"
    done, calls = run("status")
    assert done.stdout.splitlines()[-1] == "ACTIVE"
    assert calls == [
        "gcloud compute tpus tpu-vm describe n --zone=z --format=value\\(state\\)",
        "gcloud compute tpus queued-resources describe n --zone=z --format=value\\(state.state\\)",
    ]


def test_the_working_tree_is_sent_as_it_is(slice_of_tpus):
    tree, there = slice_of_tpus.tree, slice_of_tpus.folder / "host" / "msddf_jax"
    (tree / "configs").mkdir()
    (tree / "configs" / "my own.py").write_text("new")
    (tree / "setup.py").write_text("changed")
    (tree / "runs").mkdir()
    (tree / "runs" / "mine").touch()
    (tree / "gone.py").unlink()
    done = slice_of_tpus.run("tpu_vm.sh", "install", **TPU)
    assert done.returncode == 0 and re.search(r"sending \d+ files of \w+; 3 not as committed", done.stderr), done.stderr
    calls = slice_of_tpus.calls()
    assert [line.split()[4] for line in calls] == ["ssh", "scp", "ssh"]
    assert all("--zone=z" in line and "--worker=all" in line for line in calls)
    assert (there / "configs" / "my own.py").read_text() == "new" and (there / "setup.py").read_text() == "changed"
    assert not (there / "runs").exists() and not (there / "gone.py").exists()
    assert (there.parent / "installed").read_text() == "tpu,gcs\n"
    # A file that is no longer sent is no longer there; what others have put beside stays.
    (tree / "configs" / "my own.py").unlink()
    (there / "theirs").touch()
    assert slice_of_tpus.run("tpu_vm.sh", "install", EXTRAS="s3", **TPU).returncode == 0
    assert not (there / "configs" / "my own.py").exists()
    assert (there / "theirs").exists() and (there / "setup.py").exists()
    assert (there.parent / "installed").read_text() == "tpu,gcs\ntpu,s3\n"


def test_training_outlives_its_session_and_resumes(slice_of_tpus):
    run = lambda *words: slice_of_tpus.run("tpu_vm.sh", *words, **TPU)
    host = slice_of_tpus.folder / "host"
    done = run("train", "c.py", "gs://b/r")
    assert done.returncode == 1 and "install first" in done.stderr
    assert run("install").returncode == 0
    assert "nothing was started" in run("status").stdout
    assert run("resume").returncode == 1
    odd = ["c.py:it's", "gs://b/r u n", '--a="$HOME" `id` \\', "--b=*;#", ""]
    slice_of_tpus.calls()
    done = run("train", *odd)
    assert done.returncode == 0 and "started as process" in done.stdout, done.stderr
    (call,) = slice_of_tpus.calls()
    assert call.startswith("gcloud compute tpus tpu-vm ssh n --zone=z --worker=all --command=")
    expected = ["--distributed", "--config", odd[0], "--workdir", *odd[1:2], *odd[2:]]
    read = lambda: (host / "arguments").read_text().split("\0")[:-1]
    _until(lambda: (host / "arguments").exists() and read() == expected)
    assert "runs as process" in run("status").stdout
    for verb in (["train", *odd], ["resume"]):
        done = run(*verb)
        assert done.returncode == 1 and "it already runs as process" in done.stderr
    done = run("install")
    assert done.returncode == 1 and "stop it first" in done.stderr
    assert "stopped" in run("stop").stdout and "nothing runs" in run("stop").stdout
    _until(lambda: "stopped before its end; resume goes on" in run("status").stdout)
    (host / "arguments").unlink()
    assert run("resume").returncode == 0
    _until(lambda: (host / "arguments").exists() and read() == expected)
    assert (host / "msddf_jax/runs/detached/log").read_text().count("\nat work") == 2
    # Killed with the one that watches over it, as by a machine that is gone.
    pid = int((host / "msddf_jax/runs/detached/pid").read_text().split()[0])
    assert os.getsid(pid) != os.getsid(0)  # what ends with this one is another
    parent = int(re.search(r"^PPid:\t(\d+)", pathlib.Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)[1])
    for number in (parent, pid):
        os.kill(number, signal.SIGKILL)
    _until(lambda: "killed, or the machine was restarted; resume goes on" in run("status").stdout)


def _until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_command_that_fails_is_said(machine):
    machine.add("fails", "exit 3")
    assert machine.run("detached.sh", "start", "fails").returncode == 0
    _until(lambda: "failed with exit code 3" in machine.run("detached.sh", "status").stdout)
    machine.add("works", "exit 0")
    assert machine.run("detached.sh", "start", "works").returncode == 0
    _until(lambda: "came to its end" in machine.run("detached.sh", "status").stdout)
    # One that had ended before it could be asked when it began.
    (machine.tree / "runs" / "detached" / "pid").write_text("1999999999 \n")
    assert "came to its end" in machine.run("detached.sh", "status").stdout


def test_the_image_has_two_targets_and_no_environment_of_the_host():
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    assert [line.split() for line in lines if line.startswith("FROM")] == [
        ["FROM", "debian:bookworm-slim", "AS", "cpu"],
        ["FROM", "cpu", "AS", "cuda"],
    ]
    assert 'CMD ["bash", "launch/demo.sh"]' in lines
    ignored = (ROOT / ".dockerignore").read_text().split()
    own = [line.strip("/") for line in (ROOT / ".gitignore").read_text().split()]
    assert {".git", *own} <= {line.removeprefix("**/") for line in ignored}

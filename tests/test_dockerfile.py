"""The Dockerfile from nothing: by Docker where its daemon is, else line by line in a Debian of its own in a folder."""

import fnmatch
import json
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from launch_stand_ins import ROOT

# What says how packages are reached from this machine: a mirror, a proxy, certificates.
_REACH = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf", "/etc/apt/apt.conf.d", "/usr/local/share/ca-certificates")
_CHECK = "bash launch/test.sh -q tests/test_opencv.py tests/test_launch.py"


def instructions():
    """[(stage, word, rest)] of the Dockerfile, in order."""
    stage, found = None, []
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        if line and not line.startswith("#"):
            word, rest = line.split(maxsplit=1)
            stage = rest.split()[-1] if word == "FROM" else stage
            found.append((stage, word, rest))
    return found


def ignored(folder, names):
    """Names in a folder of the tree that .dockerignore leaves out; the function that `shutil.copytree` wants."""
    patterns = [line for line in (ROOT / ".dockerignore").read_text().split("\n") if line and not line.startswith("#")]
    everywhere = [line.removeprefix("**/") for line in patterns if line.startswith("**/")]
    here = everywhere + (patterns if pathlib.Path(folder) == ROOT else [])
    return {name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in here)}


def test_the_tree_is_copied_without_what_is_not_its_own(tmp_path):
    shutil.copytree(ROOT, tmp_path / "copy", ignore=ignored)
    names = {path.name for path in (tmp_path / "copy").iterdir()}
    assert {"launch", "msddf_jax", "data_prep", "configs", "tests", "setup.py", "requirements.lock"} <= names
    assert not names & {".git", ".venv", "runs", "demo"}
    assert (tmp_path / "copy" / "msddf_jax" / "data" / "pipeline.py").exists()  # `data` of the root alone is left out
    assert not list((tmp_path / "copy").rglob("__pycache__"))


def _run(root, folder, line, variables):
    """One RUN line as root of the tree in a folder, with its own /proc and this machine's devices."""
    mounts = f'mount -t proc proc {root}/proc && mount --rbind /dev {root}/dev && exec chroot {root} /bin/sh -c "$1"'
    env = {key: value for key, value in os.environ.items() if re.match(r"(PIP|SSL|\w+_CA_BUNDLE|https?_proxy)", key)}
    env.pop("PIP_FIND_LINKS", None)  # a folder of this machine
    env |= {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"} | variables
    command = ["unshare", "--mount", "bash", "-c", mounts, "bash", f"cd {folder} && {{ {line}\n}}"]
    done = subprocess.run(command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f"RUN {line}\n{done.stdout[-4000:]}"
    return done.stdout


def _dry(root, folder):
    """Variables with which pip finds what to install, CUDA's gigabytes, of no use without a GPU, and fetches it not.

    It would not fetch what builds this project either, which is therefore brought first.
    """
    _run(root, folder, ".venv/bin/python -m pip install --quiet 'setuptools>=77'", {})
    return {"PIP_DRY_RUN": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_REPORT": "/report.json"}


def _replay(root):
    """All stages in one root, each on what the one before has left, as FROM says."""
    base, folder, variables = None, "/", {}
    for _, word, rest in instructions():
        if word == "FROM" and base is None:
            base = re.fullmatch(r"debian:(\w+)-slim AS cpu", rest)[1]
            made = subprocess.run(["debootstrap", "--variant=minbase", base, root], text=True, capture_output=True)
            if made.returncode:
                pytest.skip(f"debootstrap could not fetch Debian {base}: {made.stdout[-300:]}")
            for path in filter(os.path.exists, _REACH):
                target = root / path[1:]
                if os.path.isdir(path):
                    shutil.copytree(path, target, dirs_exist_ok=True)
                else:
                    shutil.copy(path, target)
        elif word == "WORKDIR":
            folder = rest
        elif word == "COPY":
            assert rest == ". ."
            shutil.copytree(ROOT, root / folder[1:], ignore=ignored)
        elif word in ("ENV", "ARG"):
            variables |= dict(pair.split("=", 1) for pair in rest.split())
        elif word == "RUN":
            said = _run(root, folder, rest, variables | (_dry(root, folder) if "CUDA" in rest else {}))
            assert "ignored" not in said.lower(), said
    return folder


# Fetches a Debian and 1.5 GB of packages: four minutes and more.
@pytest.mark.parity
def test_every_line_of_the_dockerfile_in_a_clean_root(tmp_path):
    if shutil.which("docker") and subprocess.run(["docker", "info"], capture_output=True).returncode == 0:
        subprocess.run(["docker", "build", "--target=cpu", "--tag=msddf_jax:tested", ROOT], check=True)
        subprocess.run(["docker", "run", "--rm", "msddf_jax:tested", *_CHECK.split()], check=True)
        return
    if os.getuid() != 0:
        pytest.skip("no Docker daemon, and not root, who alone can enter another root")
    if not shutil.which("debootstrap"):
        pytest.skip("no Docker daemon, and no debootstrap: apt-get install debootstrap")
    root = tmp_path / "root"
    folder = _replay(root)
    # The tests are one of the image's commands; so is the demo, which they run elsewhere.
    assert " passed" in _run(root, folder, _CHECK, {})
    found = json.loads((root / "report.json").read_text())["install"]
    assert {"jax-cuda13-plugin", "nvidia-nccl-cu13"} <= {each["metadata"]["name"] for each in found}
    shutil.rmtree(root)

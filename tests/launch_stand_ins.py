"""Programs that stand in for what launch/*.sh call, on a path that holds them and a few tools of the system alone."""

import os
import pathlib
import shutil
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[1]
# fmt: off
_TOOLS = [
    "bash", "basename", "cat", "chmod", "cp", "cut", "dirname", "flock", "git", "grep", "gzip", "head", "hostname",
    "ls", "mkdir", "mkfifo", "mktemp", "mv", "nohup", "paste", "rm", "sed", "seq", "setsid", "sh", "sleep", "sort",
    "tail", "tar", "tee", "touch", "tr", "wc", "xargs",
]
# fmt: on


class Machine:
    """A folder with `bin`, the whole path of what runs in it, and `calls`, one line for each call of a stand-in."""

    def __init__(self, folder, tree=True):
        self.folder, self.bin, self.log = folder, folder / "bin", folder / "calls"
        self.bin.mkdir()
        for name in _TOOLS:
            if found := shutil.which(name):
                (self.bin / name).symlink_to(found)
        self.add("date", "exec /bin/date +%F")
        self.tree = folder / "tree"
        if tree:
            shutil.copytree(ROOT / "launch", self.tree / "launch")
            for name in ("setup.py", "requirements.lock"):
                shutil.copy(ROOT / name, self.tree)

    def add(self, name, body, folder=None):
        """A program of that name. body: lines of bash; `note` writes down the call."""
        path = (folder or self.bin) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            f"#!/bin/bash\nnote() {{ (printf '%s' \"${{0##*/}}\"; printf ' %q' \"$@\"; echo) >>{self.log}; }}\n{body}\n"
        )
        path.chmod(0o755)
        return path

    def run(self, *words, stdin=None, **variables):
        """The finished process of a script of launch/. variables: of its environment, which has little else."""
        env = {"PATH": str(self.bin), "HOME": str(self.folder), "LC_ALL": "C", "MSDDF_DEV": str(self.folder / "dev")}
        env |= {key: os.environ[key] for key in ("TMPDIR",) if key in os.environ} | variables
        return subprocess.run(
            ["bash", f"launch/{words[0]}", *words[1:]],
            cwd=self.tree,
            env=env,
            text=True,
            capture_output=True,
            timeout=60,
        )

    def calls(self):
        """Lines of calls since the last time this was asked."""
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return lines

    def add_python(self, name, version, complete=True, pip="", folder=None):
        """An interpreter that has a version and makes environments of itself. pip: what `-m pip` does."""
        minor = int(version.split(".")[1])
        return self.add(
            name,
            f"""case "$*" in
  --version) echo "Python {version}" ;;
  *"< (3, 11))") exit {int(minor < 11)} ;;
  *"!= (3, 11))") exit {int(minor != 11)} ;;
  *"import ensurepip, venv") exit {int(not complete)} ;;
  *"%d.%d"*) echo "3.{minor}" ;;
  "-m venv"*) note "$@"; mkdir -p .venv/bin; cp "$0" .venv/bin/python ;;
  "-m pip"*) note "$@"; {pip or ":"} ;;
  *"import cv2") ;;
  *) note "$@" ;;
esac""",
            folder,
        )

    def add_nvidia(self, driver, capability="9.0", gpus=1):
        """nvidia-smi of a machine with such a driver."""
        answer = lambda text: f"printf '{chr(10).join([text] * gpus)}\\n'"
        self.add(
            "nvidia-smi", f"case $1 in *driver_version) {answer(driver)} ;; *compute_cap) {answer(capability)} ;; esac"
        )

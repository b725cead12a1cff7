"""launch/kubernetes.yaml without a cluster: against the API's schemas, and its command run as two pods would."""

import os
import pathlib
import re
import shutil
import signal
import subprocess

import many_processes
import pytest
import yaml
from launch_stand_ins import ROOT

from msddf_jax import cluster

SERVICE, JOB = yaml.safe_load_all((ROOT / "launch" / "kubernetes.yaml").read_text())
POD = JOB["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
VARIABLES = {entry["name"]: entry for entry in CONTAINER["env"]}


def test_the_api_knows_every_field():
    validate = pytest.importorskip("kubernetes_validate", reason="bash launch/install.sh test").validate
    for document in (SERVICE, JOB):
        validate(document, "1.31", strict=True)
    with pytest.raises(Exception, match="completionMod"):
        validate(JOB | {"spec": JOB["spec"] | {"completionMod": "Indexed"}}, "1.31", strict=True)


def test_what_stands_in_several_places_agrees():
    assert set(VARIABLES) == set(cluster.VARIABLES.values())
    assert JOB["spec"]["completions"] == JOB["spec"]["parallelism"] == int(VARIABLES["JAX_NUM_PROCESSES"]["value"])
    name, port = SERVICE["metadata"]["name"], SERVICE["spec"]["ports"][0]["port"]
    assert VARIABLES["JAX_COORDINATOR_ADDRESS"]["value"] == f"{JOB['metadata']['name']}-0.{name}:{port}"
    assert POD["subdomain"] == name and SERVICE["spec"]["clusterIP"] == "None"
    assert SERVICE["spec"]["selector"] == {"batch.kubernetes.io/job-name": JOB["metadata"]["name"]}
    stopped = JOB["spec"]["podFailurePolicy"]["rules"][0]["onExitCodes"]
    assert stopped["values"] == [75] and stopped["containerName"] == CONTAINER["name"]
    assert "exit 75" in (ROOT / "launch" / "train.sh").read_text()


def _start(tmp_path, data_dir):
    """The container's command as each pod has it, with names and paths of this machine; files that pods share."""
    count = JOB["spec"]["completions"]
    hosts = tmp_path / "hosts"
    names = " ".join(f"msddf-{i}.msddf" for i in range(count))
    hosts.write_text(f"{pathlib.Path('/etc/hosts').read_text()}\n127.0.0.1 {names}\n")
    own = {"--config": "tests/tiny_run.py:bare", "--workdir": tmp_path / "run", "--config.data.data_dir": data_dir}
    command = list(CONTAINER["command"])
    for word in command:
        flag = word.partition("=")[0]
        command[command.index(word)] = f"{flag}={own.pop(flag)}" if flag in own else word
    assert not own
    host, _, port = VARIABLES["JAX_COORDINATOR_ADDRESS"]["value"].partition(":")
    assert port == "55527"
    env = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": many_processes.xla_flags(1)}
    env |= {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", "KUBERNETES_SERVICE_HOST": "10.0.0.1"}
    env |= {"JAX_NUM_PROCESSES": str(count), "JAX_COORDINATOR_ADDRESS": f"{host}:{many_processes.free_port()}"}
    enter = ["unshare", "--mount", "bash", "-c", f'mount --bind {hosts} /etc/hosts && exec "$@"', "bash"]
    return [
        subprocess.Popen(
            [*enter, *command],
            cwd=ROOT,
            env=env | {"JAX_PROCESS_ID": str(i)},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for i in range(count)
    ]


# Starts four trainers.
@pytest.mark.long
@pytest.mark.skipif(os.getuid() != 0 or not shutil.which("unshare"), reason="names of hosts are given as root only")
def test_pods_train_and_when_one_is_told_to_stop_all_are_made_anew(toy_data, tmp_path):
    pods = _start(tmp_path, toy_data[1])
    many_processes.wait_for((tmp_path / "run", "checkpoints/4"), pods)
    pods[1].send_signal(signal.SIGTERM)  # a node that is drained
    for code, said in many_processes.finish(pods):
        assert code == 75 and "Run the same command to resume" in said, said
    for code, said in many_processes.finish(_start(tmp_path, toy_data[1])):
        assert code == 0 and re.search(r"resuming .* at step \d+ of 20", said), said
    assert (tmp_path / "run" / "results.json").exists()

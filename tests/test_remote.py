"""Object stores: what is staged, what a workdir there keeps, and a run on one that is killed."""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import many_processes
import pytest
import s3_server

from msddf_jax import checkpoint, remote
from msddf_jax.data import source
from msddf_jax.weights import hub


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """(folder of the buckets, environment of a client)."""
    folder = tmp_path_factory.mktemp("s3")
    (folder / "bucket").mkdir()
    with s3_server.serve(folder) as environ:
        yield folder, environ


class Bucket:
    """A place of its own in the store. url: of it. folder: where the server keeps its files, to look at only."""

    def __init__(self, url, folder):
        self.url, self.folder = url, folder
        self._store, self._root = remote.open_store(url)

    def put(self, name, text):
        self._store.pipe_file(f"{self._root}/{name}", text.encode())

    def put_folder(self, name, folder):
        for path in folder.rglob("*"):
            if path.is_file():
                self._store.put_file(str(path), f"{self._root}/{name}/{path.relative_to(folder).as_posix()}")

    def drop(self, name):
        self._store.rm(f"{self._root}/{name}")


@pytest.fixture
def store(server, tmp_path, monkeypatch, request):
    """An empty place in the store; staging goes below tmp_path."""
    folder, environ = server
    for name, value in {**environ, "MSDDF_JAX_STAGE": str(tmp_path / "stage")}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(remote, "_in_use", {})
    own = request.node.originalname.replace("_", "-")
    return Bucket(f"s3://bucket/{own}", folder / "bucket" / own)


def _write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("s3://a/b", True), ("gs://a", True), ("memory://x", True), ("https://a/b", False), ("hf://a/b", False),
     ("/a/b", False), ("~/a", False), ("a://b/c:d", True), ("C:/x", False)],
)  # fmt: skip
def test_what_is_an_address_of_a_store(path, expected):
    assert remote.is_url(path) == expected


def test_a_folder_and_a_file_are_staged_once_and_brought_up_to_date(store):
    store.put("set/a.txt", "one")
    store.put("set/deep/b.txt", "two")
    folder = remote.stage(f"{store.url}/set")
    assert (folder / "a.txt").read_text() == "one" and (folder / "deep" / "b.txt").read_text() == "two"
    os.utime(folder / "deep" / "b.txt", ns=(1, 1))
    store.put("set/a.txt", "changed")
    assert remote.stage(f"{store.url}/set/") == folder
    assert (folder / "a.txt").read_text() == "changed"
    assert (folder / "deep" / "b.txt").stat().st_mtime_ns == 1  # not copied again
    store.drop("set/a.txt")
    (folder / "deep" / "b.txt").write_text("cut")
    (folder / "deep" / "b.txt").write_text("x")  # a copy that was cut is no copy
    remote.stage(f"{store.url}/set")
    assert not (folder / "a.txt").exists() and (folder / "deep" / "b.txt").read_text() == "two"
    assert remote.stage(f"{store.url}/set/deep/b.txt").read_text() == "two"
    with pytest.raises(FileNotFoundError, match=f"nothing at {store.url}/none"):
        remote.stage(f"{store.url}/none")
    with pytest.raises(ValueError, match="strange://x cannot be opened"):
        remote.stage("strange://x")


def test_weights_and_data_sets_may_be_there(store, toy_data):
    store.put("w/model.safetensors", "weights")
    assert hub.locate(f"{store.url}/w/model.safetensors").read_text() == "weights"
    assert hub.locate(f"{store.url}/w").read_text() == "weights"
    store.put_folder("tfds", toy_data[1])
    there = source.open_source("faceforensics/toy", "test", f"{store.url}/tfds")
    here = source.open_source("faceforensics/toy", "test", toy_data[1])
    assert there[3]["video_id"] == here[3]["video_id"] and (there[3]["image"] == here[3]["image"]).all()
    with pytest.raises(FileNotFoundError, match=f"toys is not built: looked in {store.url}/tfds/faceforensics/toys"):
        source.open_source("faceforensics/toys", "test", f"{store.url}/tfds")


def test_two_processes_that_stage_at_once_copy_once(store, tmp_path):
    for number in range(20):
        store.put(f"set/{number}.txt", "x" * 10_000)
    code = f"from msddf_jax import remote; import sys; print(remote.stage('{store.url}/set'))"
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0] and len(said) == 1
    folder = pathlib.Path(said.pop())
    assert sorted(path.name for path in folder.glob("*.txt")) == sorted(f"{number}.txt" for number in range(20))
    # Of a process that was killed while it copied.
    (folder / ".0.txt.123.tmp").write_text("half")
    remote.stage(f"{store.url}/set")
    assert not list(folder.rglob("*.tmp"))


def test_what_was_used_longest_ago_makes_room_and_nothing_in_use_does(store, monkeypatch):
    monkeypatch.setenv("MSDDF_JAX_STAGE_GB", "0.0025")
    for name in ("a", "b", "c", "d"):
        store.put(name + "/file", name * 1_000_000)
    first, second = remote.stage(f"{store.url}/a"), remote.stage(f"{store.url}/b")
    held = remote._in_use.pop(first)
    held.close()  # as if another process had used it, and ended
    third = remote.stage(f"{store.url}/c")
    assert not first.exists() and second.exists() and third.exists()
    with pytest.raises(OSError, match=r"no room to stage 0.0 GB .*MSDDF_JAX_STAGE_GB"):
        remote.stage(f"{store.url}/d")


def test_a_workdir_comes_back_as_it_was_pushed(store):
    folder = remote.open_workdir(f"{store.url}/runs/one")
    assert remote.store_of(folder) == f"{store.url}/runs/one" and not list(folder.glob("[!.]*"))
    _write(folder / "config.json", "{}")
    _write(folder / "checkpoints" / "4" / "state", "four")
    _write(folder / "checkpoints" / "6.orbax-checkpoint-tmp" / "state", "half")
    remote.push(folder)
    assert not list(store.folder.rglob("*tmp*"))
    _write(folder / "checkpoints" / "8" / "state", "eight")
    shutil.rmtree(folder / "checkpoints" / "4")
    remote.push(folder)
    _write(folder / "checkpoints" / "12" / "state", "never pushed")
    again = remote.open_workdir(f"{store.url}/runs/one")
    assert again == folder
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["8"]
    assert remote.store_of(store.folder) is None
    remote.push(store.folder)  # a local one: nothing
    store.put("runs/one/checkpoints/8/state", "EIGHT")
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="checkpoints/8/state is damaged"):
        remote.open_workdir(f"{store.url}/runs/one")


def test_an_error_of_the_store_s_own_library_is_one_of_the_system(monkeypatch):
    def lost(url):
        raise RuntimeError("no login\nwas found")

    monkeypatch.setattr(remote, "open_store", lost)
    with pytest.raises(OSError, match="the store gives RuntimeError: no login was found"):
        remote.stage("s3://bucket/x")


def test_two_machines_do_not_undo_each_other(store, tmp_path, monkeypatch):
    trains = remote.open_workdir(f"{store.url}/run")
    _write(trains / "checkpoints" / "2" / "state", "two")
    remote.push(trains)
    with monkeypatch.context() as other:
        other.setenv("MSDDF_JAX_STAGE", str(tmp_path / "elsewhere"))
        evaluates = remote.open_workdir(f"{store.url}/run")
    _write(trains / "checkpoints" / "4" / "state", "four")
    shutil.rmtree(trains / "checkpoints" / "2")
    remote.push(trains)
    _write(evaluates / "results.json", "{}")
    remote.push(evaluates)
    assert (store.folder / "run" / "checkpoints" / "4" / "state").read_text() == "four"
    assert (store.folder / "run" / "results.json").exists()
    shutil.rmtree(trains)
    remote.open_workdir(f"{store.url}/run")
    assert (trains / "checkpoints" / "4" / "state").exists() and (trains / "results.json").exists()


def test_a_copy_that_another_process_works_in_is_left_as_it_is(store):
    folder = remote.open_workdir(f"{store.url}/run")
    _write(folder / "config.json", "{}")
    remote.push(folder)
    _write(folder / "checkpoints" / "2" / "state", "not pushed yet")
    code = f"from msddf_jax import remote; print(remote.open_workdir('{store.url}/run'))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == str(folder) and (folder / "checkpoints" / "2" / "state").exists()


def test_half_an_upload_is_not_taken_for_a_whole_one(store, monkeypatch):
    folder = remote.open_workdir(f"{store.url}/run")
    _write(folder / "checkpoints" / "2" / "state", "two")
    remote.push(folder)
    _write(folder / "checkpoints" / "4" / "a", "four")
    _write(folder / "checkpoints" / "4" / "b", "four")

    def stop(store, source, target):
        if target.endswith("4/b"):
            raise KeyboardInterrupt
        store.put_file(str(source), target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(remote, "_put", stop)
        remote.push(folder)
    assert (store.folder / "run" / "checkpoints" / "4" / "a").exists()
    shutil.rmtree(folder)
    remote.open_workdir(f"{store.url}/run")
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["2"]


# Three starts of the trainer, and an evaluation.
@pytest.mark.long
def test_a_run_in_a_store_is_killed_and_goes_on_on_a_new_machine(server, store, toy_data, tmp_path):
    store.put_folder("tfds", toy_data[1])
    ((code, said),) = many_processes.finish(many_processes.start(1, 1, tmp_path / "here", toy_data[1]))
    assert code == 0, said
    start = lambda: many_processes.start(1, 1, f"{store.url}/runs/there", f"{store.url}/tfds")
    (killed,) = start()
    many_processes.wait_for((store.folder, "runs/there/checkpoints/4"), [killed])
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    shutil.rmtree(os.environ["MSDDF_JAX_STAGE"])  # a new machine
    ((code, said),) = many_processes.finish(start())
    assert code == 0 and "resuming" in said and f"workdir: {store.url}/runs/there" in said, said
    here, there = ((folder / "results.json") for folder in (tmp_path / "here", store.folder / "runs" / "there"))
    figures = [{k: v for k, v in json.loads(path.read_text()).items() if k != "_about"} for path in (here, there)]
    assert figures[0] == figures[1]
    weights = [checkpoint.read_arrays(path.parent / "best" / "weights.safetensors") for path in (here, there)]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    shutil.rmtree(os.environ["MSDDF_JAX_STAGE"])
    command = [sys.executable, "-m", "msddf_jax.evaluate", f"--workdir={store.url}/runs/there", "--resamples=50"]
    done = subprocess.run([*command, "--dfb_compat"], capture_output=True, text=True, cwd=many_processes.ROOT)
    assert done.returncode == 0, done.stderr
    assert any("dfb_compat" in name for name in json.loads(there.read_text()))


# Two processes with a copy of the workdir each, as two hosts have.
@pytest.mark.long
def test_hosts_that_share_nothing_but_the_store(store, toy_data, tmp_path, monkeypatch):
    stages = [str(tmp_path / f"host{index}") for index in range(2)]
    run = lambda: many_processes.start(
        2, 1, f"{store.url}/runs/two", toy_data[1], env=[{"MSDDF_JAX_STAGE": stage} for stage in stages]
    )
    both = run()
    many_processes.wait_for((store.folder, "runs/two/checkpoints/6"), both)
    both[0].send_signal(signal.SIGTERM)
    for code, said in many_processes.finish(both):
        assert code == 0 and "Run the same command to resume" in said, said
    for code, said in many_processes.finish(run()):
        assert code == 0 and "resuming" in said, said
    results = json.loads((store.folder / "runs" / "two" / "results.json").read_text())
    assert results["_about"]["versions"]["process_count"] == 2

"""A killed command, started again, ends as if nobody had killed it: the short form of benchmarks/kills.py."""

import json

import many_processes
import pytest

from benchmarks import kills


# Ten kills, each phase at least once: some twenty-five starts of Python and JAX, on one device as users have.
@pytest.mark.long
def test_ten_kills_in_every_phase_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", many_processes.xla_flags(1))
    kills.main(["--kills=10", f"--out={tmp_path}"])
    found = json.loads((tmp_path / "kills.json").read_text())
    assert set(found["phases"]) == set(kills.PHASES)
    assert all(row["kills"] == row["same"] > 0 for row in found["phases"].values())


def test_half_saved_is_told_by_the_name_of_the_folder(tmp_path):
    assert not kills._is_half_saved(tmp_path)
    (tmp_path / "run" / "checkpoints" / "4").mkdir(parents=True)
    assert not kills._is_half_saved(tmp_path)
    (tmp_path / "run" / "checkpoints" / "8.orbax-checkpoint-tmp").mkdir()
    assert kills._is_half_saved(tmp_path)

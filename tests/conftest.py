"""Eight virtual CPU devices, so that sharding is exercised everywhere the tests run."""

import os
import tempfile

# Before jax is imported anywhere: the number of CPU devices is fixed at start.
os.environ.setdefault("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    # The older emitters of fused loops compile a whole train step in half the time, and run as fast.
    os.environ["XLA_FLAGS"] += " --xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# The tests compile much and compute little: compiled code is shared between them and the processes they start.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    _CACHE = tempfile.TemporaryDirectory(prefix="msddf_jax_test_cache_")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import hypothesis
import pytest
from absl import logging

# The same examples in every run, so that a test that fails fails for everyone; HYPOTHESIS_PROFILE=default draws anew.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# Files that take long go first, so that no worker is left alone with one at the end.
_LONG_FILES = (
    *("test_prior", "test_kills", "test_cluster", "test_own_data", "test_train", "test_remote", "test_slurm"),
    *("test_sharding", "test_kubernetes", "test_real_data", "test_main", "test_sjedd", "test_lsda", "test_msddf"),
    *("test_blender", "test_fpg", "test_clip_cross_domain", "test_synth_contract"),
)


def pytest_collection_modifyitems(items):
    """Long files first; the order within a file stays."""
    rank = {name: i for i, name in enumerate(_LONG_FILES)}
    items.sort(key=lambda item: rank.get(item.path.stem, len(rank)))


@pytest.fixture(autouse=True)
def verbosity():
    """Commands make absl quieter when they start; the next test hears all again."""
    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


@pytest.fixture
def real_data():
    """The folder of real clips, or a skip that says what to set."""
    path = os.environ.get("MSDDF_REAL_DATA")
    if not path:
        pytest.skip("set MSDDF_REAL_DATA (a folder holding FaceForensics++/) and MSDDF_MODELS to run on real clips")
    if not os.environ.get("MSDDF_MODELS"):
        pytest.skip("MSDDF_REAL_DATA is set, MSDDF_MODELS (the face model files) is not")
    return path


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory):
    """A small embedded data set, written, prepared and built once: (videos, built data sets)."""
    from toy_set import write_toy

    return write_toy(tmp_path_factory.mktemp("toy"), identities=14, frames=3, video_size=64, size=64)

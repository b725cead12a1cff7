"""Eight virtual CPU devices, so that sharding is exercised everywhere the tests run."""

import os

# Before jax is imported anywhere: the number of CPU devices is fixed at start.
os.environ.setdefault("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import pytest


@pytest.fixture
def real_data():
    """The folder of real clips, or a skip that says what to set."""
    path = os.environ.get("MSDDF_REAL_DATA")
    if not path:
        pytest.skip("set MSDDF_REAL_DATA (a folder holding FaceForensics++/) and MSDDF_MODELS to run on real clips")
    if not os.environ.get("MSDDF_MODELS"):
        pytest.skip("MSDDF_REAL_DATA is set, MSDDF_MODELS (the face model files) is not")
    return path

"""MesoInception-4 (Afchar et al., WIFS 2018), from random weights as published.

python -m msddf_jax.main --config configs/detectors/mesoinception.py --workdir runs/mesoinception
"""

from configs.detectors import common


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/mesoinception.py")
    config = common.get_plain("meso", "meso_inception4", image_size=256)
    return (common.make_demo(config) if arg == "demo" else config).lock()

"""Meso4 (Afchar et al., WIFS 2018), from random weights as published.

    python -m msddf_jax.main --config configs/detectors/meso4.py --workdir runs/meso4

Its form is the PyTorch port's; the authors' own is `config.model.options = meso.KERAS` (models/meso.py). Their weights,
ready to predict: python -m msddf_jax.weights mesonet/meso4_df --to runs/meso4_df
"""

from configs.detectors import common


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/meso4.py")
    config = common.get_plain("meso", "meso4", image_size=256)
    # 28,000 parameters: bfloat16 moves a published detector's scores by up to 0.013, and saves nothing.
    config.dtype = "float32"
    return (common.make_demo(config) if arg == "demo" else config).lock()

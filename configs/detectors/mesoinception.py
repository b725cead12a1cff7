"""MesoInception-4 (Afchar et al., WIFS 2018), from random weights as published.

    python -m msddf_jax.main --config configs/detectors/mesoinception.py --workdir runs/mesoinception

The form and the authors' own weights: see meso4.py (mesonet/mesoinception_df).
"""

from configs.detectors import common


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/mesoinception.py")
    config = common.get_plain("meso", "meso_inception4", image_size=256)
    # 28,000 parameters: bfloat16 moves a published detector's scores by up to 0.013, and saves nothing.
    config.dtype = "float32"
    return (common.make_demo(config) if arg == "demo" else config).lock()

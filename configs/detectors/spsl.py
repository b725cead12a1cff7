"""SPSL (CVPR 2021): Xception without its middle, on colours and the image of the phases.

    python -m msddf_jax.main --config configs/detectors/spsl.py --workdir runs/spsl
    python -m msddf_jax.main --config configs/detectors/spsl.py:port --workdir runs/spsl_port

Arguments: nothing, the paper's shallow network; "port", DeepfakeBench's, the whole Xception; "demo". Rates and batch
are DeepfakeBench's (reference "detectors"), which takes four frames a video to train: --frames_per_video=4.

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights spsl_best.pth --to runs/spsl_bench.
"""

from configs.detectors import common, xception

# Blocks of the entry are 1 to 3, the last is 12.
MIDDLE = tuple(range(4, 12))


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/spsl.py", ("port",))
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "spsl"
    config.model = {
        "family": "xception",
        "variant": "xception",
        "image_size": 256,
        "options": {} if arg == "port" else {"without": MIDDLE},
    }
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        # The smallest Xception has one middle block.
        config.model.variant, config.model.options = "Mu", {"without": (3,)}
    return config.lock()

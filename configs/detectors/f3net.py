"""F3-Net (ECCV 2020): two Xceptions on the bands of the cosine transform, of the whole image and of windows.

    python -m msddf_jax.main --config configs/detectors/f3net.py --workdir runs/f3net
    python -m msddf_jax.main --config configs/detectors/f3net.py:port --workdir runs/f3net_port

Arguments: nothing, the paper's two branches with cross-attention; "port", DeepfakeBench's, the first branch alone;
"demo". Rates and batch are DeepfakeBench's (reference "detectors").

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights f3net_best.pth --to runs/f3net_bench.
"""

from configs.detectors import common, xception


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/f3net.py", ("port",))
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "f3net"
    config.model = {
        "family": "xception",
        "variant": "xception",
        "image_size": 256,
        "port": arg == "port",
        "mix": ("block_7", "block_12"),
        "dropout": 0.5 if arg == "port" else 0.2,
        "options": {},
    }
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        # The smallest Xception has four blocks.
        config.model.variant, config.model.mix = "Mu", ("block_3", "block_4")
    return config.lock()

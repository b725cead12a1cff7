"""SRM (CVPR 2021): two Xceptions, on colours and on high-pass residuals, with attention between them.

    python -m msddf_jax.main --config configs/detectors/srm.py --workdir runs/srm
    python -m msddf_jax.main --config configs/detectors/srm.py:port --workdir runs/srm_port

Arguments: nothing, the paper's; "port", DeepfakeBench's filters and head; "demo". Rates and batch are DeepfakeBench's
(reference "detectors"), scale and margin of AM-softmax the authors'.

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights srm_best.pth --to runs/srm_bench.
"""

from configs.detectors import common, xception


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/srm.py", ("port",))
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "srm"
    config.model = {
        "family": "xception",
        "variant": "xception",
        "image_size": 256,
        "port": arg == "port",
        "exchange": ("block_3", "block_7"),
        "options": {},
    }
    config.loss_args = {"am": {"scale": 30.0, "margin": 0.45}}
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        # The smallest Xception has two blocks of the entry and one in the middle.
        config.model.variant, config.model.exchange = "Mu", ("block_2", "block_3")
    return config.lock()

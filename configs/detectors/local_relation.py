"""Local relation learning (AAAI 2021): two EfficientNets, on colours and high frequencies; how alike regions are.

    python -m msddf_jax.main --config configs/detectors/local_relation.py --workdir runs/local_relation
    python -m msddf_jax.main --config configs/detectors/local_relation.py:port --workdir runs/local_relation_port

Arguments: nothing, or "port", DeepfakeBench's first kernels and grey levels; "demo". Rates, batch, frames (8 a video)
and epochs (40) are DeepfakeBench's (reference "detectors"). It needs masks of fakes.

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights lrl_best.pth --to runs/lrl_bench.
"""

from configs.detectors import common, efficientnetb4, sia


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/local_relation.py", ("port",))
    config = common.get_plain("efficientnet", "B4", image_size=256, init=efficientnetb4.WEIGHTS)
    config.detector = "local_relation"
    config.data.train.max_frames = 8
    config.model = {
        "family": "efficientnet",
        "variant": "B4",
        "image_size": 256,
        # The last blocks of 56 and 160 channels, and the end.
        "places": ("block_9", "block_21", "head"),
        "grid": 8,
        "hidden": 128,
        "dropout": 0.2,
        "decoder": (256, 256, 128, 64),
        "cut": 0.33,
        "rounded": arg == "port",
        "options": dict(sia.PORT if arg == "port" else {"padding": "static"}, drop_connect=0.2),
    }
    config.loss_weights = {"label": 1.0, "mask": 1.0, "similarity": 1.0}
    # 40 epochs of 720 videos x 4 methods x 8 frames, beside as many reals, 32 a batch.
    config.steps = 57_600
    return (_make_demo(config) if arg == "demo" else config).lock()


def _make_demo(config):
    """The same from random weights on the smallest EfficientNet; maps of 12, 6 and 3 cells, 3 x 3 patches."""
    common.make_demo(config, lr=4e-3)
    config.model.variant, config.model.places = "Mu", ("block_2", "block_4", "head")
    config.model.grid, config.model.hidden, config.model.decoder = 6, 32, (32, 16, 8)
    config.model.dropout, config.model.options = 0.0, {"padding": "static"}
    config.steps = 480
    return config

"""FFD (CVPR 2020): Xception with an attention map that learns from the masks of the fakes.

    python -m msddf_jax.main --config configs/detectors/ffd.py --workdir runs/ffd
    python -m msddf_jax.main --config configs/detectors/ffd.py:port --workdir runs/ffd_port

Arguments: nothing, the paper's losses with the rates of the authors' code (Adam 1e-4 with weight decay 1e-3);
"port", DeepfakeBench's, cross-entropy alone at its rates; "demo". --config.model.map_type is reg, tmp or none. On a set
without masks:

    --config.loss_weights.map_l1=0 --config.loss_weights.map_weak=1

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights ffd_best.pth --to runs/ffd_bench.
"""

from configs.detectors import common, xception


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/ffd.py", ("port",))
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "ffd"
    config.model = {
        "family": "xception",
        "variant": "xception",
        "image_size": 256,
        "map_type": "reg",
        "map_stage": "block_7",
        "options": {},
    }
    config.loss_weights = {"label": 1.0, "map_l1": 0.0 if arg == "port" else 1.0, "map_weak": 0.0}
    if arg != "port":
        config.optim.optimizer, config.optim.final_lr = "adam_l2", 1e-5
        config.optim.groups = ((r"detector/.*", {"lr": 1e-4, "weight_decay": 1e-3}),)
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        config.optim.optimizer = "adamw"
        # The third is the last middle block of the smallest Xception.
        config.model.variant, config.model.map_stage, config.steps = "Mu", "block_3", 360
        # From random weights the least mean |map - mask| of masks that are mostly 0 is a map of 0, which lets nothing
        # through: with the published weight of 1 the network stays at the prior.
        config.loss_weights.map_l1 = 0.05
    return config.lock()

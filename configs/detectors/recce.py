"""RECCE (CVPR 2022): Xception beside a decoder that rebuilds real faces.

    python -m msddf_jax.main --config configs/detectors/recce.py --workdir runs/recce
    python -m msddf_jax.main --config configs/detectors/recce.py:port --workdir runs/recce_port

Arguments: nothing, the paper's three losses and the authors' rates (config/Recce.yml of github.com/VISION-SJTU/RECCE);
"port", DeepfakeBench's cross-entropy and rates; "demo".

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights recce_best.pth --to runs/recce_bench.
"""

from configs.detectors import common, xception


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/recce.py", ("port",))
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "recce"
    config.model = {
        "family": "xception",
        "variant": "xception",
        "image_size": 256,
        "places": (4, 7, 8),
        "widths": (256, 128, 64),
        "nodes": 256,
        "dropout": 0.2,
        "noise": 1e-6,
        "options": {},
    }
    if arg == "port":
        return config.lock()
    config.loss_weights = {"label": 1.0, "reconstruction": 0.1, "contrast": 0.1}
    config.optim.groups = ((r"detector/.*", {"lr": 2e-4, "weight_decay": 1e-5}),)
    config.optim.optimizer, config.optim.schedule, config.optim.period = "adam_l2", "step", 22_500
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        config.optim.optimizer, config.optim.schedule = "adamw", "cosine"
        # The smallest Xception has one middle block; without dropout it needs fewer steps.
        config.model.variant, config.model.places = "Mu", (3, 3, 3)
        config.model.widths, config.model.nodes, config.model.dropout = (24, 16, 8), 16, 0.0
    return config.lock()

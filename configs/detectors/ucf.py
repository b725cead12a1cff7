"""UCF (ICCV 2023): a fingerprint that all forgeries share, told from that of one method and from the content.

    python -m msddf_jax.main --config configs/detectors/ucf.py --workdir runs/ucf
    python -m msddf_jax.main --config configs/detectors/ucf.py:port --workdir runs/ucf_port

Arguments: nothing, the paper's losses, with fakes beside their own reals; "port", DeepfakeBench's, with any real;
"demo". Rates, batch (16 pairs) and epochs (5) are DeepfakeBench's, whose authors are the paper's.

Other methods need as many classes, "real" among them, and their reals:

    --config.data.group.methods='("faceswap", "deepfakes")' --config.data.group.real=2 --config.model.classes=3

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights ucf_best.pth --to runs/ucf_bench.
"""

from configs.detectors import common, xception

METHODS = ("deepfakes", "face2face", "faceswap", "neuraltextures")


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/ucf.py", ("port",))
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "ucf"
    config.data.group.update(_group(METHODS, "class" if arg == "port" else "pair"))
    config.model = {
        "family": "xception",
        "variant": "xception",
        "image_size": 256,
        "classes": len(METHODS) + 1,
        "width": 512,
        "decoder": (256, 128, 64),
        "dropout": 0.2,
        "late": arg == "port",
        "shuffle": 0.7,
        "rebuild": False,
        "options": {},
    }
    config.loss_weights = {"label": 1.0, "method": 0.1, "reconstruction": 0.3, "contrast": 0.05}
    # 5 epochs of 720 videos x 4 methods x 32 frames, 16 fakes a batch.
    config.steps = 28_800
    return (_make_demo(config) if arg == "demo" else config).lock()


def _group(methods, match):
    """As many reals as fakes, one of each method."""
    return {"real": len(methods), "fake": 1, "methods": methods, "match": match}


def _make_demo(config):
    """The same from random weights on the smallest Xception and the embedded data set's two trained methods."""
    common.make_demo(config, lr=4e-3)
    config.data.group.update(_group(tuple(config.data.train.methods), "pair"))
    config.model.variant, config.model.classes, config.steps = "Mu", 3, 720
    config.model.width, config.model.decoder, config.model.dropout = 32, (16, 16, 8), 0.0
    return config

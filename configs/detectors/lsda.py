"""LSDA (CVPR 2024): EfficientNet-B4 that learns from a teacher of each method, whose features are augmented.

    python -m msddf_jax.main --config configs/detectors/lsda.py --workdir runs/lsda
    python -m msddf_jax.main --config configs/detectors/lsda.py:port --workdir runs/lsda_port

Arguments: nothing, whole maps are augmented and the recogniser is frozen; "port", as DeepfakeBench has it; "demo".
Rates and batch are DeepfakeBench's (reference "detectors"): Adam 2e-4, four groups of five, 50 epochs of 720 groups.

The recogniser is insightface's ArcFace iResNet-100 (ms1mv3_arcface_r100_fp16 of recognition/arcface_torch in
github.com/deepinsight/insightface; for research that is not commercial), which lies where no program can fetch it: put
its backbone.pth where `RECOGNISER` says, or name another file of an iResNet-100 in config.init.real, with the same
#skip. The demo has none: it trains teachers and student alone.

A checkpoint of DeepfakeBench's gives its student: python -m msddf_jax.weights lsda_best.pth --to runs/lsda_bench.
"""

from configs.detectors import common, efficientnetb4

# The digest is that of three mirrors (the publisher states none); what is skipped is the embedding behind the map.
RECOGNISER = (
    "weights/arcface_torch/ms1mv3_arcface_r100_fp16/backbone.pth"
    "#sha256=a566a62357f0c55b679d9ff2f022a294486568be0c00665d39029d0e46a8109b&format=iresnet/insightface"
    "&skip=(fc|features).*"
)
METHODS = ("deepfakes", "face2face", "faceswap", "neuraltextures")
# Blocks of iResNet-100's first three stages, which the port leaves as they are.
_STILL = r"real/backbone/block_(\d|[1-3]\d|4[0-5])/.*"
# The port adds over 4 groups, 4 methods and 64 cells what is a mean here.
_PORT_SUM = 4 * 4 * 64.0


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/lsda.py", ("port",))
    config = common.get_plain("efficientnet", "B4", image_size=256, init=efficientnetb4.WEIGHTS)
    config.detector = "lsda"
    config.data.group.methods = METHODS
    config.data.batch_size = 4 * (1 + len(METHODS))
    config.steps = 50 * 720 // 4
    config.model = {
        "family": "efficientnet",
        "variant": "B4",
        "image_size": 256,
        "width": 512,
        # As the authors' code takes the published weights.
        "options": {"padding": "static", "drop_connect": 0.2, "pixel_mean": (0.5,) * 3, "pixel_std": (0.5,) * 3},
    }
    config.init.update({f"teacher_{name}": efficientnetb4.WEIGHTS for name in METHODS} | {"real": RECOGNISER})
    config.loss_weights = {"label": 0.5, "kind": 1.0, "distill_real": 1.0, "distill_fake": 1.0}
    config.loss_args.samples = "maps"
    config.loss_args.real = {"variant": "iresnet100", "trained": False}
    if arg == "port":
        config.loss_weights.real = _PORT_SUM
        config.loss_args.samples, config.loss_args.real.trained = "channels", True
    config.optim.groups = ((r".*", {"lr": 2e-4, "weight_decay": 5e-4}),)
    if arg == "port":
        config.optim.groups = ((_STILL, None), *config.optim.groups)
    return (_make_demo(config) if arg == "demo" else config).lock()


def _make_demo(config):
    """The same from random weights on the smallest EfficientNet and the embedded data set's two trained methods."""
    common.make_demo(config)
    config.data.group.methods = tuple(config.data.train.methods)
    config.init = {"backbone": "random"}
    config.optim.groups = ((r".*", {"lr": 4e-3, "weight_decay": 0.01}),)
    config.data.batch_size = 8 * (1 + len(config.data.group.methods))
    config.model.variant, config.model.width, config.model.options.drop_connect = "Mu", 24, 0.0
    config.loss_args.real.variant = ""
    config.steps = 360
    return config

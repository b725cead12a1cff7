"""FWA (Li and Lyu, CVPR Workshops 2019): a network that sees faces made coarse and warped back, and no other fake.

    python -m msddf_jax.main --config configs/detectors/fwa.py --workdir runs/fwa
    python -m msddf_jax.main --config configs/detectors/fwa.py:port --workdir runs/fwa_port

Arguments: nothing, the best of the paper's four networks, ResNet-50, on 224 px, with the authors' sizes, shapes and
rates (github.com/yuezunli/CVPRW2019_Face_Artifacts: plain SGD of 1e-3, less a twentieth every 1000 steps, batches of
64); "port", DeepfakeBench's Xception, masks, altered frames, Adam and batch; "demo". It trains on the reals of a set
alone.

Differs from the paper: a real is seen beside its forgery, there one of the two is; faces are FaceForensics++'s, there
24,442 images from the web; crops are cut and stored once, and `augment.crop` moves their edges; of the colours
saturation and sharpness, there a fifth more or less, stay as they are; no second training on hard examples; an image is
scored once, there ten times with other edges. Figures: the port as DeepfakeBench trained it has frame AUCs of 87.7 on
FF++ c23 and 66.8 on Celeb-DF v2 (reference "detectors", section 1).

A checkpoint of DeepfakeBench's has the names of a plain Xception's:
python -m msddf_jax.weights fwa_best.pth --to runs/fwa_bench.
"""

from configs.detectors import common, xception

# ImageNet's; the digest is the one in its name.
WEIGHTS = "https://download.pytorch.org/models/resnet50-0676ba61.pth#sha256=0676ba61&format=resnet/torchvision"
# Of aligned faces of 256 px: two to eight tenths.
PORT_SIZES = (51, 77, 102, 128, 154, 179, 205)
PORT_SHAPES = ("whole", "inner", "no_brows", "lower", "lifted")
# What is drawn of `degrade.augment_planes`: nothing.
STILL = {"blur_prob": 0.0, "downscale_prob": 0.0, "tone_prob": 0.0, "jpeg_prob": 0.0}


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/fwa.py", ("port",))
    config = common.get_plain("resnet", "resnet50", image_size=224, init=WEIGHTS)
    config.data.batch_size = 64
    # Half of the rows are reals, half their forgeries.
    common.train_on_reals(config)
    config.synth.recipe = {"name": "fwa", "blend": {}}
    # Every forgery is asked about.
    config.synth.visible = (0.0, 0.0)
    config.augment.update(STILL)
    if arg == "port":
        return _make_port(config).lock()
    config.augment.update({"tone_prob": 1.0, "brightness": 0.1, "contrast": 0.2, "crop": 0.05})
    config.optim.optimizer, config.optim.momentum = "sgd", 0.0
    config.optim.groups = ((r"detector/.*", {"lr": 1e-3, "weight_decay": 0.0}),)
    config.optim.schedule, config.optim.period, config.optim.factor = "step", 1000, 0.95
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        config.model.family, config.model.variant, config.steps = "xception", "Mu", 300
        config.optim.optimizer, config.optim.schedule = "adamw", "cosine"
        # Shapes of both: the authors' two alone leave an AUC of 89 on drawn faces whose mouth is made anew.
        blend = {"shapes": ("square", "polygon", "inner", "lower"), "deform": 20.0, "grow": 8}
        config.synth.recipe = {"name": "fwa", "blend": blend}
    return config.lock()


def _make_port(config):
    """DeepfakeBench's: 16 reals and their forgeries a step."""
    config.model.family, config.model.variant, config.init.backbone = "xception", "xception", xception.WEIGHTS
    config.model.image_size = config.augment.image_size = 256
    config.data.batch_size, config.optim.optimizer, config.optim.schedule = 16, "adam_l2", "constant"
    config.synth.flip = 0.0
    config.synth.recipe.blend = {"sizes": PORT_SIZES, "shapes": PORT_SHAPES, "deform": 20.0, "grow": 8}
    config.synth.recipe.frame = STILL | {
        "shift_prob": 0.3,
        "color_shift": 20.0,
        "tone_prob": 0.3,
        "brightness": 0.3,
        "contrast": 0.3,
        "jpeg_prob": 0.5,
        "jpeg_quality": (40, 100),
    }
    return config

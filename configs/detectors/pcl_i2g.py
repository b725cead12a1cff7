"""PCL + I2G (ICCV 2021): which patches of a face are of one source, learned from faces blended into others.

    python -m msddf_jax.main --config configs/detectors/pcl_i2g.py --workdir runs/pcl_i2g
    python -m msddf_jax.main --config configs/detectors/pcl_i2g.py:port --workdir runs/pcl_i2g_port

Arguments: nothing, the paper's ResNet-34 with an embedding for each side of a pair and a consistency of weight 10 (Adam
5e-5, batches of 128); "port", DeepfakeBench's Xception with one embedding and weight 1, on 8 frames a video; "demo". It
trains on the reals of a set alone; with --config.data.group.fake=1 its fakes and their masks take part.

Of the generator as ported are the four hulls, the elastic deformation, the eroded and blurred mask and that the face is
blended in whole; here the face is moved onto the landmarks of the frame, which is not moved, and its colours go to the
frame's in LAB, there in RGB. It is that of the nearest other person among the reals of a batch; for those of the whole
set, as published, see configs/detectors/face_xray.py. Schedule and augmentation of the paper are this project's.

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights pcl_xception_best.pth --to runs/pcl_i2g_bench.
"""

from configs.detectors import common, resnet34, xception

# `synth.face_xray.swap_face`.
BLEND = {
    "hulls": ("dfl_full", "extended", "components", "facehull"),
    "deform": 0.0,
    "elastic": 50.0,
    "erode": True,
}
# 720 training videos x 8 frames, 32 a step.
STEPS_PER_EPOCH = 180


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/pcl_i2g.py", ("port",))
    config = common.get_plain("resnet", "resnet34", image_size=256, init=resnet34.WEIGHTS)
    config.detector = "pcl_i2g"
    config.model = {
        "family": "resnet",
        "variant": "resnet34",
        "image_size": 256,
        "stage": "stage_3",
        "shared": False,
        "options": {},
    }
    config.data.batch_size = 128
    if arg != "demo":
        common.train_on_reals(config)
    config.synth.recipe = {"name": "face_xray", "blend": BLEND}
    config.synth.visible = (0.0, 0.0)
    config.loss_weights = {"label": 1.0, "consistency": 10.0}
    config.optim.groups = ((r"detector/.*", {"lr": 5e-5, "weight_decay": 0.0}),)
    config.optim.final_lr = 0.0
    if arg == "port":
        config.model.family, config.model.variant, config.model.stage = "xception", "xception", "block_7"
        config.model.shared, config.init.backbone = True, xception.WEIGHTS
        config.loss_weights.consistency = 1.0
        config.data.batch_size, config.data.train.max_frames, config.synth.flip = 32, 8, 0.0
        # SBI's, the same for a real and its forgery.
        config.augment.update(
            {
                "blur_prob": 0.0,
                "downscale_prob": 0.0,
                "shift_prob": 0.3,
                "color_shift": 20.0,
                "tone_prob": 0.3,
                "brightness": 0.3,
                "contrast": 0.3,
                "jpeg_prob": 0.5,
                "jpeg_quality": (40, 100),
            }
        )
        config.optim.groups = ((r"detector/.*", {"lr": 2e-4, "weight_decay": 5e-4}),)
        config.optim.optimizer, config.optim.schedule = "adam_l2", "step"
        config.optim.period, config.optim.factor = 3 * STEPS_PER_EPOCH, 0.4
        config.steps = 150 * STEPS_PER_EPOCH
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        config.model.variant, config.steps, config.data.batch_size = "Mu", 720, 16
        # With the set's own fakes and their masks: of eight reals a batch the nearest other face is not near, and on
        # these alone video AUCs of the seen fakes were 87 and 60. With a consistency of 10 the label came to 94 and 88.
        config.loss_weights.consistency = 2.0
    return config.lock()

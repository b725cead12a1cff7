"""SBI (Shiohara and Yamasaki, CVPR 2022 oral): EfficientNet-B4 on self-blended images of reals, and on nothing else.

    python -m data_prep.prepare --layout=faceforensics --root FaceForensics++ --out prepared --size 380 --preset sbi
    python -m msddf_jax.main --config configs/detectors/sbi.py --workdir runs/sbi

Published: video AUC 92.87 on Celeb-DF, 98.16 on DFD and 71.96 on DFDC, trained on c23. As published are backbone, size,
pixels without normalisation, dropout and skipped blocks, SAM over SGD, the learning rate, 16 reals and their 16
forgeries, eight frames a video, 100 epochs (36,000 steps over the 720 training videos), and every forgery is asked
about. Crops must be stored at 380 px, and the run stops where they are of another size; larger ones do too, with
--config.data.image_size set to theirs. Differs from the paper:

- Crops are cut and stored once, by the preset "sbi": the face box with an eighth of its sides added on each, which is
  the paper's crop for testing (the box is this project's detector's, not RetinaFace's). In training the paper adds a
  twentieth to a fifth on each side, drawn anew each time, so edges lie up to 6 % of the test crop's side further in or
  out. `augment.crop` moves them as far, the same for a real and its forgery; but where an edge moves out, the pixels
  beyond the stored crop are not there and its border is repeated. Blending is done at the size of the stored crop, not
  of the frame. With the aligned presets (--config.data.preset=dfb) faces are upright too.
- The hue, saturation and value shift of 0.3 grey levels in step 5 is left out: it is lost in 8 bits.
- Batch norm's moving statistics follow SAM's first pass only, there both. Both passes here drop out alike.
- The checkpoint is the best one by video AUC on the validation split, with its fakes; the paper takes the last.
- Scoring: `evaluate` has one face a frame, the track that was prepared, and a video's score is the mean over its frames
  (`config.aggregate`). The paper scores every face of at least half the area of the largest and takes the frame's
  highest. `predict` scores all faces of a photograph and takes the highest; of a video it takes the mean over frames
  for each person, and the verdict is about one of them. Frames without a face count nowhere; there, a video without any
  counts 0.5.
"""

from configs.detectors import common

# ImageNet's; the digest is the one in its name.
WEIGHTS = (
    "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0/adv-efficientnet-b4-44fb3a87.pth"
    "#sha256=44fb3a87&format=efficientnet/lukemelas"
)
# 720 training videos x 8 frames, 16 a step.
STEPS_PER_EPOCH = 360


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/sbi.py")
    config = get_published()
    return (make_demo(config) if arg == "demo" else config).lock()


def get_published():
    """The published experiment, unlocked."""
    # AdvProp's weights, but pixels as they are; dropout and drop_connect are those of efficientnet_pytorch's B4.
    options = {
        "padding": "static",
        "pixel_mean": (0.0, 0.0, 0.0),
        "pixel_std": (1.0, 1.0, 1.0),
        "dropout": 0.4,
        "drop_connect": 0.2,
    }
    config = common.get_plain("efficientnet", "B4", image_size=380, init=WEIGHTS, options=options)
    # Reals alone; each gives itself and its forgery: 16 and 16.
    common.train_on_reals(config)
    config.data.image_size, config.data.preset = 380, "sbi"
    config.data.train.max_frames = 8
    config.synth.recipe = {"name": "self_blend", "twin": {}, "blend": {}}
    config.synth.visible = (0.0, 0.0)
    # Steps 5 and 6 (reference "sbi").
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
            # Margins of 1/20 to 1/5 of the box about 1/8, of a crop that is 5/4 of the box: 0.075 / 1.25.
            "crop": 0.06,
        }
    )
    config.step.name, config.step.rho = "sam", 0.05
    config.optim.groups = ((r"detector/.*", {"lr": 1e-3, "weight_decay": 0.0}),)
    config.optim.optimizer, config.optim.momentum = "sgd", 0.9
    config.optim.schedule, config.optim.start, config.optim.final_lr = "linear", 0.75, 0.0
    # Neither averages nor clipping are published.
    config.ema, config.optim.clip_norm = 0.0, 1e9
    config.steps = 100 * STEPS_PER_EPOCH
    return config


def make_demo(config):
    """The same method on the embedded data set, with a small ResNet and AdamW.

    From random weights an EfficientNet takes longer than a demo may, and SGD at the published rate gets nowhere.
    """
    common.make_demo(config, lr=3e-3)
    config.model.family, config.model.variant = "resnet", "Mu"
    config.model.options = {"pixel_mean": (0.0, 0.0, 0.0), "pixel_std": (1.0, 1.0, 1.0)}
    config.data.batch_size, config.steps = 16, 1200
    config.optim.optimizer, config.optim.clip_norm = "adamw", 5.0
    return config

"""FPG-style (after ACM MM 2024, doi 10.1145/3664647.3680713): SBI whose forgeries the detector's perception refines.

    python -m msddf_jax.main --config configs/detectors/fpg.py --workdir runs/fpg

The method's text is not public to us: this is an own design (detectors/fpg.py says what is known). Data, crops,
network and augmentation are those of configs/detectors/sbi.py. Differs from it: 30 epochs on a cosine, and plain
gradients, since with SAM (--config.step.name=sam) each pass chooses its forgeries anew.

The quality of an image is its sharpness, measured on the device. With TFace's SDD-FIQA network in its place
(SDD_FIQA_checkpoints_r50.pth, linked from the quality folder of github.com/Tencent/TFace; no digest of it is known
here, so that nothing fetches it):

    python -m msddf_jax.main --config configs/detectors/fpg.py:network --config.init.quality='PATH#sha256=DIGEST'

It was trained on faces aligned without a margin; here it sees whole crops at 112 px.
"""

from configs.detectors import common, sbi


def get_config(arg=None):
    """The experiment. `arg`: nothing, "network" (TFace's network says the quality), or "demo"."""
    common.check_arg(arg, "configs/detectors/fpg.py", ("network",))
    config = sbi.get_published()
    config.detector = "fpg"
    del config.model["normalize"]
    config.loss_weights = {"label": 1.0, "response_bce": 0.1, "quality_mse": 0.05, "strength_mse": 0.05}
    config.loss_args = {
        # The last three numbers and the upper end of low: reference "fpg".
        "refine": {"candidates": 2, "low": (0.0, 0.2), "high": 0.95, "suppress": 0.3, "share": 0.2},
        # Of: "sharpness" or "network". half: variance of the Laplacian, grey levels squared, that counts one half.
        "quality": {"of": "sharpness", "half": 100.0},
        # 0.5 weighs a real or a forgery by 1 + 0.5 (1 - quality) (reference "fpg", 3b).
        "sample_weight": 0.0,
    }
    if arg == "network":
        config.loss_args["quality"]["of"] = "network"
        config.init.quality = "weights/SDD_FIQA_checkpoints_r50.pth"
    config.step.name = "gradient"
    config.optim.schedule, config.optim.start = "cosine", 0.0
    config.steps = 30 * sbi.STEPS_PER_EPOCH
    return (sbi.make_demo(config) if arg == "demo" else config).lock()

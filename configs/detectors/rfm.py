"""RFM (CVPR 2021): Xception trained on images whose most telling pixels are covered with noise.

    python -m msddf_jax.main --config configs/detectors/rfm.py --workdir runs/rfm
    python -m msddf_jax.main --config configs/detectors/rfm.py:port --workdir runs/rfm_port

Arguments: nothing, the authors' code (Adam 2e-4, 16 images a step, flooding at 0.04); "port", DeepfakeBench's
constants; "demo". A step looks at the network once more, and takes that look's gradient by the pixels.

A checkpoint of DeepfakeBench's is a plain Xception: python -m msddf_jax.weights rfm_best.pth --to runs/rfm_bench.
"""

from configs.detectors import common, xception


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/rfm.py", ("port",))
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "rfm"
    port = arg == "port"
    config.loss_args = {"erase": {"blocks": 3, "share": 120 / (256 if port else 224)}, "flood": 0.0 if port else 0.04}
    if not port:
        config.data.batch_size = 16
        config.optim.groups = ((r"detector/.*", {"lr": 2e-4, "weight_decay": 0.0}),)
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        config.model.variant, config.steps = "Mu", 540
        # The published rectangles hide the small forgeries of a 96 px face whole: what is left of such a fake is real.
        config.loss_args.erase.share = 0.1
    return config.lock()

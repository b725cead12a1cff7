"""Capsule-Forensics (ICASSP 2019, and its second version): capsules with dynamic routing on VGG-19's third stage.

    python -m msddf_jax.main --config configs/detectors/capsule.py --workdir runs/capsule
    python -m msddf_jax.main --config configs/detectors/capsule.py:port --workdir runs/capsule_port

Arguments: nothing, the paper's, on a VGG that stays ImageNet's, with the rates of the authors' code (Adam 5e-4);
"port", DeepfakeBench's capsule_net, all of it trained (Adam 8e-5, weight decay 5e-4); "demo".

A checkpoint of DeepfakeBench's: python -m msddf_jax.weights capsule_best.pth --to runs/capsule_bench.
"""

from configs.detectors import common

# ImageNet's; the digest is the one in its name.
WEIGHTS = "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth#sha256=dcbb9e9d&format=vgg/torchvision"
# DeepfakeBench's pixels.
HALF = {"pixel_mean": (0.5, 0.5, 0.5), "pixel_std": (0.5, 0.5, 0.5)}


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/capsule.py", ("port",))
    config = common.get_plain("vgg", "vgg19", image_size=256, init=WEIGHTS)
    config.detector = "capsule"
    port = arg == "port"
    config.model = {
        "family": "vgg",
        "variant": "vgg19",
        "image_size": 256,
        "capsules": 10,
        "routing": "code" if port else "paper",
        "noise": 0.0 if port else 0.01,
        "dropout": 0.0 if port else 0.05,
        "options": HALF if port else {},
    }
    config.loss_weights = {"label_parts" if port else "label": 1.0}
    if port:
        config.optim.final_lr = 8e-6
        config.optim.groups = ((r"detector/.*", {"lr": 8e-5, "weight_decay": 5e-4}),)
    else:
        config.optim.final_lr = 5e-5
        config.optim.groups = ((r"detector/backbone/.*", None), (r"detector/.*", {"lr": 5e-4, "weight_decay": 0.0}))
    if arg == "demo":
        # From random weights VGG has to learn too.
        common.make_demo(config, lr=4e-3)
        config.model.variant = "Mu"
    return config.lock()

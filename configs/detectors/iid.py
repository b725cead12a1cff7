"""IID (CVPR 2023): Xception's embedding beside that of a face recogniser, whose difference tells a swapped face.

    python -m msddf_jax.main --config configs/detectors/iid.py --workdir runs/iid
    python -m msddf_jax.main --config configs/detectors/iid.py:port --workdir runs/iid_port

Arguments: nothing, the target's identity is learned; "port", the donor's, as DeepfakeBench has it; "demo". Rates and
batch are DeepfakeBench's (reference "detectors").

The recogniser is insightface's ArcFace iResNet-50 (ms1mv3_arcface_r50_fp16 of recognition/arcface_torch in
github.com/deepinsight/insightface; for research that is not commercial), which lies where no program can fetch it: put
its backbone.pth where `RECOGNISER` says, or name another file of any of insightface's iResNets, for instance

    --config.init.identity=PATH --config.model.identity.variant=iresnet100

It was trained on faces aligned without a margin; here, as in the port, it sees whole crops. The demo has none, and so
neither the difference nor the terms of the explicit identity.

A checkpoint of DeepfakeBench's has its recogniser in it: python -m msddf_jax.weights iid_best.pth --to runs/iid_bench.
"""

from configs.detectors import common, xception

# The digest is that of a listing of others (the publisher states none).
RECOGNISER = (
    "weights/arcface_torch/ms1mv3_arcface_r50_fp16/backbone.pth"
    "#sha256=ef005ba502a2d0f40e7b94245054d3a23e375776f7035080fcbce45ae49cfb01&format=iresnet/insightface"
)


def get_config(arg=None):
    """The experiment. `arg`: nothing, "port" or "demo"."""
    common.check_arg(arg, "configs/detectors/iid.py", ("port",))
    config = common.get_plain("xception", "xception", image_size=256, init=xception.WEIGHTS)
    config.detector = "iid"
    config.model = {
        "family": "xception",
        "variant": "xception",
        "image_size": 256,
        "identity": {"family": "iresnet", "variant": "iresnet50", "image_size": 112, "options": {}},
        # Of FF++'s training set; the port has a class for each number of a video.
        "num_identities": 1000 if arg == "port" else 720,
        "options": {},
    }
    config.init.identity = RECOGNISER
    config.loss_weights = {"label": 1.0, "explicit_real": 0.1, "explicit_fake": 0.1, "implicit": 0.05}
    config.loss_args.implicit = "donor" if arg == "port" else "identity"
    config.optim.groups = ((r"detector/identity/.*", None), *config.optim.groups)
    if arg == "demo":
        common.make_demo(config, lr=4e-3)
        del config.init["identity"]
        config.model.variant, config.model.identity = "Mu", None
    return config.lock()

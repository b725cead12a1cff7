"""What each part of detectors/clip_cross_domain.py is worth, on the data set's fakes alone: parts added, and left out.

The argument is the row and, behind a comma, the manipulation to train on: clip_cross_domain.py:boundary,toy_neural.

    l2, frequency, boundary, identity, alignment, slerp, consistency
                                  LN-tuning with the parts of `PARTS` up to this one; the last is the whole method (and
                                  what no argument stands for)
    without_frequency, ...        the whole without this part; the rung before the last is the one without consistency
    arc                           the whole with ArcMargin
    adapters                      Freq-Adapter and Boundary Mining without forgeries: everything trained, as in MSDDF
    xception                      Xception from random weights, everything trained

"linear_probe" and "ln_tuning" are the two rungs below.
"""

from configs.ablations import base
from configs.detectors import clip_cross_domain

PARTS = ("l2", "frequency", "boundary", "identity", "alignment", "slerp", "consistency")
LEFT_OUT = ("frequency", "boundary", "identity", "alignment", "slerp")
ROWS = (*PARTS, *(f"without_{part}" for part in LEFT_OUT), "arc", "adapters", "xception")
# Fields of the Model and weights that belong to a part.
_FIELDS = {
    "frequency": {"use_frequency": False},
    "boundary": {"use_boundary": False},
    "identity": {"num_identities": 0},
    "slerp": {"slerp_probability": 0.0},
}
_WEIGHTS = {
    "frequency": ("frequency_cosine",),
    "boundary": ("boundary_bce", "boundary_mean", "boundary_variation"),
    "identity": ("identity_ce",),
    "alignment": ("feature_uniformity", "feature_alignment"),
    "consistency": ("frequency_cosine",),
}


def get_config(arg=None):
    """The experiment; `arg`: "<row>" or "<row>,<manipulation to train on>"."""
    row, _, method = (arg or PARTS[-1]).partition(",")
    if row not in ROWS:
        raise ValueError(f"configs/ablations/clip_cross_domain.py has the rows {ROWS}, got {row!r}")
    if row == "xception":
        return _get_xception(method).lock()
    if row in PARTS:
        off = PARTS[PARTS.index(row) + 1 :]
    elif row == "adapters":
        off = ("identity", "alignment", "slerp", "consistency")
    else:
        off = (row.removeprefix("without_"),) if row != "arc" else ()
    config = _get_without(off, method)
    if row == "arc":
        config.model.binary_head = "cosine"
    if row == "adapters":
        config.init.backbone = "random"
        config.optim.groups = base.FINE_TUNE
    return config.lock()


def _get_without(off, method):
    """The whole method without some parts, LN-tuned on the pretrained backbone."""
    full = clip_cross_domain.get_config()
    config = base.freeze(base.get_baseline(method), base.LN_TUNE)
    config.detector = full.detector
    config.model = clip_cross_domain.get_model(
        config.model.variant, image_size=config.model.image_size, num_identities=84, rank=32
    )
    config.loss_weights, config.loss_args = full.loss_weights.to_dict(), full.loss_args.to_dict()
    for part in off:
        config.model.update(_FIELDS.get(part, {}))
        for name in _WEIGHTS.get(part, ()):
            config.loss_weights[name] = 0.0
    return config


def _get_xception(method):
    config = base.get_baseline(method)
    config.model = {"family": "xception", "variant": "xception", "image_size": config.model.image_size}
    config.model.normalize = False
    # Of its own demo.
    config.optim.groups = (("detector/.*", {"lr": 1e-3, "weight_decay": 0.01}),)
    return config

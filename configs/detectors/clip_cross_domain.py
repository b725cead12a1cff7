"""CLIP-based cross-domain detection: CLIP ViT-L/14, LayerNorms and adapters trained, on FaceForensics++'s own fakes.

    python -m msddf_jax.main --config configs/detectors/clip_cross_domain.py --workdir runs/clip_cross_domain

Rates, weights and schedule are those of the reference "clip_cross_domain", part B; no published figures exist.
--config.model.binary_head=cosine trains with ArcMargin, --config.model.edges=canny mines thin edges.

    # Several training sets, told apart behind the gradient reversal (and config.model.num_identities for them all):
    --config.data.train.name=faceforensics/c23,celebdf/v2 --config.model.num_domains=2 \\
    --config.loss_weights.domain_ce=1.0
    # A feature that is taught identity, and what correlates with it as a penalty (B4's weight):
    --config.model.identity_width=128 --config.loss_weights.own_identity_ce=1.0 \\
    --config.loss_weights.identity_correlation=0.01
"""

from configs import msddf
from configs.detectors import common


def get_config(arg=None):
    """The experiment. `arg`: nothing, or "demo" for the embedded data set."""
    common.check_arg(arg, "configs/detectors/clip_cross_domain.py")
    config = common.get_plain("clip", "L/14", image_size=224, init=msddf.CLIP_L14)
    config.detector = "clip_cross_domain"
    config.model = get_model("L/14", image_size=224, num_identities=720, rank=96)
    # B5; the two boundary terms without a mask are B3's.
    config.loss_weights = {
        "label": 1.0,
        "feature_uniformity": 0.5,
        "feature_alignment": 0.1,
        "frequency_cosine": 0.1,
        "boundary_bce": 0.1,
        "boundary_mean": 0.01,
        "boundary_variation": 0.01,
        # Reaches the backbone through the reversal, as domain_ce does.
        "identity_ce": 1.0,
        "domain_ce": 0.0,
        "own_identity_ce": 0.0,
        "identity_correlation": 0.0,
    }
    # Ceiling of the gradient reversals (B4: 0.1 for B/16, 0.05 for L/14); the margin of ArcMargin grows over two passes
    # (B5).
    config.loss_args = {"arc": {"scale": 30.0, "margin": 0.3, "warmup": 0.1}, "reversal": 0.05}
    # B8's list; flips, blur, tone, JPEG and re-sampling are defaults. Shift and scale by a tenth, no rotation.
    config.augment.crop = 0.1
    # B8; twenty passes over the 720 x 32 real frames, 5 % of them warm-up.
    config.data.batch_size = 256
    config.steps = 20 * 720 * 32 // 128
    config.optim.warmup_steps = config.steps // 20
    config.optim.final_lr = 1e-6
    config.optim.clip_norm = 1.0
    config.select.every = 360
    config.optim.groups = (
        (r"detector/backbone/(.*/)?ln_[^/]+/.*", {"lr": 3e-4, "weight_decay": 0.0}),
        (r"detector/backbone/.*", None),
        # The adversaries, and what is taught identity, learn faster: lr x 3 (B4).
        (r"detector/(identity|domain)_[^/]+/.*", {"lr": 1e-3, "weight_decay": 0.0}),
        (r"detector/(frequency|boundary)/.*", {"lr": 5e-4, "weight_decay": 0.01}),
        (r"detector/.*", {"lr": 3e-4, "weight_decay": 0.0}),
    )
    if arg == "demo":
        _make_demo(config)
    return config.lock()


def get_model(variant, *, image_size, num_identities, rank):
    """Fields of the Model with every part on that B5 asks for.

    num_identities: FF++ has 720 training identities (its videos). rank: B2: 64 for B/16, 96 for L/14.
    """
    return {
        "variant": variant,
        "image_size": image_size,
        "num_identities": num_identities,
        "num_domains": 0,
        "identity_width": 0,
        "rank": rank,
        "use_frequency": True,
        "use_boundary": True,
        "edges": "sobel",
        # B6.
        "slerp_probability": 0.5,
        "binary_head": "linear",
        "remat": False,
        "remat_mlp": False,
        "attention": "auto",
    }


def _make_demo(config):
    """A tiny ViT from random weights, everything trained, in minutes on two cores."""
    common.make_demo(config, lr=3e-4)
    config.model = get_model("Ti/16", image_size=config.augment.image_size, num_identities=84, rank=32)
    # As in MSDDF's demo: from random weights, terms that ask features to agree are met by making all of them equal.
    config.model.slerp_probability = 0.0
    for name in ("feature_uniformity", "feature_alignment", "frequency_cosine"):
        config.loss_weights[name] = 0.0
    config.loss_weights.identity_ce = 0.1
    # At first the label's gradient is small beside the reversed one, and Adam makes a full step of whichever is larger:
    # at 0.05 the features fled the adversary before they learned anything.
    config.loss_args.reversal = 0.005
    faster = (r"detector/identity_head/.*", {"lr": 1e-3, "weight_decay": 0.0})
    config.optim.groups = (faster, *config.optim.groups)

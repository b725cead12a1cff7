"""MSDDF: multi-task supervision on forgeries that are made in the train step.

Full size, on FaceForensics++ c23 with CLIP ViT-L/14 at 224 px (OpenAI's weights; all LayerNorms, the adapters
and the heads are trained):

    python -m msddf_jax.main --config configs/msddf.py --workdir runs/msddf

The same code on the embedded data set, from scratch, on two CPU cores (see launch/demo.sh):

    python -m msddf_jax.main --config configs/msddf.py:demo --workdir demo/workdir --config.data.data_dir=demo/tfds
"""

from ml_collections import ConfigDict

from configs.common import eval_set, get_common

# OpenAI's CLIP at a fixed commit, so that it is the same file next year.
CLIP_L14 = (
    "hf://openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41/model.safetensors"
    "#sha256=a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb&format=clip/hf_clip"
)

# Embedding, adapters and heads of the two sizes. "clip_cross_domain" is that reference's part B.
_FROZEN_BACKBONE_GROUPS = (
    # LN-tuning: GenD trains every LayerNorm of CLIP and nothing else of it. lr: GenD, 3e-4.
    (r"detector/backbone/(.*/)?ln_[^/]+/.*", {"lr": 3e-4, "weight_decay": 0.0}),
    (r"detector/backbone/.*", None),
    # The adversary learns faster than what it opposes: lr x 3 (clip_cross_domain B4).
    (r"detector/identity_head/.*", {"lr": 1e-3, "weight_decay": 0.0}),
    # Convolutions of the adapters: lr 5e-4, weight decay 0.01 (clip_cross_domain B8).
    (r"detector/(frequency|boundary)/.*", {"lr": 5e-4, "weight_decay": 0.01}),
    (r"detector/.*", {"lr": 3e-4, "weight_decay": 0.0}),
)

# The demo trains on these two manipulations of the embedded data set; the other two stay unseen.
_DEMO_TRAINED = ("toy_neural", "toy_texture")


def _model(variant, *, image_size, num_identities, rank):
    return ConfigDict(
        {
            "variant": variant,
            "image_size": image_size,
            # FF++ has 720 training identities (its videos); 0 leaves the adversary out.
            "num_identities": num_identities,
            # Channels of the frequency tokens (clip_cross_domain B2: 64 for B, 96 for L).
            "rank": rank,
            "use_frequency": True,
            "use_boundary": True,
            # Slerp within a class (clip_cross_domain B6).
            "slerp_probability": 0.5,
            # Whether the type head is a gradient reversal's too ("manipulation-invariant features").
            "reverse_type": False,
            # "cosine" uses ArcMargin with loss_args.arc instead of plain cross-entropy (clip_cross_domain B5).
            "binary_head": "linear",
            # What the backward pass computes again, for memory: whole blocks, or their MLPs alone.
            "remat": False,
            "remat_mlp": False,
            # "flash": fused attention on NVIDIA GPUs, in bfloat16.
            "attention": "auto",
        }
    )


def _set_synthesis(config, published):
    """Which rows a group gives, and how its forgeries are made. What each line is worth: docs/results/real_faces.md."""
    synth = config.synth
    synth.recipe = ConfigDict(
        {
            "name": "msddf",
            # Of the twins; frequency_prob 1 as in the paper.
            # alter_target: as published, half of the reals are sharpened or re-sampled, and the data set's fakes never.
            "twin": {
                "frequency_prob": 1.0,
                "move": 0.5 if published else 1.0,
                "alter_target": 0.5 if published else 0.0,
            },
            # Blends that obey the strength, as published.
            "blend": {"magnitude_on": ("dynamic",)},
            # alpha, Poisson, dynamic, none under the uniform policy (MSDDF 6, parameter table). "none" is a real once
            # more, and one stands beside each forgery already.
            "type_weights": (0.25, 0.2, 0.35, 0.2) if published else (0.3, 0.2, 0.5, 0.0),
            # Share of the reals whose twins are blended by SBI's hull instead: the type "self-blend-hull" of MSDDF 6,
            # which gives it no share. From the first step to the last, as the least strength.
            "self_blend_share": (0.0, 0.0) if published else (1.0, 0.5),
            "strength_floor": (0.0, 0.0) if published else (1.0, 0.25),
            # How far a source's colours move to its target's. All the way, as published, nothing is left of the twins'
            # difference but sharpness, which a small input does not see.
            "transfer": (1.0, 1.0) if published else (0.0, 0.5),
            # The public code alters the twins of reals, and not the data set's fakes.
            "alter_fakes": not published,
        }
    )
    synth.visible = (6.0, 2.0)
    if published:
        # Half of all rows are reals, seen twice; a forgery and its real are augmented each for itself, and every
        # forgery is asked about.
        synth.second_views, synth.joint, synth.visible = 1, False, (0.0, 0.0)


def _loss_weights(published):
    """MSDDF 6, "Loss", and clip_cross_domain B5.

    The terms that ask features to agree or to spread are off unless as published: with them the network stayed at the
    prior on real crops (docs/results/real_faces.md).
    """
    consistency = 1.0 if published else 0.0
    return ConfigDict(
        {
            "label": 1.0,
            "map_bce": 0.1,
            "map_dice": 0.1,
            "type_ce": 0.05,
            "region_bce": 0.05,
            "strength_mse": 0.1,
            "boundary_bce": 0.1,
            "feature_uniformity": 0.5 * consistency,
            "feature_alignment": 0.1 * consistency,
            "twin_cosine": 0.1 * consistency,
            "frequency_cosine": 0.1 * consistency,
            # Reaches the backbone through the reversal, whose strength is loss_args.reversal.
            "identity_ce": 1.0,
        }
    )


def get_config(arg=None):
    """The experiment.

    `arg` is what stands behind the colon: nothing (full size), "published" (synthesis and rows as the public code has
    them, on which the method does not learn from real faces: docs/results/real_faces.md), "reals" (without a fake of
    the data set), or "demo".
    """
    if arg not in (None, "", "demo", "published", "reals"):
        raise ValueError(f"configs/msddf.py takes no argument, 'published', 'reals' or 'demo', got {arg!r}")
    config = get_common()
    config.detector = "msddf"
    # Fetched at the first run, or before it: python -m msddf_jax.weights --fetch clip-l14
    config.init.backbone = CLIP_L14
    config.model = _model("L/14", image_size=224, num_identities=720, rank=96)
    # The drawn manipulations of the demo leave re-sampling behind and no seam of colour: there the published synthesis
    # is the better one (docs/results/real_faces.md, "On drawn faces").
    published = arg in ("published", "demo")
    _set_synthesis(config, published)
    # Off: it has been worth nothing so far (docs/results). "reinforce" is the published one.
    config.policy.mode = "reinforce" if published else "none"
    # Reward of a forgery: its own cross-entropy + 0.1 x its map loss (MSDDF 6).
    config.policy.reward = {"label": 1.0, "map_bce": 0.1}
    config.augment.image_size = config.model.image_size
    config.loss_weights = _loss_weights(published)
    # Ceiling of the gradient reversals, 0.1 for B/16 and 0.05 for L/14 (clip_cross_domain B4).
    config.loss_args = ConfigDict({"arc": {"scale": 30.0, "margin": 0.3, "warmup": 0.1}, "reversal": 0.05})
    config.optim.groups = _FROZEN_BACKBONE_GROUPS
    # 5 % warm-up, cosine to 1e-6 (clip_cross_domain B8; GenD).
    config.optim.warmup_steps = 1500
    config.optim.final_lr = 1e-6
    if arg == "reals":
        _make_reals(config)
    if arg == "demo":
        _make_demo(config)
    return config.lock()


def _make_reals(config):
    """Reals alone, self-blended: on real faces MSDDF's own twins teach less there (docs/results/real_faces.md)."""
    config.data.group.update({"real": 1, "fake": 0})
    config.data.batch_size = config.data.batch_size // 2
    config.data.train.methods = ()
    config.synth.recipe = ConfigDict({"name": "self_blend", "twin": {}, "blend": {}})
    config.synth.forged, config.synth.second_views = None, 0


def _make_demo(config):
    """The embedded data set, a tiny ViT from random weights, and minutes on two cores."""
    config.dtype = "float32"
    # The toy videos are 128 px and the aligned face fills three quarters of that: 96 px keep its own resolution.
    config.data.image_size = 96
    config.data.batch_size = 16
    config.data.eval_batch_size = 64
    config.data.num_threads = 2
    config.data.train = eval_set("faceforensics/toy", "train", _DEMO_TRAINED)
    config.evals = ConfigDict({"val": eval_set("faceforensics/toy", "validation", _DEMO_TRAINED)})
    for method in (*_DEMO_TRAINED, "toy_swap", "toy_reenact"):
        config.evals[method] = eval_set("faceforensics/toy", "test", (method,))
    # Frames and not videos: every video of the small validation split is right long before training ends.
    config.select = ConfigDict({"eval": "val", "metric": "frame_auc", "every": 120})
    config.init.backbone = "random"
    config.model = _model("Ti/16", image_size=96, num_identities=84, rank=32)
    config.model.slerp_probability = 0.0
    # The published ranges are for 256 px faces; at 96 px they would wipe out every trace there is.
    config.augment = ConfigDict(
        {"image_size": 96, "downscale_prob": 0.0, "jpeg_prob": 0.2, "jpeg_quality": (80, 100), "blur_prob": 0.0}
    )
    # Nor are twins re-sampled or sharpened: at 96 px that is what the manipulations themselves leave behind, and a twin
    # is a real (docs/results/drawn_faces.md).
    config.synth.recipe.twin.update({"factors": (2,), "frequency_prob": 0.0})
    # From random weights, terms that ask features to agree are met first by making all of them equal. They wait for a
    # pretrained backbone.
    for name in ("feature_uniformity", "feature_alignment", "twin_cosine", "frequency_cosine"):
        config.loss_weights[name] = 0.0
    config.loss_weights.identity_ce = 0.1
    # From random weights everything is trained.
    config.optim.groups = (("detector/.*", {"lr": 2e-3, "weight_decay": 0.01}),)
    config.policy.lr = 1e-3
    config.optim.warmup_steps = 20
    config.steps = 240
    config.ema = 0.99
    config.log_every = 10
    config.checkpoint_every = 120

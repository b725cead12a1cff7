"""The text that goes with exported weights: what they are, what chose them, what they may be used for."""

import json
import math
import re

from msddf_jax.data import schema

# (regex of a file in `config.init`, whose weights, their licence); what no row covers is unknown.
BASE_LICENCES = (
    (r"(random)?", "none: training started from random weights", "no base weights, so no licence of theirs applies"),
    (r"(.*/)?openai/clip-vit-[^/]+(/.*)?", "OpenAI's CLIP", "MIT (the licence of OpenAI's CLIP repository)"),
)
FIGURES = ("video_auc", "video_eer", "video_ap", "frame_auc", "frame_eer")
# Of what the detector says of a forgery, where it was measured on held-out ones; in percent but for the error.
FORGERY_FIGURES = ("forgery_type_accuracy", "forgery_region_f1", "forgery_strength_mae")
# What `model.stablehlo` returns beside the score, where the detector has it.
_OUTPUTS = {
    "map": "`map` [b, g, g], P(manipulated) on a grid",
    "type": "`type` [b, {}], the probabilities of {}",
    "regions": "`regions` [b, {}], the probabilities that each was manipulated: {}",
    "strength": "`strength` [b], of the blend",
    "feature": "`feature` [b, d], what the score is made of",
}

_FILES = """\
| file | what |
| --- | --- |
| `model.safetensors` | every variable of the detector, float32: `params/...`, `batch_stats/...` |
{backbone}\
| `model.stablehlo` | the detector as one function, for cpu, cuda and tpu: written by `jax.export`, weights inside |
| `run.py` | scores crops with `model.stablehlo`: `python run.py CROP.png ...` |
| `config.json` | the experiment |
| `manifest.json` | the SHA-256 of each file |
"""

_DELTA_FILES = """\
| file | what |
| --- | --- |
| `delta.safetensors` | what was trained: `params/...`, `model_state/...`; and what its base is |
| `config.json` | the experiment |
| `manifest.json` | the SHA-256 of each file |
"""

_DELTA_USE = """\
What was frozen in training is not here: it is read from the base below, and refused where one byte of it differs. Where
that is (`init` in `config.json` names its place; `$MSDDF_WEIGHTS` may name a folder that holds it), this folder is a
workdir of msddf_jax:

```bash
python -m msddf_jax.predict --workdir . --out predictions FILE...
```

Face crops are {size} x {size}, aligned as in training (preset `{preset}` of `msddf_jax.faces`). The detector returns
`score` [b]{outputs}."""

_USE = """\
`model.stablehlo` takes uint8 RGB face crops `[b, {size}, {size}, 3]`, any number b of them, and returns
`score` [b]{outputs}. Conversion to float, resizing to the model's own {model_size} pixels and normalisation
are inside. Crops of another size are refused: they are {size} x {size}, aligned as in training (preset `{preset}` of
`msddf_jax.faces`), and the score of anything else means little. It needs jax and flatbuffers, nothing of this project:

```python
import jax.export
model = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
score = model.call(crops)["score"]
```

jax promises to read such a file for six months after the version that wrote it ({jax}); `model.safetensors` has no such
limit."""

_SCORE = """\
For research on detecting manipulated faces, and for comparing detectors. A score is P(fake) **under the conditions of
the training data**: faces, manipulations, compression and the share of fakes there.

- It is no proof, and no probability that holds for another source of videos: thresholds have to be chosen on data like
  that which is to be judged. The threshold of 0.5 is a convention.
- Manipulations, generators and cameras that were not in training can score like real ones; compression, resizing and
  filters move scores both ways.
- A low score does not say that a video is authentic: only the face crop is looked at, not sound, context or origin.
- Error rates can differ between groups of people; the figures above are not broken down by group.
- Not for decisions about people without a human check of other evidence."""


def write_card(
    config,
    *,
    step,
    origin,
    choice,
    results,
    versions,
    num_parameters,
    outputs,
    tower,
    base=None,
    only_trained=False,
) -> str:
    """The model card of an export, as Markdown.

    Args:
      config: the experiment, as JSON values. step, origin: of `inference.Inference`.
      choice: what `best/` says of its weights, {"step", "<eval>/<metric>": value} or {"converted_from", "sha256"}; None
        for weights that no validation chose.
      results: of `results.json`, or None. versions: {"training", "export"}: each {name: version} or None.
      num_parameters: of the detector. outputs: names of what the detector returns.
      tower: fields of transformers' CLIPVisionConfig, or None without such a backbone.
      base: `trees` of the detector's `frozen.Base`, or None. only_trained: whether the files have what was trained
        alone.
    """
    name = " ".join([config["detector"], *([config["model"]["variant"]] if "variant" in config["model"] else [])])
    size = config["data"]["image_size"]
    use = (_DELTA_USE if only_trained else _USE).format(
        size=size,
        outputs=_outputs(outputs),
        model_size=config["model"].get("image_size", size),
        preset=config["data"].get("preset", "dfb"),
        jax=versions["export"]["jax"],
    )
    row = "| `backbone.safetensors` | the vision tower under the names of transformers' CLIPVisionModel |\n"
    parts = [
        "---\nlibrary_name: jax\npipeline_tag: image-classification\ntags: [deepfake-detection]\n---",
        f"# {name}: deepfake detector\n\n{num_parameters:,} parameters, exported by msddf_jax.",
        "## Files\n\n" + (_DELTA_FILES if only_trained else _FILES.format(backbone=row if tower else "")),
        "## Use\n\n" + use,
        *([_backbone(tower, config)] if tower else []),
        "## Data\n\n" + _data(config),
        "## Choice of the weights\n\n" + _choice(step, origin, choice, config),
        "## Figures\n\n" + _results(config, results, step, origin),
        "## Base weights and licence\n\n" + _frozen(base) + _licence(config, choice),
        "## Intended use, and what the score does not mean\n\n" + _SCORE,
        "## Versions\n\n" + _versions(versions),
        "## Config\n\n```json\n" + json.dumps(config, indent=2, sort_keys=True) + "\n```",
    ]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def _outputs(names):
    words = {"type": schema.FORGERY_TYPES, "regions": schema.FACE_PARTS}
    there = [name for name in _OUTPUTS if name in names]
    return "".join(f"; {_OUTPUTS[n].format(len(words.get(n, ())), ', '.join(words.get(n, ())))}" for n in there)


def _backbone(tower, config):
    injects = config["model"].get("use_frequency", False)
    alone = " The tokens that the frequency adapter injects are not part of it." if injects else ""
    fields = ", ".join(f"{key}={value!r}" for key, value in tower.items())
    return (
        f"The backbone alone, in transformers (its `pooler_output` is the class token's feature).{alone}\n\n"
        "```python\n"
        "from safetensors.torch import load_file\n"
        "from transformers import CLIPVisionConfig, CLIPVisionModel\n"
        f"config = CLIPVisionConfig({fields})\n"
        'weights = load_file("backbone.safetensors")\n'
        "model = CLIPVisionModel.from_pretrained(None, config=config, state_dict=weights)\n```"
    )


def _data(config):
    train = config["data"].get("train")
    if not train:
        return "The config names no training set: trained elsewhere, or not at all."
    recipe = config["synth"]["recipe"]["name"]
    made = "none are made in training" if recipe == "none" else f"made in training by the recipe `{recipe}`"
    only = " Of the data set, real images alone are used." if config["data"]["group"]["fake"] == 0 else ""
    return (
        f"Trained on `{train['name']}`, split `{train['split']}`, {_methods(train)}; further forgeries: {made}.{only} "
        "The data has a licence of its own, which may restrict the use of weights trained on it."
    )


def _methods(settings):
    methods = settings.get("methods")
    return "all methods" if methods is None else "methods " + ", ".join(f"`{m}`" for m in methods)


def _choice(step, origin, choice, config):
    if origin == "last":
        return f"The running averages of step {step}, the last that was saved; no validation figure chose them."
    if choice and "converted_from" in choice:
        return (
            f"Not trained here: converted from a published file (format {choice['converted_from']}, "
            f"SHA-256 {choice.get('sha256', 'unknown')})."
        )
    figures = [f"{key} = {value:.4f}" for key, value in (choice or {}).items() if key != "step"]
    if not figures:
        return f"The weights of step {step}; what chose them is not recorded."
    select = config.get("select") or {}
    settings = (config.get("evals") or {}).get(select.get("eval")) or {}
    split = f", split `{settings['split']}` of `{settings['name']}`" if settings else ""
    return f"The running averages of step {step}, best by {', '.join(figures)}{split}."


def _results(config, results, step, origin):
    if results is None:
        return "None: this workdir has not been evaluated (`python -m msddf_jax.evaluate --workdir DIR`)."
    about = results.get("_about") or {}
    if (about.get("step"), about.get("weights")) != (step, origin):
        return (
            f"None for these weights: `results.json` is of the weights {about.get('weights')!r} of step "
            f"{about.get('step')}, and exported are {origin!r} of step {step}."
        )
    lines = [
        "In percent. Rows whose split is not `test` took part in choosing the weights or in training, and say nothing "
        "about new data.\n",
        "| eval | data set | split | methods | " + " | ".join(FIGURES) + " |",
        "| --- " * (4 + len(FIGURES)) + "|",
    ]
    for name in dict.fromkeys(key.split("/")[0] for key in results if not key.startswith("_")):
        settings = (config.get("evals") or {}).get(name) or {}
        where = [settings.get("name", "unknown"), settings.get("split", "unknown")]
        values = [_percent(results.get(f"{name}/{figure}")) for figure in FIGURES]
        lines.append("| " + " | ".join([name, *where, _methods(settings) if settings else "unknown", *values]) + " |")
    return "\n".join([*lines, *_forgery(results)])


def _forgery(results):
    """Lines of a table of type, regions and strength; none where they were not measured."""
    there = [figure for figure in FORGERY_FIGURES if any(key.endswith(f"/{figure}") for key in results)]
    names = dict.fromkeys(key.split("/")[0] for key in results if key.split("/")[-1] in there)
    if not there:
        return []
    lines = ["", "What is said of forgeries made as in training, of videos that were not in training:\n"]
    lines += ["| eval | " + " | ".join(there) + " |", "| --- " * (1 + len(there)) + "|"]
    for name in names:
        values = [results.get(f"{name}/{figure}") for figure in there]
        error = lambda value: "-" if value is None or not math.isfinite(value) else f"{value:.3f}"
        cells = [error(v) if figure.endswith("mae") else _percent(v) for figure, v in zip(there, values, strict=True)]
        lines.append("| " + " | ".join([name, *cells]) + " |")
    return lines


def _percent(value):
    return "-" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def base_weights(path) -> tuple[str, str]:
    """(whose they are, their licence) of a file in `config.init`, or of "random"; "unknown" where that is not known."""
    file = re.split("[@#]", path)[0].removeprefix("hf://").removeprefix("hf-hub:")
    for pattern, whose, licence in BASE_LICENCES:
        if re.fullmatch(pattern, file):
            return whose, licence
    return f"`{path}`", "unknown: ask whoever published them"


def _frozen(base):
    """Lines that say which files a detector's frozen arrays are from; none where it has none of a file."""
    lines = [
        f"- {tree}: `{record['reference']}`, {record['format']}, SHA-256 {record['sha256']}; {record['frozen']:,} "
        f"numbers are as they are there (SHA-256 of these arrays {record['digest']})"
        for tree, record in (base or {}).items()
    ]
    return "\n".join(["Frozen in training:\n", *lines, "\n"]) if lines else ""


def _licence(config, choice):
    if choice and "converted_from" in choice:
        of = {"": (f"a published file of format {choice['converted_from']}", "unknown: ask whoever published it")}
    else:
        of = {f" of {tree}": base_weights(file) for tree, file in (config.get("init") or {"the detector": ""}).items()}
    lines = [f"Base weights{tree}: {whose}. Their licence: {licence}." for tree, (whose, licence) in of.items()]
    return " ".join(lines) + (
        " The licence of these weights is for whoever publishes "
        "them to state; it cannot be wider than those of the base weights and of the training data. The code of "
        "msddf_jax is Apache-2.0."
    )


def _versions(versions):
    names = list(dict.fromkeys([*(versions["training"] or {}), *versions["export"]]))
    cell = lambda when, name: str((versions[when] or {}).get(name, "unknown"))
    lines = ["| | training | export |", "| --- | --- | --- |"]
    return "\n".join(lines + [f"| {name} | {cell('training', name)} | {cell('export', name)} |" for name in names])

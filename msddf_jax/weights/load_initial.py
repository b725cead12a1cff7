"""The weights that an experiment starts from, `config.init`, and those of its frozen networks."""

import inspect
import pathlib
import re
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from msddf_jax import trees
from msddf_jax.models import backbones
from msddf_jax.weights import files, hub, identify, positions, table
from msddf_jax.weights.names import clip_names


def locate_all(init) -> dict[str, pathlib.Path]:
    """{tree: file} of `config.init`, fetched where they have to be; trees that start at random have none.

    Raises:
      ValueError: a reference that cannot be read (`hub.parse`). FileNotFoundError: names every file that is missing.
    """
    wanted = {tree: _parse(tree, text) for tree, text in init.items()}
    found, missing = {}, []
    for tree, reference in wanted.items():
        try:
            if reference.source != hub.RANDOM:
                found[tree] = hub.locate(reference)
        except FileNotFoundError as error:
            missing.append(f"config.init.{tree}: {error}")
    if missing:
        raise FileNotFoundError("\n".join(missing))
    return found


def load(config, shapes, *, adapt: Callable | None = None, elsewhere=()) -> tuple[dict[str, np.ndarray], dict]:
    """The variables of the detector that `config.init` gives, checked against the model before they are read.

    Args:
      config: its `init` is {tree: reference of `hub.parse`}: the variables below params/<tree>, batch_stats/<tree> and
        so on come from that file. A whole file of ours gives its own tree of that name, else its backbone; a CLIP with
        both towers gives its text tower and projections to the trees of `clip_names.JOINT`. Settings
        (`check_settings`) are those of config.model[tree], for "backbone" and those trees else of config.model itself.
      shapes: {"params/...": array or shape struct} of the detector.
      adapt: None, or {our name: array} of a tree as published -> as this detector keeps it. What a file holds is then
        compared with the plain backbone of three channels, and what `adapt` gives with `shapes`.
      elsewhere: trees of config.init that are not the detector's, and loaded by others (`load_whole`).

    Returns:
      ({our flat name: float32 array}, {tree: {"file", "sha256", "format", "parameters"}}); a tree at random is no part
      of the first, and {"file": "random"} of the second. Position embeddings are resampled to the model's grid.

    Raises:
      FileNotFoundError: no such file. ValueError: a tree that the detector has not; a file of another digest, that is
      not recognised, of another family or variant, with other settings than the model's, or with tensors that do not
      fit, each named.
    """
    flat, about = {}, {}
    for tree, text in config.init.items():
        if tree in elsewhere:
            continue
        belongs = {name: leaf for name, leaf in shapes.items() if _tree_of(name) == tree}
        if not belongs:
            there = ", ".join([*dict.fromkeys(map(_tree_of, shapes)), *elsewhere])
            raise ValueError(f"config.init names {tree!r}; this experiment has {there}")
        reference = _parse(tree, text)
        if reference.source == hub.RANDOM:
            about[tree] = {"file": hub.RANDOM}
            tqdm.write(f"{tree}: random weights")
            continue
        variables, about[tree] = _load_tree(reference, tree, _settings(config.model, tree), belongs, adapt)
        _check_tree(belongs, variables, text)
        flat |= variables
    return flat, about


def load_whole(reference, shapes, where) -> tuple[dict[str, np.ndarray], dict]:
    """All variables of a network beside the detector: a teacher, an identity or a quality network.

    Args:
      reference: text of `hub.parse`. A file with our own names (an exported `model.safetensors`, a workdir or its
        `best/weights.safetensors`) must have just these variables; a published one must give all of them.
      shapes: {"params/...": array or shape struct} of the network. where: its name in the config, for messages.

    Returns:
      ({our flat name: float32 array}, {"file", "sha256", "format", "parameters"}).

    Raises:
      FileNotFoundError: no such file. ValueError: the word random; a file that does not fit, with what is missing, too
      much or of another shape.
    """
    parsed = hub.parse(reference)
    if parsed.source == hub.RANDOM:
        raise ValueError(f"{where}: a network that is to start at random is not named; a frozen one needs a file")
    path, digest, tensors = open_reference(parsed)
    if identify.is_own(tensors):
        entries, kind, skip = identify.own_table(tensors), "msddf_jax", ()
    else:
        found = _identify(tensors, path, parsed, digest)
        whole = any(_tree_of(name) != "backbone" for name in shapes)
        entries, skip = (found.table, found.skip) if whole else identify.backbone_only(found)
        kind = found.format
        tensors = fit_positions(tensors, entries, shapes)
    table.check(tensors, entries, shapes, f"{where}: {path}", skip)
    return _read(tensors, entries, parsed, where, path, digest, kind)


def _load_tree(reference, tree, settings, belongs, adapt):
    path, digest, tensors = open_reference(reference)
    if identify.is_own(tensors):
        entries, skip = identify.own_tree(tensors, tree)
        kind = "msddf_jax"
        if {entry.ours for entry in entries.values()} == set(belongs):
            # As this detector keeps them already.
            adapt = None
    else:
        found = _identify(tensors, path, reference, digest)
        if settings:
            family, variant, _, options, flag = settings
            check_settings(found, family, variant, options, flag, reference.source)
        entries, skip = identify.of_tree(found, tree)
        kind = found.format
    expected = belongs
    if adapt is not None:
        if not settings:
            raise ValueError(f"config.model says no variant of {tree!r}, which a published file is compared with")
        family, variant, image_size, options, _ = settings
        plain = {name: value for name, value in options.items() if name != "in_channels"}
        expected = backbone_shapes(family, variant, image_size, plain, tree)
    tensors = fit_positions(tensors, entries, expected, tree)
    table.check(tensors, entries, expected, path, skip)
    variables, about = _read(tensors, entries, reference, tree, path, digest, kind)
    return (adapt(variables) if adapt is not None else variables), about


def open_reference(reference) -> tuple[pathlib.Path, str, dict[str, table.Tensor]]:
    """(path, digest, tensors that are not skipped) of a `hub.Reference`; the digest is compared before opening.

    Raises:
      FileNotFoundError, ValueError: see `hub.locate`, `hub.verify`, `files.open_tensors`.
    """
    path = hub.locate(reference)
    digest = hub.verify(path, reference)
    unwanted = lambda name: any(re.fullmatch(pattern, name) for pattern in reference.skip)
    tensors = files.open_tensors(path)
    return path, digest, {name: tensor for name, tensor in tensors.items() if not unwanted(name)}


def _identify(tensors, path, reference, digest):
    stated = identify.read_configs(path)
    return identify.identify(tensors, path, stated=stated, wanted=reference.format, digest=digest)


def _read(tensors, entries, reference, where, path, digest, kind):
    out = table.to_ours(tensors, entries, path)
    count = sum(value.size for name, value in out.items() if name.startswith("params/"))
    tqdm.write(f"{where}: {count:,} parameters from {path} ({kind}), sha-256 {digest}")
    return out, {"file": reference.source, "sha256": digest, "format": kind, "parameters": count}


def _check_tree(belongs, variables, text):
    """Raise ValueError unless variables are just those of the model, each of its shape."""
    trees.check_same_structure(trees.unflatten(belongs), trees.unflatten(variables), text)


def _parse(tree, text):
    try:
        return hub.parse(text)
    except ValueError as error:
        raise ValueError(f"config.init.{tree}: {error}") from error


def _tree_of(name):
    return name.split("/")[1]


def _settings(model, tree):
    """(family, variant, image_size, options, flag) of a tree by the config, None where it says no variant of it."""
    own = model.get(tree)
    flag = f"--config.model.{tree}" if hasattr(own, "get") else "--config.model"
    if not hasattr(own, "get"):
        own = model if tree in ("backbone", *clip_names.JOINT) else {}
    if "variant" not in own:
        return None
    options = own.get("options") or {}
    options = options.to_dict() if hasattr(options, "to_dict") else dict(options)
    return own.get("family", "clip"), own["variant"], own.get("image_size", model.get("image_size")), options, flag


def check_settings(found, family, variant, options, flag, path) -> None:
    """Raise ValueError where a file's backbone is another one than the config's, or computes something else.

    Options that the config states win over those that the file leaves open (`Found.assumed`) and over pixel statistics.

    Args:
      found: `identify.Found`. family, variant, options: of `backbones.make`.
      flag: in front of the names of settings on the command line. path: the file, for the message.
    """
    if (found.family, found.variant) != (family, variant):
        change = f", or set {flag}.variant={found.variant}" if found.family == family else ""
        raise ValueError(
            f"{path} is {found.family} {found.variant} ({found.format}); the config's backbone is {family} {variant}. "
            f"Name a file of that{change}"
        )
    defaults = {k: p.default for k, p in inspect.signature(backbones.FAMILIES[family][1]).parameters.items()}
    as_tuple = lambda value: tuple(value) if isinstance(value, list | tuple) else value
    for name, theirs in found.options.items():
        ours = as_tuple(options.get(name, defaults[name]))
        free = name in options and (name in found.assumed or name.startswith("pixel_"))
        if ours != as_tuple(theirs) and not free:
            raise ValueError(
                f"{path} ({found.format}) was trained with {name}={theirs!r}; the config's backbone has {ours!r}. Set "
                f"{flag.removeprefix('--')}.options.{name}"
            )


def backbone_shapes(family, variant, image_size, options, tree="backbone") -> dict[str, jax.ShapeDtypeStruct]:
    """{our flat name: shape struct} of a backbone's variables below `tree`; nothing is allocated."""
    module = backbones.make(family, variant, image_size, dtype=jnp.float32, name=None, **options)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, module.in_channels), jnp.float32)
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), image)
    return {
        f"{collection}/{tree}/{name}": leaf
        for collection, variables in shapes.items()
        for name, leaf in trees.flatten(variables).items()
    }


def fit_positions(tensors, entries, expected, tree="backbone") -> Mapping[str, table.Tensor]:
    """The tensors with position embeddings that are resampled, when they are read, to the grid of the model."""
    if f"params/{tree}/token_embed" in expected:
        return tensors  # a text tower's positions are no grid
    ours = f"params/{tree}/pos_embed"
    theirs = next((name for name, entry in entries.items() if entry.ours == ours), None)
    if theirs is None or theirs not in tensors or ours not in expected:
        return tensors
    rows, width = expected[ours].shape
    lead, old = entries[theirs].lead, tensors[theirs]
    if len(old.shape) < 2 or old.shape[-1] != width or old.shape[-2] == rows:
        return tensors
    # A grid is a square; one row more is the class token's.
    prefix = rows - int(rows**0.5) ** 2
    grid = int((rows - prefix) ** 0.5)

    def read():
        value = old.read()
        fitted = positions.resample(value.reshape(value.shape[lead:]), grid, prefix)
        return fitted.reshape((1,) * lead + fitted.shape)

    return {**tensors, theirs: table.Tensor((*old.shape[:-2], rows, width), old.dtype, read)}

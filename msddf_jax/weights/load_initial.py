"""The weights that an experiment starts from: `config.init`."""

import inspect

import jax
import jax.numpy as jnp
from tqdm import tqdm

from msddf_jax import trees
from msddf_jax.models import backbones
from msddf_jax.weights import files, hub, identify, positions, table

POSITIONS = "params/backbone/pos_embed"


def locate(init):
    """The file of `config.init`, fetched where it has to be. Raises FileNotFoundError: see `hub.locate`."""
    return hub.locate(init.path, init.get("revision"))


def describe_backbone(model):
    """(family, variant, image_size, options) of a detector's `config.model`."""
    options = model.get("options") or {}
    options = options.to_dict() if hasattr(options, "to_dict") else dict(options)
    return model.get("family", "clip"), model.variant, model.image_size, options


def load(config):
    """The backbone's variables in the file of `config.init`, checked against the model before they are read.

    config.init: path (`hub.locate`), and where wanted revision (commit of the hub), format (`identify.known_formats`)
    and skip (regexes of their names that may be there and are not wanted).

    Returns:
      {our flat name: float32 array}, names "params/backbone/..." and "batch_stats/backbone/...". Position embeddings
      are resampled to the model's grid.

    Raises:
      FileNotFoundError: no such file. ValueError: a file that is not recognised, of another family or variant, with
      other settings than the model's, or with tensors that do not fit, each named.
    """
    init, path = config.init, locate(config.init)
    family, variant, image_size, options = describe_backbone(config.model)
    tensors = files.open_tensors(path)
    if identify.is_own(tensors):
        entries, skip = (
            identify.own_table([n for n in tensors if n.split("/")[1] == "backbone"]),
            (r"\w+/(?!backbone/).*",),
        )
    else:
        found = identify.identify(tensors, path, stated=identify.read_configs(path), wanted=init.get("format"))
        check_settings(found, family, variant, options, path)
        entries, skip = identify.backbone_only(found)
    expected = backbone_shapes(family, variant, image_size, options)
    tensors = fit_positions(tensors, entries, expected)
    table.check(tensors, entries, expected, path, (*skip, *init.get("skip", ())))
    out = table.to_ours(tensors, entries)
    count = sum(value.size for name, value in out.items() if name.startswith("params/"))
    tqdm.write(f"backbone {family} {variant} from {path}: {count:,} parameters, sha-256 {hub.sha256(path)}")
    return out


def check_settings(found, family, variant, options, path):
    """Raise ValueError where a file's backbone is another one than the config's, or computes something else.

    Options that the config states win over those that the file leaves open (`Found.assumed`) and over pixel statistics.
    """
    if (found.family, found.variant) != (family, variant):
        raise ValueError(
            f"{path} is {found.family} {found.variant} ({found.format}); the config's backbone is {family} {variant}"
        )
    defaults = {k: p.default for k, p in inspect.signature(backbones.FAMILIES[family][1]).parameters.items()}
    as_tuple = lambda value: tuple(value) if isinstance(value, list | tuple) else value
    for name, theirs in found.options.items():
        ours = as_tuple(options.get(name, defaults[name]))
        free = name in options and (name in found.assumed or name.startswith("pixel_"))
        if ours != as_tuple(theirs) and not free:
            raise ValueError(
                f"{path} ({found.format}) was trained with {name}={theirs!r}; the config's backbone has {ours!r}. Set "
                f"config.model.options.{name}"
            )


def backbone_shapes(family, variant, image_size, options):
    """{our flat name: shape struct} of a backbone's variables; nothing is allocated."""
    module = backbones.make(family, variant, image_size, dtype=jnp.float32, name=None, **options)
    image = jax.ShapeDtypeStruct((1, image_size, image_size, 3), jnp.float32)
    shapes = jax.eval_shape(lambda x: module.init(jax.random.key(0), x), image)
    return {
        f"{collection}/backbone/{name}": leaf
        for collection, tree in shapes.items()
        for name, leaf in trees.flatten(tree).items()
    }


def fit_positions(tensors, entries, expected):
    """The tensors with position embeddings that are resampled, when they are read, to the grid of the model."""
    theirs = next((name for name, entry in entries.items() if entry.ours == POSITIONS), None)
    if theirs is None or theirs not in tensors or POSITIONS not in expected:
        return tensors
    rows, width = expected[POSITIONS].shape
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

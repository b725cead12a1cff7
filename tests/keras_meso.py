"""Files of MesoNet's Keras layout, drawn."""

import h5py
import numpy as np

# The layers of each kind, by their kernels [height, width, in, out]; norms by their channels.
CONVS = {
    "meso4": ((3, 3, 3, 8), (5, 5, 8, 8), (5, 5, 8, 16), (5, 5, 16, 16)),
    "meso_inception4": (
        *((1, 1, 3, 1), (1, 1, 3, 4), (3, 3, 4, 4), (1, 1, 3, 4), (3, 3, 4, 4), (1, 1, 3, 2), (3, 3, 2, 2)),
        *((1, 1, 11, 2), (1, 1, 11, 4), (3, 3, 4, 4), (1, 1, 11, 4), (3, 3, 4, 4), (1, 1, 11, 2), (3, 3, 2, 2)),
        *((5, 5, 12, 16), (5, 5, 16, 16)),
    ),
}
NORMS = {"meso4": (8, 8, 16, 16), "meso_inception4": (11, 12, 16, 16)}
NAMES = {
    "conv2d": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
    "dense": ("kernel", "bias"),
}


def drawn(variant, seed=0):
    """{kind: [arrays of each layer]} of a network that keeps signals' size."""
    rng = np.random.default_rng(seed)
    draw = lambda shape: rng.normal(0, (2 / np.prod(shape[:-1])) ** 0.5, shape).astype(np.float32)
    around = lambda width, centre: rng.normal(centre, 0.1, width).astype(np.float32)
    return {
        "conv2d": [[draw(shape), around(shape[-1], 0)] for shape in CONVS[variant]],
        "batch_normalization": [[around(n, 1), around(n, 0), around(n, 0), around(n, 1)] for n in NORMS[variant]],
        "dense": [[draw((1024, 16)), around(16, 0)], [draw((16, 1)), around(1, 0)]],
    }


def write(path, layers, first=1, without=(), more=()):
    """An .h5 file as Keras 2 saves weights; `first`: number of the first layer of each kind, 0 as TensorFlow 2 has."""
    with h5py.File(path, "w") as file:
        names = []
        for kind, arrays in layers.items():
            for number, values in enumerate(arrays, first):
                layer = f"{kind}_{number}" if number else kind
                if layer not in without:
                    names.append(layer)
                    _write_layer(file, layer, dict(zip(NAMES[kind], values, strict=True)))
        for layer in more:
            names.append(layer)
            _write_layer(file, layer, {"kernel": np.zeros((1, 1, 16, 16), np.float32)})
        names.append("flatten_1")
        file.create_group("flatten_1").attrs["weight_names"] = []
        file.attrs["layer_names"] = [name.encode() for name in names]
    return path


def _write_layer(file, layer, weights):
    group = file.create_group(layer)
    for name, value in weights.items():
        group.create_dataset(f"{layer}/{name}:0", data=value)
    group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in weights]

"""Names of Meso-4 and MesoInception-4 in the files that others publish, and what those files leave open.

Names and shapes are the same in files that want other pixels and whose high output means the other class. So a format
says both, and only the published files in `FILES` are known by their digests; any other has to be named with #format.
"""

from msddf_jax.models import meso
from msddf_jax.weights.table import Entry, batch_norm, conv, linear

KERAS, KERAS_FFPP = "meso/keras", "meso/keras_ffpp"
TORCH, TORCH_FAKE_FIRST = "meso/pytorch", "meso/pytorch_fake_first"
_ZERO_ONE = "RGB in [0, 1]"
_HALF = "RGB in [-1, 1]"
# What tells formats of the same names and shapes apart.
ABOUT = {
    KERAS: f"MesoNet's own Keras code: {_ZERO_ONE}, a high output means real",
    KERAS_FFPP: f"the layout of FaceForensics++'s benchmark: {_HALF}, a high output means fake",
    TORCH: f"the PyTorch port: {_HALF}, outputs (real, fake)",
    TORCH_FAKE_FIRST: f"the PyTorch port: {_HALF}, outputs (fake, real), as folders sorted by name give them",
}
# Published file -> (SHA-256, format). The first four: DariusAf/MesoNet, weights/, where example.py has the pixels and
# test_images/ the classes. Of the others the pixels are those of their repositories' transforms, and the class is that
# in which 201 real and 423 fake test crops of FaceForensics++ have an AUC above one half.
FILES = {
    "Meso4_DF.h5": ("036ed30d04ffd9c7506f825b97c86aa64915f5818931da96817b169aad790af5", KERAS),
    "Meso4_F2F.h5": ("bcfda015d217b9f8d6557693edbdf9f4e79cfd22672541968dd0e2954462b5d7", KERAS),
    "MesoInception_DF.h5": ("234586d40058e76ef8b6f27ca4b63c06e31c2a5a69c0d8ba6f30b1468ab7bafa", KERAS),
    "MesoInception_F2F.h5": ("d4533ac8a3197dc35c47405d23d99e888c1d0135e267e03540c7451feaccff3f", KERAS),
    # sirmammingtonham/deep-fake-detection, classification/weights/
    "MesoInception4_FFpp_c23_all.h5": ("8a3f3d796c35a9bc9497a75cc4f514bf1a93b54ef00048cd6d66d0c844846323", KERAS_FFPP),
    # mudouble/FaceForensics-Detection_Website, faceforensics++_models/Mesonet/
    "mesoinception.pth": ("339f415f8d8b3d3ad306d7ffd88ffb57ea362c1bb925ca272358df7f6dcc8b9e", TORCH_FAKE_FIRST),
}
_BACKBONE = "params/backbone"


def known_format(digest) -> str | None:
    """The format of a published file by its SHA-256, None for any other file."""
    return dict(FILES.values()).get(digest)


def port_table(variant, prefix="", head=None, fake_first=False) -> dict[str, Entry]:
    """Names of the PyTorch port, which DeepfakeBench has behind a prefix (their spelling of "Incption").

    Args:
      variant: of `models.meso.VARIANTS`. prefix: in front of their names. head: our name of `fc2`, None without.
      fake_first: their first output is the fake.
    """
    inception, convs = meso.VARIANTS[variant]
    pointwise = lambda theirs, ours: {f"{theirs}.weight": Entry(f"{ours}/kernel", "conv_to_linear")}
    out = {}
    for number in range(1, len(inception) + 1):
        theirs, ours = f"{prefix}Incption{number}_", f"{_BACKBONE}/inception_{number}"
        out |= pointwise(f"{theirs}conv1", f"{ours}/branch_1")
        for branch in (2, 3, 4):
            out |= pointwise(f"{theirs}conv{branch}_1", f"{ours}/branch_{branch}_reduce")
            out |= conv(f"{theirs}conv{branch}_2", f"{ours}/branch_{branch}", bias=False)
        out |= batch_norm(f"{theirs}bn", f"backbone/inception_{number}/norm")
    for number, (_, _, norm, _) in enumerate(convs, 1):
        out |= conv(f"{prefix}conv{number}", f"{_BACKBONE}/conv_{number}", bias=False)
        out |= batch_norm(f"{prefix}bn{norm}", f"backbone/norm_{norm}")
    out |= linear(f"{prefix}fc1", f"{_BACKBONE}/fc_1")
    if head and fake_first:
        out[f"{prefix}fc2.weight"] = Entry(f"{head}/kernel", "linear_reversed")
        out[f"{prefix}fc2.bias"] = Entry(f"{head}/bias", "reversed")
    elif head:
        out |= linear(f"{prefix}fc2", head)
    return out


def port_shapes(variant, prefix="") -> dict[str, tuple]:
    """Telling shapes of the PyTorch port."""
    inception, convs = meso.VARIANTS[variant]
    width, kernel, _, _ = convs[0]
    before = sum(inception[-1]) if inception else 3
    # The published side, 256: 8 x 8 positions of 16 channels.
    return {f"{prefix}conv1.weight": (width, before, kernel, kernel), f"{prefix}fc1.weight": (meso.FEATURES, 1024)}


def keras_table(variant, head, high) -> dict[str, Entry]:
    """Names of the authors' Keras code as `keras_file` gives them: layers of a kind by the order they were made in.

    Args:
      variant: of `models.meso.VARIANTS`. head: our name of the last layer, whose one output becomes the logit of its
        class, beside a logit of 0 of the other: the softmax of the two is its sigmoid.
      high: what a high output means, "real" or "fake".
    """
    inception, convs = meso.VARIANTS[variant]
    out, made = {}, {"conv2d": 0, "batch_normalization": 0}

    def name(kind):
        made[kind] += 1
        return f"{kind}_{made[kind]}"

    def layer(theirs, ours, lead=0):
        # Kernels lie there as here: [in, out], and [height, width, in, out], of 1 x 1 where ours is linear.
        return {f"{theirs}/kernel": Entry(f"{ours}/kernel", lead=lead), f"{theirs}/bias": Entry(f"{ours}/bias")}

    def norm(ours):
        theirs = name("batch_normalization")
        places = {"gamma": "params/{}/scale", "beta": "params/{}/bias"}
        places |= {"moving_mean": "batch_stats/{}/mean", "moving_variance": "batch_stats/{}/var"}
        return {f"{theirs}/{part}": Entry(place.format(ours)) for part, place in places.items()}

    for number in range(1, len(inception) + 1):
        ours = f"{_BACKBONE}/inception_{number}"
        out |= layer(name("conv2d"), f"{ours}/branch_1", lead=2)
        for branch in (2, 3, 4):
            out |= layer(name("conv2d"), f"{ours}/branch_{branch}_reduce", lead=2)
            out |= layer(name("conv2d"), f"{ours}/branch_{branch}")
        out |= norm(f"backbone/inception_{number}/norm")
    for number in range(1, len(convs) + 1):
        out |= layer(name("conv2d"), f"{_BACKBONE}/conv_{number}") | norm(f"backbone/norm_{number}")
    out |= layer("dense_1", f"{_BACKBONE}/fc_1")
    kind = {"real": "first_logit", "fake": "second_logit"}[high]
    return out | {f"dense_2/{part}": Entry(f"{head}/{part}", kind) for part in ("kernel", "bias")}


def keras_shapes(variant) -> dict[str, tuple]:
    """Telling shapes of the authors' Keras code."""
    inception, convs = meso.VARIANTS[variant]
    width, kernel = (inception[0][0], 1) if inception else convs[0][:2]
    return {"conv2d_1/kernel": (kernel, kernel, 3, width), "dense_1/kernel": (1024, meso.FEATURES)}

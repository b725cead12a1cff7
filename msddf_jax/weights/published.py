"""Published files that the plain experiments start from, fetching them before a run, and detectors by a short name."""

import pathlib
from typing import NamedTuple

from msddf_jax.weights import hub, identify, load_initial
from msddf_jax.weights.names import meso_names

_EFFICIENTNET = "https://github.com/lukemelas/EfficientNet-PyTorch/releases/download/1.0"
_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-weights"
# The commit at which all four files have got their names.
_MESONET = "https://raw.githubusercontent.com/DariusAf/MesoNet/f3aa786e8f87e0894dcf36f6dba2f77a25293566/weights"


class Published(NamedTuple):
    """A published file.

    reference: of `hub.parse`, as the configs have it. what: whose weights, learned on what. licence: under which the
    publisher's code stands; data that the weights were learned on may say more. configs: those that start from it.
    """

    reference: str
    what: str
    licence: str
    configs: tuple[str, ...]


# Digests of the hub's files are those that it shows for these commits; the others are the digits in the files' names.
PUBLISHED = {
    "clip-b16": Published(
        "hf://openai/clip-vit-base-patch16@57c216476eefef5ab752ec549e440a49ae4ae5f3/pytorch_model.bin"
        "#sha256=ec89c7b09c749a60aae3c9cd910516f24b58214a7df060b48962d14c469cfbf0&format=clip/hf_clip",
        "OpenAI's CLIP ViT-B/16",
        "MIT (OpenAI's CLIP repository; the hub's page states none)",
        ("configs/detectors/clip.py",),
    ),
    # The digest is the folder in its address.
    "clip-b32": Published(
        "https://openaipublic.azureedge.net/clip/models/"
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af/ViT-B-32.pt"
        "#sha256=40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af&format=clip/open_clip",
        "OpenAI's CLIP ViT-B/32, both towers",
        "MIT (OpenAI's CLIP repository)",
        ("configs/detectors/sjedd.py",),
    ),
    "clip-l14": Published(
        "hf://openai/clip-vit-large-patch14@32bd64288804d66eefd0ccbe215aa642df71cc41/model.safetensors"
        "#sha256=a2bf730a0c7debf160f7a6b50b3aaf3703e7e88ac73de7a314903141db026dcb&format=clip/hf_clip",
        "OpenAI's CLIP ViT-L/14",
        "MIT (OpenAI's CLIP repository; the hub's page states none)",
        ("configs/msddf.py", "configs/detectors/effort.py", "configs/detectors/gend.py"),
    ),
    # What DeepfakeBench and FaceForensics++ start from.
    "xception": Published(
        "http://data.lip6.fr/cadene/pretrainedmodels/xception-b5690688.pth#sha256=b5690688&format=xception/cadene",
        "Xception, Keras' ImageNet weights ported to PyTorch (pretrained-models.pytorch)",
        "BSD-3-Clause",
        (
            "configs/detectors/xception.py",
            "configs/detectors/sladd.py",
            "configs/detectors/ffd.py",
            "configs/detectors/rfm.py",
        ),
    ),
    "efficientnet-b4": Published(
        f"{_EFFICIENTNET}/efficientnet-b4-6ed6700e.pth#sha256=6ed6700e&format=efficientnet/lukemelas",
        "EfficientNet-B4, TensorFlow's ImageNet weights ported to PyTorch (EfficientNet-PyTorch)",
        "Apache-2.0",
        ("configs/detectors/efficientnetb4.py",),
    ),
    "efficientnet-b4-advprop": Published(
        f"{_EFFICIENTNET}/adv-efficientnet-b4-44fb3a87.pth#sha256=44fb3a87&format=efficientnet/lukemelas",
        "EfficientNet-B4 trained with AdvProp on ImageNet, ported to PyTorch (EfficientNet-PyTorch)",
        "Apache-2.0",
        ("configs/detectors/sbi.py", "configs/detectors/fpg.py"),
    ),
    "efficientnet-lite0": Published(
        f"{_TIMM}/tf_efficientnet_lite0-0aa007d2.pth#sha256=0aa007d2&format=efficientnet/timm_tf_lite",
        "EfficientNet-Lite0, TensorFlow's ImageNet weights ported to PyTorch (timm's tf_efficientnet_lite0)",
        "Apache-2.0",
        ("configs/detectors/efficientnet_lite0.py",),
    ),
    "vgg19": Published(
        "https://download.pytorch.org/models/vgg19-dcbb9e9d.pth#sha256=dcbb9e9d&format=vgg/torchvision",
        "VGG-19, torchvision's ImageNet weights",
        "BSD-3-Clause",
        ("configs/detectors/capsule.py",),
    ),
    "hrnet-w48": Published(
        "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-hrnet/hrnetv2_w48-abd2e6ab.pth"
        "#sha256=abd2e6ab&format=hrnet/imagenet",
        "HRNet-W48, Microsoft's ImageNet weights (HRNet-Image-Classification, as timm holds them)",
        "MIT",
        ("configs/detectors/face_xray.py",),
    ),
    "resnet34": Published(
        "https://download.pytorch.org/models/resnet34-b627a593.pth#sha256=b627a593&format=resnet/torchvision",
        "ResNet-34, torchvision's ImageNet weights",
        "BSD-3-Clause",
        ("configs/detectors/resnet34.py", "configs/detectors/pcl_i2g.py"),
    ),
    "resnet50": Published(
        "https://download.pytorch.org/models/resnet50-0676ba61.pth#sha256=0676ba61&format=resnet/torchvision",
        "ResNet-50, torchvision's first ImageNet weights",
        "BSD-3-Clause",
        ("configs/detectors/fwa.py",),
    ),
}


def _mesonet(file):
    digest, kind = meso_names.FILES[file]
    return f"{_MESONET}/{file}#sha256={digest}&format={kind}"


# Short name of a whole detector -> its reference. MesoNet's own files (Apache-2.0).
DETECTORS = {
    "mesonet/meso4_df": _mesonet("Meso4_DF.h5"),
    "mesonet/meso4_f2f": _mesonet("Meso4_F2F.h5"),
    "mesonet/mesoinception_df": _mesonet("MesoInception_DF.h5"),
    "mesonet/mesoinception_f2f": _mesonet("MesoInception_F2F.h5"),
}


def resolve(text) -> str:
    """The reference of a short name in `DETECTORS`; any other text as it is.

    Raises:
      ValueError: a short name that is a path here as well.
    """
    if text in DETECTORS and pathlib.Path(text).exists():
        raise ValueError(f"{text} is a path here and the short name of {DETECTORS[text]}: write ./{text} for the path")
    return DETECTORS.get(text, text)


def fetch(names) -> list[str]:
    """Put published files where the configs look; what is there already is compared, not fetched again.

    Args:
      names: of `PUBLISHED`, or ("all",).

    Returns:
      lines that say of each file where it is, its digest, whose it is, its licence, and which configs start from it.

    Raises:
      ValueError: an unknown name; a file of another digest, or whose tensors are not of the format that it is to have.
      FileNotFoundError: what could not be fetched, all of it, and where to put it on a machine without a network.
    """
    names = list(PUBLISHED) if list(names) == ["all"] else list(dict.fromkeys(names))
    unknown = [name for name in names if name not in PUBLISHED]
    if unknown or not names:
        raise ValueError(f"no published file called {', '.join(unknown)!r}; there are {', '.join(PUBLISHED)}, or all")
    lines, missing = [], []
    for name in names:
        published, reference = PUBLISHED[name], hub.parse(PUBLISHED[name].reference)
        try:
            path, digest, tensors = load_initial.open_reference(reference)
        except FileNotFoundError as error:
            missing.append(f"{name}: {error}")
            continue
        stated = identify.read_configs(path)
        identify.identify(tensors, path, stated=stated, wanted=reference.format, digest=digest)
        lines += [f"{name}: {path}", f"  sha-256 {digest}", f"  {published.what}; {published.licence}"]
        lines.append(f"  for {', '.join(published.configs)}")
    if missing:
        raise FileNotFoundError("\n".join([*lines, *missing]))
    return lines

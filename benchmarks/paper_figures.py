"""Frame AUCs that others have published, as data: DeepfakeBench's fifteen detectors (reference "detectors", section 1).

`benchmarks.cross_dataset --against=published` sets them beside ours. They are the benchmark's own and no result of this
project: another level than its video AUC, and checkpoints that were chosen on the test sets.
"""

from typing import NamedTuple

SOURCE = 'DeepfakeBench, its table of frame AUCs (reference "detectors", section 1)'
LEVEL, METRIC = "frame", "frame_auc"
PROTOCOL = "FF++ c23; mean of the best three checkpoints on the test set"
NOTE = (
    f"Rows marked published: {SOURCE}, with the two decimals that percent leave of it, in no ranking. Every figure of "
    "this table is an AUC of single frames. What differs: theirs is the mean of the best three AUCs that the "
    "checkpoints of a training had on the test set itself, which is more than a checkpoint chosen beforehand has; ours "
    "is of one checkpoint, chosen on validation. Theirs are trained on FF++ c23, ours on what each config names. "
    "Theirs are of dlib's aligned crops, 256 px with a margin of 1.3, 32 frames a video; ours are of the crops and "
    "videos that were built. The Avg of theirs is that of the columns here."
)
# Heading there: name in configs/datasets.py. DF, F2F, FS and NT are the four manipulations of FF_c23, each for itself.
OURS = {
    "FF_c23": "ff++",
    "FF_c40": "ff++_c40",
    "CDFv1": "celebdf_v1",
    "CDFv2": "celebdf_v2",
    "DF1.0": "deeperforensics",
    "DFD": "dfd",
    "DFDC": "dfdc",
    "DFDCP": "dfdcp",
    "Fsh": "faceshifter",
    "UADFV": "uadfv",
}
WITHIN = ("FF_c23", "FF_c40", "DF", "F2F", "FS", "NT")
CROSS = ("CDFv1", "CDFv2", "DF1.0", "DFD", "DFDC", "DFDCP", "Fsh", "UADFV")
# Figures of WITHIN, their Avg, those of CROSS, their Avg.
_TABLE = """
Meso4         Meso      .6077 .5920 .6771 .6170 .5946 .5701 .6097  .7358 .6091 .9113 .5481 .5560 .5994 .5660 .7150 .6551
MesoIncep     Meso      .7583 .7278 .8542 .8087 .7421 .6517 .7571  .7366 .6966 .9233 .6069 .6226 .7561 .6438 .9049 .7364
CNN-Aug       ResNet34  .8493 .7846 .9048 .8788 .9026 .7313 .8419  .7420 .7027 .7993 .6464 .6361 .6170 .5985 .8739 .7020
Xception      Xception  .9637 .8261 .9799 .9785 .9833 .9385 .9450  .7794 .7365 .8341 .8163 .7077 .7374 .6249 .9379 .7718
EfficientB4   EffNet    .9567 .8150 .9757 .9758 .9797 .9308 .9389  .7909 .7487 .8330 .8148 .6955 .7283 .6162 .9472 .7718
Capsule       VGG19     .8421 .7040 .8669 .8634 .8734 .7804 .8217  .7909 .7472 .9107 .6841 .6465 .6568 .6465 .9078 .7488
FWA           Xception  .8765 .7357 .9210 .9000 .8843 .8120 .8549  .7897 .6680 .9334 .7403 .6132 .6375 .5551 .8539 .7239
Face_X-ray    HRNet     .9592 .7925 .9794 .9872 .9871 .9290 .9391  .7093 .6786 .5531 .7655 .6326 .6942 .6553 .8989 .6985
FFD           Xception  .9624 .8237 .9803 .9784 .9853 .9306 .9434  .7840 .7435 .8609 .8024 .7029 .7426 .6056 .9450 .7733
CORE          Xception  .9638 .8194 .9787 .9803 .9823 .9339 .9431  .7798 .7428 .8475 .8018 .7049 .7341 .6032 .9412 .7694
Recce         designed  .9621 .8190 .9797 .9779 .9785 .9357 .9422  .7677 .7319 .7985 .8119 .7133 .7419 .6095 .9446 .7649
UCF           Xception  .9705 .8399 .9883 .9840 .9896 .9441 .9527  .7793 .7527 .8241 .8074 .7191 .7594 .6462 .9528 .7801
F3Net         Xception  .9635 .8271 .9793 .9796 .9844 .9354 .9449  .7769 .7352 .8431 .7975 .7021 .7354 .5914 .9347 .7645
SPSL          Xception  .9610 .8174 .9781 .9754 .9829 .9299 .9408  .8150 .7650 .8767 .8122 .7040 .7408 .6437 .9424 .7875
SRM           Xception  .9576 .8114 .9733 .9696 .9740 .9295 .9359  .7926 .7552 .8638 .8120 .6995 .7408 .6014 .9427 .7760
"""


class Figure(NamedTuple):
    """detector, backbone: as named there. test_set: there; ours: its name in configs/datasets.py, None where it has
    none. value: in [0, 1]. level, protocol, source: text, what the value is."""

    detector: str
    backbone: str
    test_set: str
    ours: str | None
    value: float
    level: str = LEVEL
    protocol: str = PROTOCOL
    source: str = SOURCE


def figures() -> list[Figure]:
    """Every figure but the means, by detector in the order of the source."""
    found = []
    for name, backbone, numbers in _rows():
        values = numbers[: len(WITHIN)] + numbers[len(WITHIN) + 1 : -1]
        for test_set, value in zip((*WITHIN, *CROSS), values, strict=True):
            found.append(Figure(name, backbone, test_set, OURS.get(test_set), value))
    return found


def averages() -> dict[str, tuple[float, float]]:
    """{detector: (Avg over WITHIN, Avg over CROSS)} as published."""
    return {name: (numbers[len(WITHIN)], numbers[-1]) for name, _, numbers in _rows()}


def _rows():
    for line in _TABLE.strip().splitlines():
        name, backbone, *numbers = line.split()
        yield name.replace("_", " "), backbone, [float(number) for number in numbers]

"""The embedded data set as tests have it: written, prepared and built."""

from data_prep import build, prepare
from data_prep.toy import generate


def write_toy(root, *, identities, frames, video_size, size, workers=1):
    """(videos, built data sets) below `root`: all four manipulations, crops of `size` px, landmarks as drawn."""
    generate.generate(
        root / "videos", num_identities=identities, num_frames=frames, size=video_size, seed=0, workers=workers
    )
    methods = "ToySwap,ToyReenact,ToyNeural,ToyTexture"
    arguments = f"--layout=faceforensics --methods={methods} --landmarks=sidecar --num_frames={frames} --size={size}"
    assert prepare.main(["--root", str(root / "videos"), f"--workers={workers}", *arguments.split()]) == 0
    build.build("faceforensics", "toy", root / "videos", root / "tfds")
    return root / "videos", root / "tfds"

"""How near the train step's H.264 (msddf_jax/synth/codec.py) is to x264 at the same QP, on crops of consecutive frames.

    python -m benchmarks.codec --root=demo/toy [--clips=24] [--qps=18,23,28,32,36,40,45]

`--root` is a data set in FF++'s layout that `data_prep.prepare` went through (launch/demo.sh writes one); clips are
taken evenly from its originals and its manipulations. x264 runs as the project's tests of recompression have it (preset
medium), but at a constant QP, the same for every kind of frame. "I" codes the first frame of each clip alone; "P" codes
the clip with P frames and looks at these, the stand-in, which knows no other frame, at each of them alone.

Distances are mean absolute differences in grey levels of RGB after decoding, which includes 4:2:0 and rounding. "x264
v. x264" is preset superfast's distance from medium at the same QP: two right encoders choose differently, too. Spectra
are the power of luma (Hann window) in bands of radial frequency, in decibels; a distance is the mean absolute
difference over bands. The second table has the signed difference by band, band edges as shares of half the sampling
rate. Where the data set is there as c40 too, a third one has the crops of c23, as the train step recodes them
(`recode`), against the same crops of c40: which QP is like CRF 40, decoding and alignment included.
"""

import argparse
import io
import pathlib
import re
import sys

import av
import jax
import numpy as np
import PIL.Image

from benchmarks.timing import about
from msddf_jax import paths
from msddf_jax.evaluators.recompress import check_x264
from msddf_jax.synth import codec, recode

BANDS = 8
# One QP for all kinds of frames.
SAME_QP = "ipratio=1:pbratio=1"
PRESETS = {"medium": {}, "superfast": {"preset": "superfast"}}


def load_clips(root, count, compression="c23"):
    """uint8 RGB [N, T, H, W, 3]: the first frames of `count` prepared clips, evenly from all, as many as all have.

    Raises:
      SystemExit: there are no prepared crops.
    """
    pattern = f"*_sequences/*/{compression}/frames/*"
    folders = sorted(folder for folder in pathlib.Path(root).glob(pattern) if folder.is_dir())
    if not folders:
        sys.exit(f"no crops under {root} ({pattern}): run data_prep.prepare on it first")
    chosen = [folders[i] for i in np.unique(np.linspace(0, len(folders) - 1, count).round().astype(int))]
    files = [sorted(folder.glob("*.png")) for folder in chosen]
    length = min(len(found) for found in files)
    read = lambda file: np.asarray(PIL.Image.open(file).convert("RGB"))
    return np.stack([[read(file) for file in found[:length]] for found in files])


def encode(frames, qp, preset="medium"):
    """x264 at a constant QP and back: uint8 RGB [T, H, W, 3], an I frame and P frames; and x264's version."""
    buffer = io.BytesIO()
    options = {"qp": str(qp), "threads": "1", "x264-params": f"{SAME_QP}:bframes=0:keyint=250", **PRESETS[preset]}
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")))
        container.mux(stream.encode())
    version = re.search(rb"x264 - core (\d+)", buffer.getvalue())
    buffer.seek(0)
    with av.open(buffer) as container:
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return np.stack(decoded), version[1].decode() if version else "unknown"


def stand_in(images, qp):
    """The train step's H.264 of uint8 [N, H, W, 3], float in grey levels."""
    return 255.0 * np.asarray(codec.h264(images.astype(np.float32) / 255.0, qp))


def spectrum(images):
    """Decibels [BANDS] of luma by radial frequency, mean over images [N, H, W, 3]."""
    luma = images.astype(float) @ [0.299, 0.587, 0.114]
    luma -= luma.mean((1, 2), keepdims=True)
    height, width = luma.shape[1:]
    power = np.abs(np.fft.fft2(luma * np.hanning(height)[:, None] * np.hanning(width))) ** 2
    radius = 2.0 * np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width))
    inside = lambda i: (radius >= i / BANDS) & (radius < (i + 1) / BANDS)
    return np.array([np.mean(10.0 * np.log10(power[:, inside(i)].mean(1))) for i in range(BANDS)])


def compare(clips, qp):
    """({column: number}, signed differences of spectra [2, BANDS]: stand-in and source, less x264) of one QP."""
    gap = lambda a, b: float(np.abs(a.astype(float) - b).mean())
    first = clips[:, 0]
    theirs = np.concatenate([encode(clip[:1], qp)[0] for clip in clips])
    fast = np.concatenate([encode(clip[:1], qp, "superfast")[0] for clip in clips])
    ours = stand_in(first, qp)
    later = clips[:, 1:].reshape(-1, *clips.shape[2:])
    later_theirs = np.concatenate([encode(clip, qp)[0][1:] for clip in clips])
    # Every third is enough: they are alike.
    later, later_theirs = later[::3], later_theirs[::3]
    later_ours = stand_in(later, qp)
    shift = np.stack([spectrum(ours), spectrum(first)]) - spectrum(theirs)
    later_shift = np.stack([spectrum(later_ours), spectrum(later)]) - spectrum(later_theirs)
    row = {
        "I: source v. x264": gap(first, theirs),
        "stand-in v. x264": gap(ours, theirs),
        "ratio": gap(ours, theirs) / gap(first, theirs),
        "x264 v. x264": gap(fast, theirs),
        "source v. stand-in": gap(first, ours),
        "spectrum, source": np.abs(shift[1]).mean(),
        "spectrum, stand-in": np.abs(shift[0]).mean(),
        "P: source v. x264": gap(later, later_theirs),
        "stand-in v. P": gap(later_ours, later_theirs),
        "spectrum, source v. P": np.abs(later_shift[1]).mean(),
        "spectrum, stand-in v. P": np.abs(later_shift[0]).mean(),
    }
    return row, shift


def compare_crops(clips, coded, qps):
    """Prints the third table: clips of c23, recoded at each QP, against `coded`, the same clips of c40."""
    images, theirs = (part[:, ::3].reshape(-1, *part.shape[2:]) for part in (clips, coded))
    print("\n| crops v. those of c40 | mean absolute difference | spectrum |\n|---|---|---|")
    x = images.astype(np.float32) / 255.0
    run = lambda qp: recode.recode(jax.random.key(0), x, h264_prob=1.0, h264_qp=(qp, qp))
    made = {"c23": images, **{f"QP {qp}": 255.0 * np.asarray(run(qp)) for qp in qps}}
    for name, ours in made.items():
        off = np.abs(spectrum(ours) - spectrum(theirs)).mean()
        print(f"| {name} | {np.abs(ours.astype(float) - theirs).mean():.2f} | {off:.2f} |")


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=paths.expand, required=True, help="prepared data set in FF++'s layout")
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--qps", default="18,23,28,32,36,40,45", help="comma separated, 0 to 51")
    args = parser.parse_args()
    qps = [int(qp) for qp in args.qps.split(",")]
    low, high = codec.QP_RANGE
    if not all(low <= qp <= high for qp in qps):
        sys.exit(f"--qps has {qps}, allowed: {low} to {high}")
    check_x264()
    clips = load_clips(args.root, args.clips)
    version = encode(clips[0], 30)[1]
    print(f"{len(clips)} clips of {clips.shape[1]} crops, {clips.shape[2]} x {clips.shape[3]}")
    print(f"PyAV {av.__version__}, libavcodec {av.library_versions['libavcodec']}, x264 core {version}, {about()}\n")
    shifts = {}
    for qp in qps:
        row, shifts[qp] = compare(clips, qp)
        if qp == qps[0]:
            print(f"| QP | {' | '.join(row)} |\n|{'---|' * (len(row) + 1)}")
        print(f"| {qp} | {' | '.join(f'{value:.2f}' for value in row.values())} |", flush=True)
    edges = [f"{i / BANDS:.2f}" for i in range(1, BANDS + 1)]
    print(f"\n| dB from x264's, below | {' | '.join(edges)} |\n|{'---|' * (BANDS + 1)}")
    for qp, shift in shifts.items():
        for name, values in zip(("stand-in", "source"), shift, strict=True):
            print(f"| QP {qp}, {name} | {' | '.join(f'{value:+.1f}' for value in values)} |")
    if any(pathlib.Path(args.root).glob("*_sequences/*/c40/frames/*")):
        compare_crops(clips, load_clips(args.root, args.clips, "c40"), qps)


if __name__ == "__main__":
    main()

"""Odd files beside their plain twins: is each scored as the twin is, or refused by name?

    python -m benchmarks.odd_files --workdir demo/workdir --videos demo/toy/original_sequences --out odd [--sources=12]

From each of some videos the same frames are written plainly (FFV1 in Matroska; PNG) and in the forms that people have:
containers, lossless codecs, rotations, pixel aspects, rates, tags, cuts, fragments; images by mode, depth and
orientation. `predict` scores all of them. A file is "same" where its score differs from the twin's by at most 0.005, or
0.04 where pixels were re-sampled (`tolerance`); "refused" with a code; "said" where it differs and the line has a
warning; and "silent" where it differs without a word, which is a fault: the exit code is then 1. Lossy codecs are
listed apart, with how far they move a score.
Needs the face models (docs of `msddf_jax.faces.fetch`). Prints a table by kind, and writes OUT/odd_files.csv.
"""

import argparse
import collections
import contextlib
import csv
import fractions
import io
import pathlib
import struct
import sys
from typing import NamedTuple

import av
import numpy as np
import PIL.Image

from msddf_jax import inference, paths, predict
from msddf_jax.faces import video
from msddf_jax.opencv import cv2

SAME, RESAMPLED = 0.005, 0.04
FRAMES = 8


class Odd(NamedTuple):
    """An odd file: its path, its plain twin's, its kind, how far the scores may differ (None: lossy, only listed)."""

    path: pathlib.Path
    twin: pathlib.Path
    kind: str
    tolerance: float | None


# (container, codec, pixel format): all of them keep every bit of RGB.
LOSSLESS = (
    ("mkv", "ffv1", "bgr0"), ("avi", "ffv1", "bgr0"), ("mkv", "libx264rgb", "rgb24"), ("mp4", "libx264rgb", "rgb24"),
    ("mov", "libx264rgb", "rgb24"), ("avi", "huffyuv", "rgb24"), ("mov", "png", "rgb24"), ("mov", "qtrle", "rgb24"),
    ("avi", "utvideo", "gbrp"), ("webm", "libvpx-vp9", "gbrp"), ("mp4", "libx265", "gbrp"),
    ("m4v", "libx264rgb", "rgb24"),
)  # fmt: skip
LOSSY = (("mp4", "libx264", "yuv420p"), ("mpg", "mpeg1video", "yuv420p"), ("avi", "mpeg4", "yuv420p"),
         ("webm", "libvpx-vp9", "yuv420p"), ("mts", "libx264", "yuv420p"))  # fmt: skip
_LOSSLESS_OPTIONS = {
    "libx264rgb": {"qp": "0", "preset": "ultrafast"},
    "libx265": {"x265-params": "lossless=1:log-level=none"},
    "libvpx-vp9": {"lossless": "1", "cpu-used": "8"},
}


def write(
    path,
    frames,
    codec="libx264rgb",
    form="rgb24",
    *,
    rate=25,
    ratio=None,
    title=None,
    sound=False,
    keyframes=None,
    **options,
) -> pathlib.Path:
    """A video of uint8 RGB frames, by default without loss.

    Args:
      path: file to write. frames: uint8 [T, H, W, 3]. codec, form: of FFmpeg. rate: frames a second. ratio: width over
        height of a pixel. title: a tag. sound: whether a silent track comes first. keyframes: frames from one to the
        next. options: of the muxer.
    """
    settings = {"threads": "1", **(_LOSSLESS_OPTIONS.get(codec, {}) if form in ("rgb24", "gbrp") else {})}
    if keyframes:
        settings["g"] = str(keyframes)
    with av.open(str(path), "w", options=options) as container:
        audio = container.add_stream("aac", rate=16000) if sound else None
        stream = container.add_stream(codec, rate=rate, options=settings)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], form
        if ratio:
            stream.codec_context.sample_aspect_ratio = fractions.Fraction(*ratio)
        if title:
            container.metadata["title"] = title
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format=form)))
        container.mux(stream.encode())
        for number in range(8) if sound else ():
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts = 16000, 1024 * number
            container.mux(audio.encode(silence))
        if sound:
            container.mux(audio.encode())
    return path


def turn(path, turns) -> None:
    """Write a quarter turn, `turns` times, into the track header of an MP4 whose matrix says none."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    if bytes(data[start : start + 36]) != identity:
        raise ValueError(f"{path}: the first track is not the video's, or is turned already")
    a, b, c, d = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))[turns]
    data[start : start + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


def trim(source, target, count) -> None:
    """Copy an MP4 without its first `count` frames, which an edit list hides and the file keeps."""
    with av.open(str(source)) as read, av.open(str(target), "w", options={"avoid_negative_ts": "disabled"}) as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in read.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - count * packet.duration, packet.dts - count * packet.duration
                packet.stream = stream
                written.mux(packet)


def make_videos(frames, folder) -> list[Odd]:
    """Odd videos of uint8 RGB frames [T, H, W, 3], with their twins, in a folder."""
    plain = write(folder / "plain.mkv", frames, "ffv1", "bgr0")
    found = []
    add = lambda path, kind, tolerance=SAME, twin=plain: found.append(Odd(path, twin, kind, tolerance))
    for suffix, codec, form in LOSSLESS:
        add(write(folder / f"{codec}.{suffix}", frames, codec, form), "container and codec")
    for suffix, codec, form in LOSSY:
        add(write(folder / f"lossy_{codec}.{suffix}", frames, codec, form), "lossy codec", None)
    for turns in (1, 2, 3):
        path = write(folder / f"turned_{turns}.mp4", np.rot90(frames, turns, (1, 2)))
        turn(path, turns)
        add(path, "rotation")
    height, width = frames.shape[1:3]
    for across, down in ((64, 45), (8, 9), (16, 11)):
        size = (
            (round(width * down / across / 2) * 2, height) if across > down else (width, round(height * across / down))
        )
        squeezed = np.stack([cv2.resize(f, size, interpolation=cv2.INTER_AREA) for f in frames])
        # What a player shows of it, by another library.
        shown = np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_CUBIC) for f in squeezed])
        twin = write(folder / f"plain_{across}_{down}.mkv", shown, "ffv1", "bgr0")
        odd = write(folder / f"pixels_{across}_{down}.mp4", squeezed, ratio=(across, down))
        add(odd, "pixel aspect", RESAMPLED, twin)
    for rate in (5, 60, fractions.Fraction(30000, 1001)):
        add(write(folder / f"rate_{float(rate):.0f}.mp4", frames, rate=rate), "frame rate")
    for name, title in (("emoji", "\U0001f600 " * 30), ("long", "a" * 5000)):
        add(write(folder / f"title_{name}.mp4", frames, title=title), "tags")
    latin = write(folder / "title_latin1.mp4", frames, title="caf_")
    latin.write_bytes(latin.read_bytes().replace(b"caf_", b"caf\xe9"))
    add(latin, "tags")
    for flags in ("frag_keyframe", "frag_keyframe+empty_moov", "faststart"):
        add(write(folder / f"{flags}.mp4", frames, keyframes=4, movflags=flags), "fragments and index")
    add(write(folder / "sound_first.mp4", frames, sound=True), "tracks")
    add(write(folder / "sound_first.mkv", frames, sound=True), "tracks")
    cut, rest = folder / "trimmed.mp4", write(folder / "plain_trimmed.mkv", frames[3:], "ffv1", "bgr0")
    trim(folder / "libx264rgb.mp4", cut, 3)
    add(cut, "cuts", twin=rest)
    half = folder / "cut_off.mp4"
    half.write_bytes((folder / "faststart.mp4").read_bytes()[: (folder / "faststart.mp4").stat().st_size * 6 // 10])
    add(half, "cuts", 0.0)
    return found


def make_images(image, folder) -> list[Odd]:
    """Odd images of one uint8 RGB image, with their twins, in a folder."""
    plain, grey = folder / "plain.png", folder / "plain_grey.png"
    picture = PIL.Image.fromarray(image)
    picture.save(plain)
    picture.convert("L").save(grey)
    levels = np.asarray(picture.convert("L"))
    found = []

    def add(name, made, kind, tolerance=SAME, twin=plain, **settings):
        made.save(folder / name, **settings)
        found.append(Odd(folder / name, twin, kind, tolerance))

    def add_cv2(name, values, kind, tolerance=SAME, twin=plain):
        values = values[..., ::-1] if values.ndim == 3 else values
        cv2.imwrite(str(folder / name), values)
        found.append(Odd(folder / name, twin, kind, tolerance))

    for name, settings in (("a.bmp", {}), ("a.tif", {}), ("lzw.tif", {"compression": "tiff_lzw"}),
                           ("a.webp", {"lossless": True})):  # fmt: skip
        add(name, picture, "image format", **settings)
    add("a.jpg", picture, "lossy image", None, quality=95)
    add("a.jfif", picture, "lossy image", None, quality=95, format="JPEG")
    add("a.avif", picture, "lossy image", None, quality=90)
    alpha = picture.copy()
    alpha.putalpha(255)
    add("alpha.png", alpha, "image mode")
    for mode in ("L", "LA"):
        add(f"{mode}.png", picture.convert(mode), "image mode", twin=grey)
    palette = picture.convert("P", palette=PIL.Image.Palette.ADAPTIVE, colors=256)
    palette.convert("RGB").save(folder / "plain_palette.png")
    add("palette.png", palette, "image mode", twin=folder / "plain_palette.png")
    add("palette.gif", palette, "image mode", twin=folder / "plain_palette.png")
    add_cv2("colour16.png", image.astype(np.uint16) * 257, "image depth")
    add_cv2("grey16.png", levels.astype(np.uint16) * 257, "image depth", twin=grey)
    add_cv2("grey16.tif", levels.astype(np.uint16) * 257, "image depth", twin=grey)
    add_cv2("float.tif", levels.astype(np.float32) / 255, "image depth", twin=grey)
    # These fill no range that says which number is white.
    add_cv2("grey12.png", levels.astype(np.uint16) * 16, "image depth", 0.0, twin=grey)
    add_cv2("colour12.png", image.astype(np.uint16) * 16, "image depth", 0.0)
    add_cv2("float255.tif", levels.astype(np.float32), "image depth", 0.0, twin=grey)
    add_cv2("int32.tif", levels.astype(np.int32), "image depth", 0.0, twin=grey)
    transposes = (0, PIL.Image.Transpose.FLIP_LEFT_RIGHT, PIL.Image.Transpose.ROTATE_180,
                  PIL.Image.Transpose.FLIP_TOP_BOTTOM, PIL.Image.Transpose.TRANSPOSE, PIL.Image.Transpose.ROTATE_90,
                  PIL.Image.Transpose.TRANSVERSE, PIL.Image.Transpose.ROTATE_270)  # fmt: skip
    for orientation in range(2, 9):
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        add(
            f"exif_{orientation}.png",
            picture.transpose(transposes[orientation - 1]),
            "orientation",
            exif=exif.tobytes(),
        )
    return found


def judge(odd, records) -> tuple[str, float | None]:
    """("same", "refused", "said", "silent" or "lossy", how far the score is from the twin's) of an odd file."""
    record, twin = records[odd.path], records[odd.twin]
    if "error" in twin:
        return "twin not scored", None
    if "error" in record:
        return "refused", None
    difference = abs(record["score"] - twin["score"])
    if odd.tolerance is None:
        return "lossy", difference
    if difference <= odd.tolerance:
        return "same", difference
    return ("said" if "warning" in record else "silent"), difference


def print_table(odds, records, out):
    """The table by kind as Markdown, and a line a file in OUT/odd_files.csv; returns the silently different."""
    by_kind, silent = collections.defaultdict(list), []
    with open(out / "odd_files.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("kind", "file", "twin", "verdict", "difference", "code", "warning"))
        for odd in odds:
            verdict, difference = judge(odd, records)
            record = records[odd.path]
            by_kind[odd.kind].append((verdict, difference))
            silent += [odd] if verdict in ("silent", "twin not scored") else []
            code = record.get("error", {}).get("code", "")
            names = [path.relative_to(out) for path in (odd.path, odd.twin)]
            writer.writerow((odd.kind, *names, verdict, difference, code, record.get("warning", "")))
    verdicts = ("same", "refused", "said", "silent", "lossy", "twin not scored")
    print(f"| kind | files | {' | '.join(verdicts)} | largest difference |\n|---|---|{'---|' * len(verdicts)}---|")
    for kind, rows in by_kind.items():
        counts = collections.Counter(verdict for verdict, _ in rows)
        largest = max((d for _, d in rows if d is not None), default=None)
        cells = [str(counts[verdict] or "") for verdict in verdicts]
        print(f"| {kind} | {len(rows)} | {' | '.join(cells)} | {'' if largest is None else f'{largest:.4f}'} |")
    print(f"| all | {len(odds)} |")
    return silent


def read_source(path, size=256) -> np.ndarray:
    """uint8 [FRAMES, size, size, 3]: the first frames of a video, enlarged, on a margin that a turn cannot hide."""
    frames = list(video.read_frames(path, list(range(FRAMES))).frames.values())
    large = [cv2.resize(frame, (size, size), interpolation=cv2.INTER_CUBIC) for frame in frames]
    return np.stack([np.pad(frame, ((0, 0), (32, 96), (0, 0)), mode="edge") for frame in large])


def main():
    """Make the files, score them and print the table. Exit code 1 where one is silently different."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", type=paths.expand, required=True, help="folder of a trained detector")
    parser.add_argument(
        "--videos", type=paths.expand, required=True, help="folder with the videos to start from, at any depth"
    )
    parser.add_argument("--out", type=paths.expand, default="odd", help="folder for the files and the table")
    parser.add_argument("--sources", type=int, default=10, help="how many videos")
    args = parser.parse_args()
    sources = sorted(pathlib.Path(args.videos).rglob("[!.]*.mp4"))
    if len(sources) < args.sources:
        sys.exit(f"{args.videos} has {len(sources)} .mp4 files, fewer than --sources={args.sources}")
    out, odds = pathlib.Path(args.out), []
    for number in np.linspace(0, len(sources) - 1, args.sources).astype(int):
        frames, folder = read_source(sources[number]), out / "files" / sources[number].stem
        folder.mkdir(parents=True, exist_ok=True)
        odds += make_videos(frames, folder) + make_images(frames[0], folder)
    files = sorted({path for odd in odds for path in (odd.path, odd.twin)})
    model = inference.load_for_inference(args.workdir)
    with contextlib.redirect_stdout(io.StringIO()):
        made = predict.predict_files(model, files, out / "predictions", num_frames=FRAMES, max_overlays=0)
    records = {pathlib.Path(record["file"]): record for record in made}
    silent = print_table(odds, records, out)
    for odd in silent:
        print(f"SILENTLY DIFFERENT: {odd.path} and {odd.twin}")
    sys.exit(1 if silent else 0)


if __name__ == "__main__":
    main()

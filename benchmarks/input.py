"""The input pipeline: decoded images a second beside a bare decode loop, decoders and formats, memory over epochs.

    python -m benchmarks.input [--formats=png] [--records=512] [--size=256] [--crops=FOLDER] [--runs=5] [--out=FOLDER]

Three tables, each side by side in one process, in turn, medians:
"decoders": images a second from encoded bytes in memory, by format and library.
"pipeline": images a second of `data.pipeline.eval_batches` (read from array_record, decode, collect in batches) beside
a loop that reads the same records on the same number of threads and decodes image and mask, and does nothing else;
and beside the same loop with each picture copied into a batch of its thread's, the least that any pipeline adds.
The shares are medians over the turns of the ratio within a turn. On a busy machine it takes many (`--runs=25`).
"memory": resident memory after each epoch of `data.pipeline.train_batches`.

Pictures are drawn with the spectrum and noise of crops of video frames, half of the records are fakes with a mask;
`--crops` takes PNG files below a folder instead. Stored sets are PNG, which `data.source` reads with OpenCV: for other
formats and decoders the benchmark puts another function in the place of its decoder. simplejpeg and PyTurboJPEG are
timed where they are installed (`pip install simplejpeg PyTurboJPEG`; the latter needs libturbojpeg).
"""

import argparse
import concurrent.futures
import contextlib
import functools
import gc
import io
import os
import pathlib
import tempfile
import threading
import time

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorflow_datasets.proto import tf_example_pb2

from benchmarks.timing import medians, report, turns
from data_prep import features, records
from msddf_jax import paths
from msddf_jax.data import pipeline
from msddf_jax.data import source as sources
from msddf_jax.opencv import cv2

FORMATS = {
    "png": (".png", []),
    "jpeg q95": (".jpg", [cv2.IMWRITE_JPEG_QUALITY, 95]),
    # 101 is lossless.
    "webp lossless": (".webp", [cv2.IMWRITE_WEBP_QUALITY, 101]),
}
FRAMES = 8
BATCH = 64


def decode_pillow(data, mode):
    """uint8 [H, W, 3] ("RGB") or [H, W] ("L")."""
    return np.asarray(PIL.Image.open(io.BytesIO(data)).convert(mode))


def decode_cv2(data, mode):
    """As `decode_pillow`."""
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB if mode == "RGB" else cv2.IMREAD_GRAYSCALE)


def jpeg_decoders():
    """{library: decode(data, mode) of colour JPEG} of those that are installed."""
    found = {}
    with contextlib.suppress(ImportError):
        import simplejpeg

        found["simplejpeg"] = lambda data, mode: simplejpeg.decode_jpeg(data, "RGB")
    # RuntimeError: the library that it wraps is not there.
    with contextlib.suppress(ImportError, RuntimeError):
        import turbojpeg

        jpeg = turbojpeg.TurboJPEG()
        found["PyTurboJPEG"] = lambda data, mode: jpeg.decode(data, pixel_format=turbojpeg.TJPF_RGB)
    return found


def draw_pictures(number, size):
    """Pictures with amplitude falling as 1 / f, soft colours and a little noise: uint8 [size, size, 3] each."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None])
    falling = 1 / np.maximum(frequency, 1 / size) ** 1.3
    pictures = []
    for _ in range(number):
        noise = np.fft.rfft2(rng.normal(size=(3, size, size))) * falling
        layers = np.fft.irfft2(noise, (size, size))
        layers = layers[:1] + 0.3 * layers[1:2] * np.array([1, 0.2, -1])[:, None, None]
        picture = 128 + 45 * layers / layers.std() + rng.normal(0, 1.5, layers.shape)
        pictures.append(np.clip(np.moveaxis(picture, 0, -1), 0, 255).astype(np.uint8))
    return pictures


def read_crops(folder, number):
    """Up to `number` PNG crops below a folder, evenly chosen; raises FileNotFoundError where there is none."""
    files = sorted(path for path in pathlib.Path(folder).rglob("[!.]*.png") if "masks" not in path.parts)
    if not files:
        raise FileNotFoundError(f"--crops {folder}: no PNG files below it")
    chosen = [files[i] for i in np.linspace(0, len(files) - 1, number).astype(int)]
    return [np.asarray(PIL.Image.open(path).convert("RGB")) for path in chosen]


def encode(picture, form):
    """Bytes of a picture in one of `FORMATS`."""
    extension, settings = FORMATS[form]
    return cv2.imencode(extension, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), settings)[1].tobytes()


def make_source(folder, encoded, size):
    """array_record shards as a build writes them, opened as `data.source` does.

    encoded: bytes of each frame's image. The videos have `FRAMES` frames, real and fake in turn.
    """
    mask = np.zeros(size, np.uint8)
    cv2.circle(mask, (size[1] // 2, size[0] // 2), size[0] // 3, 255, -1)
    mask = cv2.imencode(".png", mask)[1].tobytes()
    made = features.record_features()
    serializer = tfds.core.example_serializer.ExampleSerializer(made.get_serialized_info())
    count = len(encoded) // FRAMES
    ids = [f"{i // 2:03d}" if i % 2 == 0 else f"deepfakes/{i // 2:03d}_x" for i in range(count)]
    fake = np.arange(count) % 2 == 1
    folder.mkdir(parents=True)
    with records.ShardWriter(folder, 1 << 28) as shards:
        for i, image in enumerate(encoded[: count * FRAMES]):
            video = i // FRAMES
            example = {
                **{name: _placeholder(feature) for name, feature in made.items()},
                "image": image,
                "mask": mask,
                "has_mask": True,
                "label": int(fake[video]),
                "method": int(fake[video]),
                "video_id": ids[video],
                "frame_index": i % FRAMES,
            }
            shards.write(serializer.serialize_example(made.encode_example(example)))
    text = {name: np.array([""] * count) for name in ("group_id", "source_identity", "target_identity")}
    number = np.arange(count * FRAMES)
    return sources.Source(
        name="benchmark",
        readers=(ArrayRecordDataSource([str(path) for path in shards.paths]),),
        videos={
            **text,
            "video_id": np.array(ids),
            "label": np.where(fake, "fake", "real"),
            "method": np.where(fake, "deepfakes", "real"),
            "dataset": np.array(["faceforensics"] * count),
            "pair_id": np.array([f"{i // 2:03d}" if i % 2 else "" for i in range(count)]),
            "compression": np.array(["c23"] * count),
            "num_frames_video": np.full(count, FRAMES),
            "height": np.full(count, size[0]),
            "width": np.full(count, size[1]),
            "reader": np.zeros(count, np.int32),
        },
        video=(number // FRAMES).astype(np.int32),
        record=number,
        frame_index=(number % FRAMES).astype(np.int32),
        first=np.arange(count) * FRAMES,
        count=np.full(count, FRAMES),
    )


def _placeholder(feature):
    """A value that the feature takes, of fields that nothing here reads."""
    if isinstance(feature, tfds.features.Text):
        return ""
    if feature.shape:
        return np.zeros([n or 1 for n in feature.shape], feature.np_dtype)
    return feature.np_dtype(0) if not isinstance(feature, tfds.features.ClassLabel) else 0


def in_threads(function, number, threads):
    """Call function(i) for i < number, on so many threads, each with an equal share."""

    def share(thread):
        for i in range(thread, number, threads):
            function(i)

    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(share, range(threads)))


def bare_loop(source, decode, threads, collect=False):
    """Read every record and decode what training needs of it; collect: and copy it into batches, as `np.stack` does."""
    height, width = source.image_size
    own = threading.local()

    def one(i):
        feature = tf_example_pb2.Example.FromString(source.readers[0][i]).features.feature
        image, mask = decode(feature["image"].bytes_list.value[0], "RGB"), None
        if feature["label"].int64_list.value[0]:
            mask = decode(feature["mask"].bytes_list.value[0], "L")
        if not collect:
            return
        own.row = (getattr(own, "row", -1) + 1) % BATCH
        if own.row == 0:
            own.images = np.empty((BATCH, height, width, 3), np.uint8)
            own.masks = np.zeros((BATCH, height, width), np.uint8)
        own.images[own.row] = image
        if mask is not None:
            own.masks[own.row] = mask

    in_threads(one, len(source), threads)


def pipeline_pass(source, threads, batch_size=BATCH):
    """One pass of the evaluation batches."""
    for _ in pipeline.eval_batches(
        source, batch_size=batch_size, num_threads=threads, process_index=0, process_count=1
    ):
        pass


def with_cpu(function):
    """(the function, noting its CPU seconds, user and system of all threads; the list it notes them in)."""
    spent = []

    def noting():
        start = time.process_time()
        function()
        spent.append(time.process_time() - start)

    return noting, spent


@contextlib.contextmanager
def decoder_in_place(decode):
    """`data.source` with another decoder; None leaves its own."""
    own = sources._decode_png
    if decode is not None:
        sources._decode_png = lambda data, mode, where, height, width: decode(data, mode)
    try:
        yield
    finally:
        sources._decode_png = own


def compare_decoders(pictures, formats, threads, runs):
    """Rows: format, KiB an image, library, images a second on each number of threads."""
    rows = []
    for form in formats:
        encoded = [encode(picture, form) for picture in pictures]
        decoders = {"Pillow": decode_pillow, "OpenCV": decode_cv2, **(jpeg_decoders() if form == "jpeg q95" else {})}

        def one_pass(decode, n, encoded=encoded):
            in_threads(lambda i: decode(encoded[i], "RGB"), len(encoded), n)

        timed = {(lib, n): functools.partial(one_pass, d, n) for lib, d in decoders.items() for n in threads}
        seconds = medians(timed, runs=runs)
        size = f"{np.mean([len(data) for data in encoded]) / 1024:.0f}"
        rows += [[form, size, lib, *(f"{len(encoded) / seconds[lib, n]:.0f}" for n in threads)] for lib in decoders]
    return rows


def compare_pipeline(folder, pictures, formats, threads, runs):
    """Rows: format, decoder, threads, images a second of pipeline and both loops, shares in wall and CPU time.

    The rates are medians of their own, so that on a drifting machine their quotient is not quite the share.
    """
    rows = []
    cases = [("png", "OpenCV, data.source's own", None), ("png", "Pillow", decode_pillow)]
    cases += [("jpeg q95", "OpenCV", decode_cv2), ("webp lossless", "OpenCV", decode_cv2)]
    opened = {}
    for form, library, decode in (case for case in cases if case[0] in formats):
        if form not in opened:
            encoded = [encode(picture, form) for picture in pictures]
            opened[form] = make_source(folder / form.split()[0], encoded, pictures[0].shape[:2])
        source = opened[form]
        for n in threads:
            with decoder_in_place(decode):
                bare, bare_cpu = with_cpu(functools.partial(bare_loop, source, decode or decode_cv2, n))
                ours, ours_cpu = with_cpu(functools.partial(pipeline_pass, source, n))
                collecting = functools.partial(bare_loop, source, decode or decode_cv2, n, collect=True)
                seconds = turns({"ours": ours, "bare": bare, "collecting": collecting}, runs=runs)
            rate = {name: len(source) / np.median(values) for name, values in seconds.items()}
            # Of CPU time the least: what other programs add is never negative.
            ratios = [np.median(seconds["bare"] / seconds[name]) for name in ("ours", "collecting")]
            ratios.append(min(bare_cpu) / min(ours_cpu))
            rows.append([form, library, n, *(f"{rate[name]:.0f}" for name in ("ours", "bare", "collecting"))])
            rows[-1] += [f"{100 * ratio:.0f} %" for ratio in ratios]
    return rows


def resident_mib():
    """Resident memory of this process in MiB (Linux)."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure_memory(folder, pictures, epochs, threads):
    """[[epoch, MiB]] of training batches; epoch 0 is the first batch, with the reading threads at work."""
    encoded = [encode(picture, "png") for picture in pictures]
    source = make_source(folder / "memory", encoded, pictures[0].shape[:2])
    batches = pipeline.train_batches(source, batch_size=32, num_threads=threads, process_index=0, process_count=1)
    next(batches)
    series = [[0, resident_mib()]]
    # A row of an epoch is a real with its fake: all records, half of them real.
    for epoch in range(1, epochs + 1):
        for _ in range(len(source) // 32):
            next(batches)
        gc.collect()
        series.append([epoch, resident_mib()])
    batches.close()
    return [[epoch, f"{value:.1f}"] for epoch, value in series]


def main():
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=512)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--crops", type=paths.expand, help="folder of PNG crops to encode instead of drawn pictures")
    parser.add_argument("--formats", default=",".join(FORMATS), help="some of the default, with commas")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--out", type=paths.expand, help="folder for the tables as JSON")
    args = parser.parse_args()
    formats = args.formats.split(",")
    if set(formats) - set(FORMATS):
        parser.error(f"--formats {args.formats}: known are {', '.join(FORMATS)}")
    pictures = draw_pictures(args.records, args.size) if args.crops is None else read_crops(args.crops, args.records)
    cores = len(os.sched_getaffinity(0))
    threads = sorted({1, *(n for n in (2, 4, 8, 16, 32, 64) if n < cores), cores})
    load = f"{cores} cores, load {os.getloadavg()[0]:.1f}"
    out = lambda name: pathlib.Path(args.out) / f"input_{name}.json" if args.out else None
    rows = compare_decoders(pictures[:128], formats, threads, args.runs)
    header = ["format", "KiB", "library", *(f"images/s, {n} threads" for n in threads)]
    report(f"decoders, {pictures[0].shape[0]} px, {load}", header, rows, out("decoders"))
    with tempfile.TemporaryDirectory() as folder:
        rows = compare_pipeline(pathlib.Path(folder), pictures, formats, threads, args.runs)
        header = [
            "format",
            "decoder",
            "threads",
            "pipeline images/s",
            "bare loop",
            "collecting loop",
            "pipeline / bare",
            "collecting / bare",
            "CPU, bare / pipeline, least",
        ]
        report(f"pipeline beside a bare decode loop, {load}", header, rows, out("pipeline"))
        rows = measure_memory(pathlib.Path(folder), pictures, args.epochs, cores)
        report("resident memory over epochs of training batches", ["epoch", "MiB"], rows, out("memory"))


if __name__ == "__main__":
    main()

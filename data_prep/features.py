"""What a built record holds, and how the files of one prepared frame become one. Shared by every builder."""

import functools
import io
import pathlib
import re
import zlib

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds

from data_prep.layout import PreparedDataError
from msddf_jax.data import methods, schema
from msddf_jax.faces.image_file import png_damage
from msddf_jax.faces.landmarks import from_dlib_order
from msddf_jax.faces.scene import MAX_COORDINATE

# Where a value is absent. Each goes with a flag, or is documented with its feature.
NO_LANDMARKS = np.full((schema.NUM_LANDMARKS, 2), -1, np.float32)
NO_BBOX = np.full(4, -1, np.float32)
NO_MATRIX = np.zeros((2, 3), np.float32)
NO_ATTRIBUTES = np.full(len(schema.ATTRIBUTES), np.nan, np.float32)
_NPY_HEADER = re.compile(
    rb"\x93NUMPY(?:\x01\x00..|\x02\x00....)"
    rb"\{'descr': '([<>|](?:[iu][1248]|f[248]))', 'fortran_order': (True|False), 'shape': \(%d, 2\), \} *\n"
    % schema.NUM_LANDMARKS,
    re.DOTALL,
)


def record_features():
    """The features of a record, identical for every data set.

    Returns:
      tfds FeaturesDict. image: PNG [H, W, 3] uint8. mask: PNG [H, W, 1], 255 = manipulated, zeros where
      `has_mask` is false. has_mask: a mask exists (reals: true where the data set publishes masks).
      landmarks: [81, 2] float32, crop pixels, forehead left to right, -1 where `has_landmarks` is false.
      bbox: [4] x0 y0 x1 y1 in the original frame, -1 unknown. align_matrix: [2, 3] original to crop, zeros
      unknown. video_id: unique within data set and compression. pair_id: video_id of the real partner, ""
      on reals. group_id: videos that must share a split.
      source_identity, target_identity: "ff:071", "" unknown. frame_index: in the original video.
      num_frames_video: frames that decode, -1 unknown. perturbation: what was done to the video afterwards
      (DeeperForensics' variants), "" nothing. attributes: [13] float32, `schema.ATTRIBUTES`, 0 or 1, NaN
      unknown. source_path: of the image, relative to manual_dir.
    """
    return tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "has_mask": tfds.features.Scalar(np.bool_),
            "landmarks": tfds.features.Tensor(shape=(schema.NUM_LANDMARKS, 2), dtype=np.float32),
            "has_landmarks": tfds.features.Scalar(np.bool_),
            "bbox": tfds.features.Tensor(shape=(4,), dtype=np.float32),
            "align_matrix": tfds.features.Tensor(shape=(2, 3), dtype=np.float32),
            "label": tfds.features.ClassLabel(names=list(schema.LABELS)),
            "method": tfds.features.ClassLabel(names=list(methods.METHODS)),
            "dataset": tfds.features.ClassLabel(names=list(schema.DATASETS)),
            "video_id": tfds.features.Text(),
            "pair_id": tfds.features.Text(),
            "group_id": tfds.features.Text(),
            "source_identity": tfds.features.Text(),
            "target_identity": tfds.features.Text(),
            "frame_index": tfds.features.Scalar(np.int32),
            "num_frames_video": tfds.features.Scalar(np.int32),
            "compression": tfds.features.ClassLabel(names=list(schema.COMPRESSIONS)),
            "perturbation": tfds.features.Text(),
            "attributes": tfds.features.Tensor(shape=(len(schema.ATTRIBUTES),), dtype=np.float32),
            "source_path": tfds.features.Text(),
        }
    )


def attribute_values(attributes):
    """[13] float32 of a record, NaN unknown, from what `catalog.make_fields` takes: [13] of 0, 1 or None, or None."""
    if attributes is None:
        return NO_ATTRIBUTES
    return np.array([np.nan if value is None else value for value in attributes], np.float32)


_OF_FRAME = ("image", "mask", "has_mask", "landmarks", "has_landmarks", "bbox", "align_matrix", "frame_index")


def clip_features(length):
    """The features of a clip: those of `record_features`, what belongs to a frame under `frames`, [length, ...]."""
    whole = record_features()
    of_frame = {name: whole[name] for name in _OF_FRAME}
    of_clip = {name: feature for name, feature in whole.items() if name not in _OF_FRAME}
    return tfds.features.FeaturesDict({**of_clip, "frames": tfds.features.Sequence(of_frame, length=length)})


def group_clips(frames, length):
    """Clips of `length` consecutive frames, from the frames of one video.

    Args:
      frames: iterable of dicts as `encode_frame` gives them, by frame index. length: frames of a clip.

    Yields:
      dicts with the features of `clip_features`; clips do not overlap. A run of frames shorter than `length`, and what
      is left of a longer one, is left out.
    """
    run = []
    for frame in frames:
        if run and frame["frame_index"] != run[-1]["frame_index"] + 1:
            run = []
        run.append(frame)
        if len(run) == length:
            of_clip = {name: value for name, value in run[0].items() if name not in _OF_FRAME}
            yield {**of_clip, "frames": [{name: f[name] for name in _OF_FRAME} for f in run]}
            run = []


def encode_frame(files, video, *, root, publishes_masks, fields):
    """One record, as `record_features` encodes it.

    Args:
      files: layout.FrameFiles. video: layout.Video that it is of. root: manual_dir, for the relative path.
      publishes_masks: whether the data set publishes masks, so that a real frame's mask is known to be empty.
      fields: dict of what the whole video shares: label, method, dataset, video_id, ... , compression, and
        perturbation and attributes where there are any.

    Returns:
      dict with exactly the features of `record_features`; image and mask are PNG bytes.

    Raises:
      PreparedDataError: a file is missing, corrupt, or of another size or shape.
    """
    image, size = read_png(files.image, "RGB")
    is_real = fields["label"] == "real"
    if files.mask is not None:
        mask, mask_size = read_png(files.mask, "L")
        if mask_size != size:
            raise PreparedDataError(
                f"{files.mask}: the mask is {_size_text(mask_size)}, its frame {files.image} is {_size_text(size)}"
            )
    else:
        mask = empty_mask(size)
    bbox, matrix = video.geometry[files.index]
    return {
        "image": image,
        "mask": mask,
        "has_mask": files.mask is not None or (is_real and publishes_masks),
        "landmarks": NO_LANDMARKS if files.landmarks is None else read_landmarks(files.landmarks),
        "has_landmarks": files.landmarks is not None,
        "bbox": bbox,
        "align_matrix": matrix,
        "frame_index": files.index,
        "num_frames_video": video.num_frames,
        "source_path": files.image.relative_to(root).as_posix(),
        "perturbation": "",
        **fields,
        "attributes": attribute_values(fields.get("attributes")),
    }


def read_png(path, mode):
    """A PNG file's bytes, after decoding it whole to be sure that training can.

    Args:
      path: of the file. mode: "RGB" (8-bit colour, kept byte for byte) or "L" (8-bit grey, kept; the
        three-channel masks that DeepfakeBench writes are converted, any value above 1 becoming 255).

    Returns:
      (PNG bytes, (height, width)).

    Raises:
      PreparedDataError: missing, not a PNG, cut short, or of another mode.
    """
    try:
        data = pathlib.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise PreparedDataError(f"{path}: no such file") from error
    try:
        if damage := png_damage(data):
            raise ValueError(damage)
        with PIL.Image.open(io.BytesIO(data), formats=["PNG"]) as image:
            image.load()
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        zlib.error,
        PIL.Image.DecompressionBombError,
    ) as error:
        raise PreparedDataError(
            f"{path}: not a readable PNG ({error}; {len(data)} bytes, starting {data[:8]!r}); "
            "delete it with its video's meta file and prepare the video again"
        ) from error
    if mode == "L" and image.mode == "RGB":
        grey = (np.asarray(image).max(axis=-1) > 1).astype(np.uint8) * 255
        return _encode_png(grey), grey.shape
    if image.mode != mode:
        raise PreparedDataError(f"{path}: expected an 8-bit {mode} PNG, got mode {image.mode}")
    return data, (image.height, image.width)


def read_landmarks(path):
    """Landmarks of a crop, from a file in the dlib predictor's order, as DeepfakeBench and `prepare` write.

    Returns:
      [81, 2] float32, pixels of the crop, forehead left to right.

    Raises:
      PreparedDataError: missing, not a plain .npy array (pickles are refused), another shape, or not finite.
    """
    try:
        data = pathlib.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise PreparedDataError(f"{path}: no such landmarks file, though its frame is there") from error
    points = parse_npy(data)
    if points is None or not np.isfinite(points).all() or np.abs(points).max() > MAX_COORDINATE:
        what = "not an npy file of numbers" if points is None else "NaN, infinity or absurd values in an npy file"
        raise PreparedDataError(
            f"{path}: not a landmarks file ({what} [{schema.NUM_LANDMARKS}, 2]; {len(data)} bytes, starting "
            f"{data[:80]!r}); delete it with its video's meta file and prepare the video again"
        )
    return from_dlib_order(points)


@functools.lru_cache
def empty_mask(size):
    """PNG bytes of an all-zero mask; size: (height, width)."""
    return _encode_png(np.zeros(size, np.uint8))


def _encode_png(grey):
    buffer = io.BytesIO()
    PIL.Image.fromarray(grey).save(buffer, "PNG")
    return buffer.getvalue()


def parse_npy(data):
    """The [81, 2] array of a .npy file as float32, or None where it is no such file.

    numpy's reader evaluates the header as Python: a damaged one raises what the tokenizer does, and can ask
    for pickles and for absurd memory.
    """
    header = _NPY_HEADER.match(data)
    if header is None:
        return None
    dtype = np.dtype(header[1].decode())
    if len(data) - header.end() != 2 * schema.NUM_LANDMARKS * dtype.itemsize:
        return None
    order = "F" if header[2] == b"True" else "C"
    values = np.frombuffer(data, dtype, offset=header.end())
    return values.reshape((schema.NUM_LANDMARKS, 2), order=order).astype(np.float32)


def _size_text(size):
    return f"{size[1]}x{size[0]}"

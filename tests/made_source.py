"""A source whose records are in memory, as a build stores them."""

import io

import numpy as np
import PIL.Image
from tensorflow_datasets.proto import tf_example_pb2

from msddf_jax.data import methods, schema
from msddf_jax.data.source import Source


def make_source(videos, *, name="toy/made:train", size=8, dataset="toy"):
    """A Source of records in memory.

    videos: (video_id, method, pair_id, number of frames) each; "real" makes it a real. The first pixel of a frame is
    (frame number, number of the video, 0).
    """
    count = np.array([frames for *_, frames in videos], np.int64)
    text = {"dataset": dataset, "compression": "c23", "group_id": "", "source_identity": "", "target_identity": ""}
    columns = {column: np.array([value] * len(videos)) for column, value in text.items()}
    columns |= {"video_id": np.array([v[0] for v in videos]), "method": np.array([v[1] for v in videos])}
    columns |= {"pair_id": np.array([v[2] for v in videos]), "num_frames_video": count}
    columns |= {"height": np.full(len(videos), size), "width": np.full(len(videos), size)}
    columns["label"] = np.where(columns["method"] == "real", "real", "fake")
    columns["reader"] = np.zeros(len(videos), np.int32)
    records = [make_record(row, v[1], frame, size) for row, v in enumerate(videos) for frame in range(v[3])]
    return Source(
        name=name,
        readers=(records,),
        videos=columns,
        video=np.repeat(np.arange(len(videos), dtype=np.int32), count),
        record=np.arange(count.sum()),
        frame_index=np.concatenate([np.arange(n, dtype=np.int32) for n in count]),
        first=np.cumsum(count) - count,
        count=count,
    )


def make_record(row, method, frame, size, attributes=None):
    """Bytes of a record."""
    image = np.zeros((size, size, 3), np.uint8)
    image[0, 0] = (frame, row, 0)
    unknown = [np.nan] * len(schema.ATTRIBUTES)
    example = tf_example_pb2.Example()
    feature = example.features.feature
    feature["image"].bytes_list.value.append(_png(image))
    feature["mask"].bytes_list.value.append(_png(image[..., 0]))
    feature["source_path"].bytes_list.value.append(b"made")
    for name, value in {"label": method != "real", "method": methods.METHODS.index(method)}.items():
        feature[name].int64_list.value.append(int(value))
    for name in ("has_mask", "has_landmarks"):
        feature[name].int64_list.value.append(1)
    feature["landmarks"].float_list.value.extend(range(2 * schema.NUM_LANDMARKS))
    feature["attributes"].float_list.value.extend(unknown if attributes is None else attributes)
    return example.SerializeToString()


def _png(image):
    buffer = io.BytesIO()
    PIL.Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()

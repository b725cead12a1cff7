"""A drawn face with exact landmarks, and a tiny tree of videos in the FF++ layout, for tests."""

import json

import numpy as np

from msddf_jax.faces import align, video
from msddf_jax.faces.landmarks import to_dlib_order
from msddf_jax.opencv import cv2


def face_points():
    """81 points of a symmetric face, float64 [81, 2], about 200 pixels wide around the origin."""
    points = np.zeros((81, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[:17] = np.stack([90 * np.cos(angle), 120 * np.sin(angle)], 1)  # jaw, down in the picture
    brow = np.stack([np.linspace(-70, -15, 5), [-35, -42, -45, -43, -38]], 1)
    points[17:22] = brow
    points[22:27] = brow[::-1] * [-1, 1]
    points[27:31] = np.stack([np.zeros(4), [-15, 2, 18, 34]], 1)
    points[31:36] = np.stack([[-18, -9, 0, 9, 18], [44, 47, 50, 47, 44]], 1)
    eye = np.array([[-54, -14], [-45, -20], [-33, -20], [-22, -13], [-33, -9], [-45, -9]])
    points[36:42] = eye
    points[42:48] = eye[[3, 2, 1, 0, 5, 4]] * [-1, 1]
    mouth = np.array([[-33, 74], [-22, 68], [-9, 65], [0, 67], [9, 65], [22, 68], [33, 74]])
    points[48:55] = mouth
    points[55:60] = [[22, 85], [9, 92], [0, 93], [-9, 92], [-22, 85]]
    points[60:65] = [[-29, 74], [-9, 73], [0, 74], [9, 73], [29, 74]]
    points[65:68] = [[9, 80], [0, 81], [-9, 80]]
    angle = np.linspace(np.pi, 2 * np.pi, 13)
    points[68:] = np.stack([88 * np.cos(angle), 95 * np.sin(angle) - 30], 1)
    return points


def similarity(scale, degrees, x, y):
    """float64 [2, 3]."""
    a, b = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    return np.array([[a, -b, x], [b, a, y]])


def draw(points, width, height, colour=(200, 150, 120)):
    """uint8 RGB [height, width, 3]: a filled face, a blue dot on the nose tip, green dots on the eyes."""
    image = np.full((height, width, 3), 60, np.uint8)
    # Smooth surroundings, so that the encoder has little to do.
    cv2.fillConvexPoly(image, cv2.convexHull(points.astype(np.float32)).astype(np.int32), colour)
    radius = max(round(np.ptp(points[:, 0]) / 25), 1)
    for index, dot in ((30, (0, 0, 255)), (37, (0, 255, 0)), (44, (0, 255, 0))):
        cv2.circle(image, tuple(round(v) for v in points[index]), radius, dot, -1)
    return image


def write_clip(path, num_frames=6, width=160, height=128, sidecar=True, missing=(), seed=0):
    """A clip of the drawn face on a path of scale, rotation and shift, with its sidecar landmarks.

    Returns:
      float64 [num_frames, 81, 2], full-frame pixels, forehead left to right.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(num_frames)
    poses = [similarity(0.35 + 0.01 * i, 3 * i + seed, 70 + 3 * i, 64 + i) for i in t]
    tracks = np.stack([align.transform_points(face_points(), pose) for pose in poses])
    video.write_video(path, [draw(points, width, height) for points in tracks], fps=10, crf=5)
    if sidecar:
        stored = to_dlib_order(tracks).astype(np.float32)
        stored[list(missing)] = np.nan
        np.save(path.with_name(f"{path.stem}.landmarks.npy"), stored)
    return tracks


def write_mask(path, tracks, width=160, height=128, num_frames=None):
    """A mask video: the hull of the 68 inner points is white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = []
    for points in tracks[:num_frames]:
        image = np.zeros((height, width, 3), np.uint8)
        cv2.fillConvexPoly(image, cv2.convexHull(points[:68].astype(np.float32)).astype(np.int32), (255,) * 3)
        frames.append(image)
    video.write_video(path, frames, fps=10, crf=5)


def write_tree(root, pairs=None, methods=("Deepfakes",), num_frames=6, masks=True):
    """A tree in the official layout with split lists; `pairs` is split -> list of pairs."""
    pairs = pairs or {"train": [["000", "001"]], "val": [], "test": []}
    for split in ("train", "val", "test"):
        root.mkdir(parents=True, exist_ok=True)
        (root / f"{split}.json").write_text(json.dumps(pairs.get(split, [])))
        for a, b in pairs.get(split, []):
            for stem in (a, b):
                write_clip(root / f"original_sequences/youtube/c23/videos/{stem}.mp4", num_frames)
            for method in methods:
                for stem in (f"{a}_{b}", f"{b}_{a}"):
                    folder = root / "manipulated_sequences" / method
                    tracks = write_clip(folder / "c23/videos" / f"{stem}.mp4", num_frames)
                    if masks:
                        write_mask(folder / "masks/videos" / f"{stem}.mp4", tracks)
    return root

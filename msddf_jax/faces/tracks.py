"""Which box is whose: faces linked over the sampled frames of a video, so that a passer-by is not the subject."""

import numpy as np

from msddf_jax.faces.detect import box_area, box_iou

# Sampled frames are about ten apart, so that a face moves; below this overlap it has moved away, or is another.
_MIN_IOU = 0.2
# A face that moved further than its overlap tells: by less than its side, and not much nearer or further away.
_MAX_STEP = 1.0
_MAX_GROWTH = 2.0


def link_faces(boxes) -> list[dict[int, int]]:
    """Tracks of boxes that belong to one face each.

    A box joins the track whose latest box it overlaps most; where none overlaps, one from which it is less than a side
    away and at most twice as large or small.

    Args:
      boxes: frame number -> list of boxes x0 y0 x1 y1, frames in order.

    Returns:
      list of dicts, frame number -> index into its list, in the order in which the tracks begin. Every box is in
      exactly one.
    """
    tracks, last = [], []
    for index, frame_boxes in boxes.items():
        pairs = sorted(
            ((_likeness(box, last[t]), b, t) for b, box in enumerate(frame_boxes) for t in range(len(last))),
            key=lambda pair: (-pair[0], pair[1], pair[2]),
        )
        of_box, taken = {}, set()
        for likeness, b, t in pairs:
            if likeness > 0 and b not in of_box and t not in taken:
                of_box[b] = t
                taken.add(t)
        for b, box in enumerate(frame_boxes):
            if b not in of_box:
                of_box[b] = len(tracks)
                tracks.append({})
                last.append(box)
            tracks[of_box[b]][index] = b
            last[of_box[b]] = box
    return tracks


def rank_tracks(tracks, boxes, masks=None) -> list[tuple[dict[int, int], int]]:
    """The tracks, the one that matters first.

    Args:
      tracks: from `link_faces`. boxes: as there. masks: frame number -> uint8 [H, W], or None.

    Returns:
      list of (track, mask pixels that its boxes hold), by these pixels, then by total area, then by order.
    """
    held = [sum(mask_pixels(masks, i, boxes[i][b]) for i, b in track.items()) for track in tracks]
    areas = [sum(box_area(boxes[i][b]) for i, b in track.items()) for track in tracks]
    order = sorted(range(len(tracks)), key=lambda t: (-held[t], -areas[t], t))
    return [(tracks[t], held[t]) for t in order]


def main_track(ranked, boxes, masked=False) -> dict[int, int]:
    """The first of the ranked tracks, with those that may be the same face elsewhere, after a cut or a quick move.

    They never show beside it in a frame, and are at most twice as large or small as it is next in time. A face that
    shows beside it, in whatever frame, is another person throughout.

    Args:
      ranked: from `rank_tracks`, not empty. boxes: as there. masked: whether a track must hold mask pixels to join.

    Returns:
      frame number -> index into its list, frames in order.
    """
    main = dict(ranked[0][0])
    for track, held in ranked[1:]:
        apart = not set(track) & set(main)
        if apart and (held or not masked) and _similar_size(track, main, boxes):
            main |= track
    return dict(sorted(main.items()))


def mask_pixels(masks, index, box) -> int:
    """How many pixels of a frame's mask, where it has one, are set inside a box."""
    if masks is None or index not in masks:
        return 0
    x0, y0, x1, y1 = (max(round(float(v)), 0) for v in box)
    return int(np.count_nonzero(masks[index][y0:y1, x0:x1] > 1))


def _likeness(box, other):
    """Above 1: overlap; between 0 and 1: near and of like size; 0: another face."""
    iou = box_iou(box, other)
    if iou >= _MIN_IOU:
        return 1 + iou
    side, other_side = _side(box), _side(other)
    if min(side, other_side) * _MAX_GROWTH < max(side, other_side):
        return 0.0
    centre = lambda b: np.array([b[0] + b[2], b[1] + b[3]]) / 2
    step = float(np.linalg.norm(centre(box) - centre(other)))
    reach = _MAX_STEP * max(side, other_side)
    return (reach - step) / reach if step < reach else 0.0


def _similar_size(track, main, boxes):
    """Whether the two tracks are of like size where they are closest in time."""
    first, second = min(((i, j) for i in track for j in main), key=lambda pair: abs(pair[0] - pair[1]))
    side, other = _side(boxes[first][track[first]]), _side(boxes[second][main[second]])
    return max(side, other) <= _MAX_GROWTH * min(side, other)


def _side(box):
    return float(max(box[2] - box[0], box[3] - box[1], 1e-6))

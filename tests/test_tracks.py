import hypothesis
import hypothesis.strategies as st
import numpy as np

from msddf_jax.faces import tracks

SMALL, LARGE = [0, 0, 40, 40], [100, 0, 180, 80]


def choose(boxes, masks=None):
    ranked = tracks.rank_tracks(tracks.link_faces(boxes), boxes, masks)
    return tracks.main_track(ranked, boxes, masked=ranked[0][1] > 0)


def test_the_largest_face_is_kept_though_another_grows():
    # The left face comes close for one frame; over the video the right one is larger.
    boxes = {
        0: [LARGE, SMALL],
        5: [[0, 0, 90, 90], [102, 2, 182, 82]],
        9: [[104, 0, 184, 80], [2, 0, 42, 40]],
    }
    assert choose(boxes) == {0: 0, 5: 1, 9: 0}


def test_two_faces_that_swap_their_order_in_the_list():
    boxes = {i: ([LARGE, SMALL] if i % 2 else [SMALL, LARGE]) for i in range(6)}
    assert choose(boxes) == {0: 1, 1: 0, 2: 1, 3: 0, 4: 1, 5: 0}
    assert tracks.link_faces(boxes) == [{i: i % 2 for i in range(6)}, {i: 1 - i % 2 for i in range(6)}]


def test_a_face_seen_beside_the_subject_never_stands_in_for_it():
    boxes = {0: [LARGE, SMALL], 1: [SMALL], 2: [], 3: [[300, 0, 420, 120]], 4: [SMALL, LARGE]}
    # Frame 3: nobody else, of like size: the subject after a move. Frame 1: the other one, alone.
    assert choose(boxes) == {0: 0, 3: 0, 4: 1}


def test_a_lone_face_of_another_size_is_another_face():
    boxes = {0: [SMALL], 1: [SMALL], 2: [[300, 0, 420, 120]], 3: [SMALL], 4: [SMALL], 5: [SMALL], 6: [SMALL]}
    assert choose(boxes) == {2: 0}  # 120^2 is more than 6 x 40^2: the largest, and the others are three times smaller
    boxes |= {i: [SMALL] for i in range(7, 12)}
    assert choose(boxes) == {i: 0 for i in range(12) if i != 2}


def test_a_quick_move_stays_one_track():
    # No overlap from frame to frame, yet less than a side away.
    boxes = {i: [[70 * i, 0, 70 * i + 80, 80]] for i in range(8)}
    assert tracks.link_faces(boxes) == [{i: 0 for i in range(8)}]
    boxes = {i: [[81 * i, 0, 81 * i + 80, 80]] for i in range(8)}
    assert len(tracks.link_faces(boxes)) == 8


def test_the_mask_decides_over_size():
    mask = np.zeros((200, 200), np.uint8)
    mask[10:30, 10:30] = 255
    boxes = {0: [LARGE, SMALL], 1: [LARGE, SMALL]}
    assert choose(boxes, {0: mask, 1: np.zeros_like(mask)}) == {0: 1, 1: 1}
    assert choose(boxes, {0: np.zeros_like(mask), 1: np.zeros_like(mask)}) == {0: 0, 1: 0}


def test_what_the_mask_does_not_touch_does_not_join():
    mask = np.zeros((200, 400), np.uint8)
    mask[10:30, 10:30] = 255
    boxes = {0: [SMALL], 1: [[300, 0, 340, 40]]}
    assert choose(boxes, {0: mask, 1: mask}) == {0: 0}
    assert choose(boxes) == {0: 0, 1: 0}


def test_rank_counts_mask_pixels_by_hand():
    mask = np.zeros((200, 200), np.uint8)
    mask[35:45, 35:45] = 2  # 5 x 5 of it in SMALL; 1 is not yet manipulated
    mask[0, 0] = 1
    boxes = {0: [LARGE, SMALL]}
    assert tracks.rank_tracks(tracks.link_faces(boxes), boxes, {0: mask}) == [({0: 1}, 25), ({0: 0}, 0)]


box = st.tuples(st.integers(0, 300), st.integers(0, 300), st.integers(5, 120), st.integers(5, 120)).map(
    lambda b: [b[0], b[1], b[0] + b[2], b[1] + b[3]]
)


@hypothesis.given(st.lists(st.lists(box, max_size=4), min_size=1, max_size=6))
def test_every_box_is_in_exactly_one_track(frames):
    boxes = dict(enumerate(frames))
    linked = tracks.link_faces(boxes)
    seen = sorted((i, b) for track in linked for i, b in track.items())
    assert seen == [(i, b) for i in boxes for b in range(len(boxes[i]))]
    if linked:
        main = tracks.main_track(tracks.rank_tracks(linked, boxes), boxes)
        assert all(0 <= b < len(boxes[i]) for i, b in main.items()) and list(main) == sorted(main)

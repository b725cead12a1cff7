"""A frontal face in 81 points, for tests of the synthesis."""

import numpy as np


def _arc(x, y, width, height, count, start=np.pi, stop=0.0):
    angle = np.linspace(start, stop, count)
    return np.stack([x + width * np.cos(angle), y - height * np.sin(angle)], -1)


def face_points(size, batch=1, seed=0):
    """float32 [batch, 81, 2] in a crop of `size` pixels, each face a little different."""
    eye = np.array([[-6, 1], [-2, -1], [2, -1], [6, 1], [2, 2.5], [-2, 2.5]]) / 100
    points = np.concatenate(
        [
            _arc(0.5, 0.42, 0.33, 0.45, 17, np.pi, 2 * np.pi),  # jaw
            _arc(0.33, 0.36, 0.1, 0.04, 5),  # brows
            _arc(0.67, 0.36, 0.1, 0.04, 5),
            np.stack([np.full(4, 0.5), np.linspace(0.42, 0.55, 4)], -1),  # nose
            _arc(0.5, 0.585, 0.06, 0.02, 5, np.pi, 2 * np.pi),
            eye + np.array([0.35, 0.42]),
            eye + np.array([0.65, 0.42]),
            _arc(0.5, 0.73, 0.12, 0.04, 7),  # outer lips
            _arc(0.5, 0.73, 0.12, 0.05, 7, 0, -np.pi)[1:-1],
            _arc(0.5, 0.73, 0.08, 0.015, 5),  # inner lips
            _arc(0.5, 0.73, 0.08, 0.02, 5, 0, -np.pi)[1:-1],
            _arc(0.5, 0.36, 0.33, 0.28, 15)[1:-1],  # forehead
        ]
    )
    jitter = np.random.default_rng(seed).normal(0, 0.003, (batch, 81, 2))
    return ((points + jitter) * (size - 1)).astype(np.float32)


def face_images(size, batch=1, seed=0):
    """float32 [batch, size, size, 3] in [0, 1]: smooth noise with some grain, different in every row."""
    rng = np.random.default_rng(seed)
    grid = np.linspace(0, 3, size)
    waves = [np.sin(grid[:, None] * a + b) * np.cos(grid * c) for a, b, c in rng.uniform(1, 6, (batch * 3, 3))]
    smooth = np.stack(waves).reshape(batch, 3, size, size).transpose(0, 2, 3, 1)
    return np.clip(0.5 + 0.25 * smooth + rng.normal(0, 0.03, smooth.shape), 0, 1).astype(np.float32)

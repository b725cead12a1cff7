"""Points, hulls and warps on the device: exact hull rasterisation, segment distance, bilinear warps, flips.

Everything here is float32, has static shapes and takes single samples or any leading axes as stated; pixel
centres lie at integers, x runs along the width, and lengths are in pixels unless a docstring says otherwise.
Lengths quoted from the papers hold for a 256 px crop and scale with the crop (`scale_of`).
"""

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.data import schema
from msddf_jax.synth import filters

REFERENCE_SIZE = 256
GRID_ANCHORS = 5
# A hull narrower than this, in pixels, encloses no pixel centre worth blending: it counts as degenerate.
MIN_HULL_WIDTH = 0.5
_ELASTIC_SPACING = 4.0
_ELASTIC_MARGIN = 24.0


def scale_of(size) -> float:
    """Factor from the papers' 256 px crop to a crop of `size` pixels."""
    return size / REFERENCE_SIZE


def map_samples(sample_fn, key, *rows, batch=None, one_by_one=None) -> jax.Array | tuple | dict:
    """Runs `sample_fn(key_i, *rows_i)` on every row of a batch, with a key that depends on i only.

    Row i gets `fold_in(key, i)`, so a sample's bits do not depend on the size of the batch it is in.

    Args:
      sample_fn: function of a key and one row of each of `rows`, returning a pytree.
      key: typed PRNG key.
      *rows: pytrees with leading axis B.
      batch: int, B; only needed where there are no rows.
      one_by_one: see `filters.over_rows`. Sharded batches want False: a loop visits every row everywhere.

    Returns:
      The pytree of `sample_fn` with a leading axis B.
    """
    batch = jax.tree.leaves(rows)[0].shape[0] if batch is None else batch
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(batch))
    return filters.over_rows(lambda row: sample_fn(*row), (keys, *rows), one_by_one)


def flip_landmarks(landmarks, width) -> jax.Array:
    """Landmarks of the image flipped left to right.

    Args:
      landmarks: float32 [..., 81, 2], pixels, in the order of `schema`.
      width: int, width of the image.

    Returns:
      float32 [..., 81, 2], re-ordered so that index k names the same face part as seen in the image.
    """
    points = landmarks[..., schema.LANDMARK_FLIP, :]
    return jnp.stack([(width - 1) - points[..., 0], points[..., 1]], axis=-1)


def hull_edges(points) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Edges of the convex hull, one slot per point, without sorting or data-dependent shapes.

    For a hull vertex all other points lie within half a turn, so "further clockwise" orders them and a
    reduction in that order finds the vertex's successor; an edge stands if no point lies right of it.

    Args:
      points: float32 [..., N, 2]. Repeated points are allowed and change nothing.

    Returns:
      start: float32 [..., N, 2], the points with every non-finite set replaced by zeros.
      edge: float32 [..., N, 2], vector to the successor, zero where the point starts no hull edge.
      valid: bool [...], False where a coordinate is not finite or the hull is thinner than half a pixel.
    """
    points = jax.lax.stop_gradient(points)
    finite = jnp.isfinite(points).all((-1, -2))
    start = jnp.where(finite[..., None, None], points, 0.0).astype(jnp.float32)
    to_x = start[..., None, :, 0] - start[..., :, None, 0]  # [..., N (from), N (to)]
    to_y = start[..., None, :, 1] - start[..., :, None, 1]
    best = jax.lax.reduce((to_x, to_y), (0.0, 0.0), _further_clockwise, (to_x.ndim - 1,))
    best_x, best_y = best[0][..., None], best[1][..., None]
    length = jnp.sqrt(best_x**2 + best_y**2)
    distance = (best_x * to_y - best_y * to_x) / jnp.maximum(length, 1e-6)  # left of the edge is positive
    stands = (length[..., 0] > 1e-6) & (distance.min(-1) >= -1e-3)
    width = jnp.where(stands, distance.max(-1), jnp.inf).min(-1)
    edge = jnp.where(stands[..., None], jnp.concatenate([best_x, best_y], -1), 0.0)
    return start, edge, finite & jnp.isfinite(width) & (width >= MIN_HULL_WIDTH)


def _further_clockwise(u, v):
    # Of two vectors the one with the other on its left; of two in line the longer.
    (ux, uy), (vx, vy) = u, v
    cross = ux * vy - uy * vx
    u_length, v_length = ux * ux + uy * uy, vx * vx + vy * vy
    tie = jnp.abs(cross) <= 1e-6 * jnp.sqrt(u_length * v_length)
    keep = jnp.where(tie, u_length >= v_length, cross > 0)
    return jnp.where(keep, ux, vx), jnp.where(keep, uy, vy)


def hull_spans(points, height) -> tuple[jax.Array, jax.Array]:
    """The interval of x that the convex hull covers in each row, by OpenCV's rule for filling polygons.

    Each edge's supporting line bounds x in every row. A pixel counts within half a pixel of the polygon,
    measured along the minor axis of the edge, which is what `cv2.fillConvexPoly` rounds to.

    Args:
      points: float32 [..., N, 2], may lie outside the frame.
      height: int.

    Returns:
      left, right: float32 [..., height]; left > right where a row is not met, and in every row for a
      degenerate or non-finite set of points.
    """
    start, edge, valid = hull_edges(points)
    ex, ey = edge[..., :, None, 0], edge[..., :, None, 1]  # [..., N, 1] against rows [H]
    px, py = start[..., :, None, 0], start[..., :, None, 1]
    steep = jnp.abs(ey) > 1e-6 * jnp.abs(ex)
    slope = 1.0 / jnp.where(steep, ey, 1.0)
    rows = jnp.arange(height, dtype=jnp.float32)
    # Inside: ex (y - py) - ey (x - px) + slack >= 0.
    reach = ex * (rows - py) + 0.5 * jnp.maximum(jnp.abs(ex), jnp.abs(ey))
    bound = px + reach * slope
    left = jnp.where(steep & (ey < 0), bound, -jnp.inf).max(-2)
    right = jnp.where(steep & (ey > 0), bound, jnp.inf).min(-2)
    met = (steep | (reach >= 0)).all(-2) & valid[..., None]
    # Supporting lines moved outwards meet beyond a sharp vertex; the bounding box cuts that off.
    low, high = start.min(-2) - 0.5, start.max(-2) + 0.5
    met &= (rows >= low[..., 1:]) & (rows <= high[..., 1:])
    left = jnp.where(met, jnp.maximum(left, low[..., :1]), jnp.inf)
    return jax.lax.optimization_barrier((left, jnp.minimum(right, high[..., :1])))


def hull_mask(points, height, width) -> jax.Array:
    """Filled convex hull (IoU with `cv2.convexHull` and `fillConvexPoly` above 0.99; see `hull_spans`).

    Args:
      points: float32 [..., N, 2]; N and the frame are unrelated, points may lie outside.
      height, width: ints.

    Returns:
      bool [..., height, width]; empty for a degenerate or non-finite set of points.
    """
    left, right = hull_spans(points, height)
    x = jnp.arange(width, dtype=jnp.float32)
    return (x >= left[..., None]) & (x <= right[..., None])


def segment_distance(start, end, height, width) -> jax.Array:
    """L1 distance of every pixel to a segment: iterating a 3x3 cross dilation n times is `distance <= n`.

    Along the segment the distance is convex and piecewise linear, so it is least at one of the two
    breakpoints (same x, same y) clamped to the segment.

    Args:
      start, end: float32 [..., 2].
      height, width: ints.

    Returns:
      float32 [..., height, width], pixels.
    """
    x = jnp.arange(width, dtype=jnp.float32)
    y = jnp.arange(height, dtype=jnp.float32)[:, None]
    ax, ay = start[..., 0, None, None], start[..., 1, None, None]
    dx, dy = end[..., 0, None, None] - ax, end[..., 1, None, None] - ay
    safe = lambda v: jnp.where(jnp.abs(v) < 1e-6, 1e-6, v)
    at_x = jnp.clip((x - ax) / safe(dx), 0.0, 1.0)
    at_y = jnp.clip((y - ay) / safe(dy), 0.0, 1.0)
    reach = lambda t: jnp.abs(x - ax - t * dx) + jnp.abs(y - ay - t * dy)
    return jnp.minimum(reach(at_x), reach(at_y))


def warp(planes, x, y, border="edge") -> jax.Array:
    """Bilinear sampling of one sample's planes (`cv2.remap`, `INTER_LINEAR`, exact weights).

    Args:
      planes: float32 [C, H, W], H and W at least 2.
      x, y: float32 [h, w], finite, where each output pixel is read.
      border: "edge" repeats the border pixels, "zero" fades to 0 within one pixel outside.

    Returns:
      float32 [C, h, w].

    Raises:
      ValueError: another border.
    """
    if border not in ("edge", "zero"):
        raise ValueError(f"border is {border!r}, allowed are 'edge' and 'zero'")
    channels, height, width = planes.shape
    # The barrier keeps XLA from computing the planes anew for each of the four taps.
    flat = jax.lax.optimization_barrier(planes.reshape(channels, height * width))
    cx, cy = jnp.clip(x, 0.0, width - 1.0), jnp.clip(y, 0.0, height - 1.0)
    left = jnp.minimum(cx.astype(jnp.int32), width - 2)
    top = jnp.minimum(cy.astype(jnp.int32), height - 2)
    fx, fy = cx - left, cy - top
    index = top * width + left
    tap = lambda offset: flat.at[:, index + offset].get(mode="promise_in_bounds")
    upper = tap(0) * (1.0 - fx) + tap(1) * fx
    lower = tap(width) * (1.0 - fx) + tap(width + 1) * fx
    out = upper * (1.0 - fy) + lower * fy
    if border == "zero":
        # Beyond the edge only the inner tap holds a value, so its weight falls linearly to 0.
        out *= jnp.clip(x + 1.0, 0.0, 1.0) * jnp.clip(width - x, 0.0, 1.0)
        out *= jnp.clip(y + 1.0, 0.0, 1.0) * jnp.clip(height - y, 0.0, 1.0)
    return out


def resample_axes(planes, x, y) -> jax.Array:
    """Bilinear sampling on a separable grid, borders repeated: `warp` where x has no y in it.

    Args:
      planes: float32 [C, H, W].
      x: pair (low, high) of int32 [w] columns and float32 [w] weight of high, as from `lerp_taps`.
      y: the same for rows, [h].

    Returns:
      float32 [C, h, w].
    """
    (top, bottom, fy), (left, right, fx) = y, x
    take = lambda a, index, axis: jnp.take(a, index, axis=axis, mode="clip")
    rows = take(planes, top, 1) * (1.0 - fy)[:, None] + take(planes, bottom, 1) * fy[:, None]
    return take(rows, left, 2) * (1.0 - fx) + take(rows, right, 2) * fx


def lerp_taps(position, size, xp=jnp) -> tuple[jax.Array | np.ndarray, ...]:
    """Taps of linear interpolation at `position` float32 [n] on `size` pixels, borders repeated.

    xp: `numpy` keeps taps that are known beforehand constants.

    Returns:
      low, high: int32 [n]; weight: float32 [n] of high.
    """
    position = xp.clip(position, 0.0, size - 1.0)
    low = position.astype(xp.int32)
    return low, xp.minimum(low + 1, size - 1), position - low


def draw_affine(key, height, width, shift=(0.03, 0.015), scale=0.95) -> tuple[jax.Array, jax.Array]:
    """SBI's geometric jitter: translation and isotropic scale about the centre, no rotation, no shear.

    Args:
      key: typed key.
      height, width: ints.
      shift: largest translation along x and y, as fractions of width and height.
      scale: the scale is uniform in [scale, 1 / scale].

    Returns:
      zoom: float32 [], offset: float32 [2]; a point p moves to zoom * p + offset (MSDDF section 1.4).
    """
    draw = jax.random.uniform(key, (3,), minval=-1.0)
    zoom = scale + (1.0 / scale - scale) * (draw[0] + 1.0) / 2.0
    centre = jnp.array([(width - 1) / 2, (height - 1) / 2])
    move = draw[1:] * jnp.array([shift[0] * width, shift[1] * height])
    return zoom, centre * (1.0 - zoom) + move


def affine_planes(planes, zoom, offset) -> jax.Array:
    """Planes [C, H, W] moved by p -> zoom * p + offset, bilinear, borders repeated (see `draw_affine`)."""
    _, height, width = planes.shape
    x = (jnp.arange(width, dtype=jnp.float32) - offset[0]) / zoom
    y = (jnp.arange(height, dtype=jnp.float32) - offset[1]) / zoom
    return resample_axes(planes, lerp_taps(x, width), lerp_taps(y, height))


def cut_windows(images, window) -> jax.Array:
    """What a window shows of each image, at the image's own size: bilinear, borders repeated.

    Args:
      images: float32 [B, H, W, C].
      window: float32 [B, 4], its left, right, top and bottom edge as shares of the sides; it may reach outside [0, 1].

    Returns:
      float32 [B, H, W, C].
    """

    def positions(first, last, size):
        centres = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
        return (first + (last - first) * centres) * size - 0.5

    def one(image, edges):
        height, width, _ = image.shape
        x = lerp_taps(positions(edges[0], edges[1], width), width)
        y = lerp_taps(positions(edges[2], edges[3], height), height)
        return jnp.moveaxis(resample_axes(jnp.moveaxis(image, -1, 0), x, y), 0, -1)

    return jax.vmap(one)(images, window)


def estimate_similarity(source, target, weight=None) -> jax.Array:
    """Least-squares similarity without reflection, source -> target (Umeyama 1991, closed form in 2-D).

    Args:
      source, target: float32 [..., N, 2].
      weight: float32 [..., N], optional.

    Returns:
      float32 [..., 2, 3]; the translation alone where all source points coincide.
    """
    weight = jnp.ones(source.shape[:-1]) if weight is None else weight
    weight = (weight / jnp.maximum(weight.sum(-1, keepdims=True), 1e-9))[..., None]
    source_mean, target_mean = (weight * source).sum(-2), (weight * target).sum(-2)
    s, t = source - source_mean[..., None, :], target - target_mean[..., None, :]
    power = (weight * s * s).sum((-1, -2))
    along = (weight[..., 0] * (s * t).sum(-1)).sum(-1)
    across = (weight[..., 0] * (s[..., 0] * t[..., 1] - s[..., 1] * t[..., 0])).sum(-1)
    single = power < 1e-9
    safe = jnp.where(single, 1.0, power)
    a, b = jnp.where(single, 1.0, along / safe), jnp.where(single, 0.0, across / safe)
    linear = jnp.stack([jnp.stack([a, -b], -1), jnp.stack([b, a], -1)], -2)
    move = target_mean - (linear * source_mean[..., None, :]).sum(-1)
    return jnp.concatenate([linear, move[..., None]], -1)


def transform_points(points, matrix) -> jax.Array:
    """Points [..., N, 2] under a 2x3 matrix [..., 2, 3]."""
    linear = (matrix[..., None, :, :2] * points[..., None, :]).sum(-1)
    return linear + matrix[..., None, :, 2]


def matrix_grid(matrix, height, width) -> tuple[jax.Array, jax.Array]:
    """Where each pixel of an output frame is read through `matrix` float32 [2, 3] (output -> input).

    Returns:
      x, y: float32 [height, width].
    """
    x = jnp.arange(width, dtype=jnp.float32)
    y = jnp.arange(height, dtype=jnp.float32)[:, None]
    m = matrix
    return m[0, 0] * x + m[0, 1] * y + m[0, 2], m[1, 0] * x + m[1, 1] * y + m[1, 2]


def elastic_field(key, height, width, alpha=50.0, sigma=7.0) -> tuple[jax.Array, jax.Array]:
    """Displacement field of Simard's elastic deformation: white noise smoothed by a Gaussian.

    SBI smooths one uniform(-1, 1) draw a pixel at 256 px. The result is band-limited, so the same field
    comes from noise on a grid of 4 px (4 / 7 of sigma), weighted by the Gaussian itself: the same
    covariance to 1e-4, at 1/16 of the random bits and two small matrix products. Displacements scale
    with the crop.

    Args:
      key: typed key.
      height, width: ints.
      alpha, sigma: amplitude and width in pixels of a 256 px crop.

    Returns:
      dx, dy: float32 [height, width], pixels; standard deviation alpha / (sigma sqrt(12 pi)), 1.16 px by
      default at 256 px.
    """
    nodes = np.arange(-_ELASTIC_MARGIN, REFERENCE_SIZE + _ELASTIC_MARGIN, _ELASTIC_SPACING)

    def spread(size):
        position = np.arange(size) / scale_of(size)
        gaussian = np.exp(-0.5 * ((position[:, None] - nodes) / sigma) ** 2) / (np.sqrt(2 * np.pi) * sigma)
        return jnp.asarray(np.sqrt(_ELASTIC_SPACING) * gaussian, jnp.float32)

    count = len(nodes)
    noise = jax.random.uniform(key, (count, 2 * count), minval=-alpha, maxval=alpha)
    field = jnp.matmul(spread(height), noise, precision=filters.PRECISION).reshape(2 * height, count)
    field = jnp.matmul(field, spread(width).T, precision=filters.PRECISION).reshape(height, 2, width)
    return field[:, 0] * scale_of(width), field[:, 1] * scale_of(height)


def grid_field(key, height, width, std=10.0) -> tuple[jax.Array, jax.Array]:
    """Displacement field of a random 5x5 control grid (MSDDF section 2.2), bilinear between anchors.

    Each anchor moves by N(0, std) pixels of a 256 px crop on both axes and stays inside the frame.

    Returns:
      dx, dy: float32 [height, width], pixels.
    """
    anchors = np.linspace(0.0, 1.0, GRID_ANCHORS)

    def spread(size):
        steps = np.arange(size)[:, None] / max(size - 1, 1) - anchors
        return jnp.asarray(np.maximum(0.0, 1.0 - np.abs(steps) * (GRID_ANCHORS - 1)), jnp.float32)

    size = jnp.array([width - 1.0, height - 1.0])
    at = jnp.asarray(np.stack(np.meshgrid(anchors, anchors), -1), jnp.float32) * size
    move = std * jax.random.normal(key, at.shape) * jnp.array([scale_of(width), scale_of(height)])
    move = jnp.clip(at + move, 0.0, size) - at
    field = jnp.einsum("hi,ijc,wj->chw", spread(height), move, spread(width), precision=filters.PRECISION)
    return field[0], field[1]


def displace(planes, dx, dy, border="zero") -> jax.Array:
    """Planes [C, H, W] read at each pixel plus its displacement (dx, dy) [H, W], bilinear."""
    _, height, width = planes.shape
    x = jnp.arange(width, dtype=jnp.float32) + dx
    y = jnp.arange(height, dtype=jnp.float32)[:, None] + dy
    return warp(planes, x, y, border)

"""What happens to an image on its way through cameras and platforms: JPEG, blur, noise, re-sampling, colour.

For the training augmentation (`augment`) and for the robustness suite, whose distortions these are one by one.
Operations on a batch take [B, H, W, 3] and a parameter for each sample ([B], or a scalar for all); the
functions named `*_planes` take one image as [3, H, W], the layout in which a CPU is fastest.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.synth import filters, geometry

# JPEG annex K.1, rows by vertical frequency.
_LUMA_TABLE = np.array(
    [
        [16, 11, 10, 16, 24, 40, 51, 61],
        [12, 12, 14, 19, 26, 58, 60, 55],
        [14, 13, 16, 24, 40, 57, 69, 56],
        [14, 17, 22, 29, 51, 87, 80, 62],
        [18, 22, 37, 56, 68, 109, 103, 77],
        [24, 35, 55, 64, 81, 104, 113, 92],
        [49, 64, 78, 87, 103, 121, 120, 101],
        [72, 92, 95, 98, 112, 100, 103, 99],
    ],
    np.float32,
)
_CHROMA_TABLE = np.full((8, 8), 99, np.float32)
_CHROMA_TABLE[:4, :4] = [[17, 18, 24, 47], [18, 21, 26, 66], [24, 26, 56, 99], [47, 66, 99, 99]]
# JFIF, full range; the rows are Y, Cb, Cr, and R, G, B.
_YCC_FROM_RGB = np.array(
    [[0.299, 0.587, 0.114], [-0.168735892, -0.331264108, 0.5], [0.5, -0.418687589, -0.081312411]], np.float32
)
_RGB_FROM_CHROMA = np.array([[0.0, 1.402], [-0.344136286, -0.714136286], [1.772, 0.0]], np.float32)


def _dct_matrix():
    """Orthonormal 8 x 8 DCT of a flattened block: [64 coefficients, 64 pixels]."""
    k, n = np.arange(8)[:, None], np.arange(8)[None, :]
    basis = np.cos(np.pi * (2 * n + 1) * k / 16) * np.where(k == 0, np.sqrt(1 / 8), 0.5)
    return np.kron(basis, basis).astype(np.float32)


_DCT = _dct_matrix()


def _round(x):
    """Nearest integer, halves away from zero, as libjpeg rounds."""
    return jnp.sign(x) * jnp.floor(jnp.abs(x) + 0.5)


@jax.custom_jvp
def _round_through(x):
    """`_round` with the derivative of the identity (straight-through estimator)."""
    return _round(x)


@_round_through.defjvp
def _round_through_jvp(primals, tangents):
    return _round(primals[0]), tangents[0]


def _quantization_tables(quality):
    """[2, 64] luma and chroma steps for a scalar quality, scaled as libjpeg's jpeg_quality_scaling."""
    quality = jnp.clip(jnp.floor(quality), 1.0, 100.0)
    scale = jnp.where(quality < 50.0, jnp.floor(5000.0 / quality), 200.0 - 2.0 * quality)
    tables = jnp.asarray(np.stack([_LUMA_TABLE.ravel(), _CHROMA_TABLE.ravel()]))
    return jnp.clip(jnp.floor((tables * scale + 50.0) / 100.0), 1.0, 255.0)


def pad_edge(planes, rows, cols) -> jax.Array:
    """[C, H, W] grown at the bottom and the right to [C, rows, cols] by repeating the edge."""
    pad = ((0, 0), (0, rows - planes.shape[1]), (0, cols - planes.shape[2]))
    return jnp.pad(planes, pad, mode="edge") if pad[1][1] or pad[2][1] else planes


def _code_plane(planes, table, rounding):
    """DCT, quantisation and back of [C, H, W] grey levels, H and W multiples of 8; table [64]."""
    channels, height, width = planes.shape
    blocks = planes.reshape(channels, height // 8, 8, width // 8, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 64)
    coefficients = jnp.matmul(blocks - 128.0, 8.0 * _DCT.T, precision=filters.PRECISION)
    # libjpeg's transform gives eighths; a tie is then common, and goes away from zero.
    coefficients = rounding(coefficients) / 8.0
    coefficients = rounding(coefficients / table) * table
    blocks = jnp.matmul(coefficients, _DCT, precision=filters.PRECISION) + 128.0
    blocks = jnp.clip(rounding(blocks), 0.0, 255.0)
    blocks = blocks.reshape(channels, height // 8, width // 8, 8, 8)
    return blocks.transpose(0, 1, 3, 2, 4).reshape(channels, height, width)


def _halve_chroma(planes, rounding):
    """Chroma [2, H, W] -> [2, ceil(H / 2), W8 / 2], W8 the width up to a multiple of 16: libjpeg's h2v2.

    The mean of four is rounded down and up in turn along a row, so that the rounding has no bias.
    """
    _, height, width = planes.shape
    planes = pad_edge(planes, height + height % 2, -(-width // 16) * 16)
    total = planes[:, ::2, ::2] + planes[:, 1::2, ::2] + planes[:, ::2, 1::2] + planes[:, 1::2, 1::2]
    # rounding(t / 4 - 1/4) is floor((t + 1) / 4) for integers t; with +0 it is floor((t + 2) / 4).
    bias = jnp.where(jnp.arange(total.shape[2]) % 2 == 0, -0.25, 0.0)
    return rounding(total / 4.0 + bias)


def _triangle_matrix(size_in, size_out):
    """[size_out, size_in] of libjpeg's fancy upsampling along one axis: weights 3 and 1."""
    near = np.arange(size_out) // 2
    far = np.clip(near + np.where(np.arange(size_out) % 2 == 0, -1, 1), 0, size_in - 1)
    matrix = np.zeros((size_out, size_in), np.float32)
    np.add.at(matrix, (np.arange(size_out), near), 3.0)
    np.add.at(matrix, (np.arange(size_out), far), 1.0)
    return matrix


def _double_chroma(planes, height, width, rounding):
    """Chroma [2, h, w] -> [2, height, width]: triangle filter, or a copy where libjpeg finds it too narrow."""
    if planes.shape[2] <= 2:
        return jnp.repeat(jnp.repeat(planes, 2, axis=1), 2, axis=2)[:, :height, :width]
    rows = _triangle_matrix(planes.shape[1], height)
    cols = _triangle_matrix(planes.shape[2], width)
    total = jnp.matmul(rows, planes, precision=filters.PRECISION)
    total = jnp.matmul(total, cols.T, precision=filters.PRECISION)
    # libjpeg: (t + 8) >> 4 in even columns, (t + 7) >> 4 in odd ones.
    bias = jnp.where(jnp.arange(width) % 2 == 0, 0.0, -1.0 / 16.0)
    return rounding(total / 16.0 + bias)


def jpeg_planes(planes, quality, straight_through=True) -> jax.Array:
    """`jpeg` of one image: planes [3, H, W] float32 in [0, 1], quality a scalar."""
    rounding = _round_through if straight_through else _round
    _, height, width = planes.shape
    tables = _quantization_tables(quality)
    levels = rounding(255.0 * jnp.clip(planes, 0.0, 1.0))
    # Products over planes: written out per channel, XLA's fusion computes the roundings many times over.
    ycc = jnp.tensordot(_YCC_FROM_RGB, levels, 1, precision=filters.PRECISION)
    # Chroma offset by 128 and not signed: the halving rounds in one direction.
    ycc = jnp.clip(rounding(ycc + jnp.array([0.0, 128.0, 128.0])[:, None, None]), 0.0, 255.0)

    whole = pad_edge(ycc[:1], -(-height // 8) * 8, -(-width // 8) * 8)
    luma = _code_plane(whole, tables[0], rounding)[:, :height, :width]
    half = _halve_chroma(ycc[1:], rounding)
    half_height, half_width = -(-height // 2), -(-width // 2)
    half = _code_plane(pad_edge(half, -(-half_height // 8) * 8, half.shape[2]), tables[1], rounding)
    chroma = _double_chroma(half[:, :half_height, :half_width], height, width, rounding) - 128.0
    out = luma + rounding(jnp.tensordot(_RGB_FROM_CHROMA, chroma, 1, precision=filters.PRECISION))
    return jnp.clip(out / 255.0, 0.0, 1.0)


def planewise(planes_fn, x, *parameters, one_by_one) -> jax.Array:
    """Runs a `*_planes` function on a batch [B, H, W, 3] with parameters [B] or scalar."""
    rows = [jnp.broadcast_to(jnp.asarray(p, jnp.float32), x.shape[:1]) for p in parameters]

    def one(row):
        image, *values = row
        return jnp.moveaxis(planes_fn(jnp.moveaxis(image, -1, 0), *values), 0, -1)

    return filters.over_rows(one, (x, *rows), one_by_one)


@functools.partial(jax.jit, static_argnames=("straight_through", "one_by_one"))
def jpeg(x, quality, straight_through=True, one_by_one=None) -> jax.Array:
    """JPEG compression and decompression as libjpeg does it: 4:2:0, standard tables, full-range YCbCr.

    Args:
      x: [B, H, W, 3] float32 in [0, 1], any H and W; rounded to 256 levels first.
      quality: [B] or scalar, whole numbers 1 to 100, libjpeg's scale.
      straight_through: True gives every rounding the derivative 1, False the derivative 0; same values.
      one_by_one: see `filters.over_rows`.

    Returns:
      [B, H, W, 3] float32 in [0, 1], multiples of 1 / 255.
    """
    code = functools.partial(jpeg_planes, straight_through=straight_through)
    return planewise(code, x, quality, one_by_one=one_by_one)


def blur_planes(planes, kernel_size, sigma) -> jax.Array:
    """`gaussian_blur` of one image: planes [C, H, W], kernel_size and sigma scalars."""
    rows = filters.gaussian_matrix(planes.shape[1], kernel_size, sigma)
    cols = filters.gaussian_matrix(planes.shape[2], kernel_size, sigma)
    planes = jnp.matmul(rows, planes, precision=filters.PRECISION)
    return jnp.matmul(planes, cols.T, precision=filters.PRECISION)


@functools.partial(jax.jit, static_argnames="one_by_one")
def gaussian_blur(x, kernel_size, sigma=None, one_by_one=None) -> jax.Array:
    """`cv2.GaussianBlur(image, (k, k), sigma)`.

    Args:
      x: [B, H, W, C] float32. kernel_size: [B] or scalar, odd; 1 changes nothing.
      sigma: [B] or scalar, pixels, > 0; None takes `filters.auto_sigma(kernel_size)`.

    Returns:
      [B, H, W, C] float32.
    """
    sigma = filters.auto_sigma(jnp.asarray(kernel_size, jnp.float32)) if sigma is None else sigma
    return planewise(blur_planes, x, kernel_size, sigma, one_by_one=one_by_one)


def down_up_planes(planes, factor, down="nearest", whole=round) -> jax.Array:
    """Down- and upscaling by `cv2.resize`: to whole(size / factor), and back bilinearly.

    Args:
      planes: [C, H, W] float32. factor: a whole Python number. down: "nearest" or "bilinear" (no antialiasing, as
        OpenCV). whole: `round`, or another function from a number of pixels to a whole one.

    Raises: ValueError for an unknown `down`.
    """
    if down not in ("nearest", "bilinear"):
        raise ValueError(f"down is {down!r}, allowed: 'nearest', 'bilinear'")
    _, height, width = planes.shape
    small = [max(whole(size / factor), 1) for size in (height, width)]
    if down == "nearest":
        picks = [np.minimum(np.arange(n) * factor, size - 1) for n, size in zip(small, (height, width))]
        low = planes[:, picks[0][:, None], picks[1][None, :]]
    else:
        low = _resize(planes, *small)
    return _resize(low, height, width)


def _resize(planes, height, width):
    """`cv2.resize` with INTER_LINEAR of [C, H, W]; the taps are constants, which gathers twice as fast as traced."""
    taps = lambda n, size: geometry.lerp_taps((np.arange(n, dtype=np.float32) + 0.5) * (size / n) - 0.5, size, np)
    return geometry.resample_axes(planes, taps(width, planes.shape[2]), taps(height, planes.shape[1]))


def choose_factor(planes, index, factors, down) -> jax.Array:
    """Applies factors[index - 1]; index 0 leaves the image as it is."""
    scaled = [functools.partial(down_up_planes, factor=factor, down=down) for factor in factors]
    return jax.lax.switch(index, [lambda p: p, *scaled], planes)


def sharpen_planes(planes, share, lightness) -> jax.Array:
    """`sharpen` of one image: planes [C, H, W], share and lightness scalars."""
    padded = jnp.pad(planes, ((0, 0), (1, 1), (1, 1)), mode="reflect")
    # Without the barriers XLA recomputes the padding, border cases and all, for each of nine neighbours.
    padded = jax.lax.optimization_barrier(padded)
    rows = jax.lax.optimization_barrier(padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:])
    around = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    return jnp.clip(planes * (1.0 + share * (8.0 + lightness)) - share * around, 0.0, 1.0)


@functools.partial(jax.jit, static_argnames="one_by_one")
def sharpen(x, share, lightness, one_by_one=None) -> jax.Array:
    """Sharpening as albumentations does it: kernel (1 - share) * identity + share * K.

    Args:
      x: [B, H, W, C] float32 in [0, 1]. share: [B] or scalar in [0, 1]. lightness: [B] or scalar; K is -1
        around 8 + lightness.

    Returns:
      [B, H, W, C] float32 in [0, 1].
    """
    return planewise(sharpen_planes, x, share, lightness, one_by_one=one_by_one)


def _each(value):
    """A parameter [B] (or scalar) shaped to multiply [B, H, W, C] (or [C, H, W])."""
    return jnp.asarray(value, jnp.float32)[..., None, None, None]


def adjust_tone(x, brightness=0.0, contrast=0.0) -> jax.Array:
    """`clip(x * (1 + contrast) + brightness)`.

    Args:
      x: [B, H, W, C] or [C, H, W] float32 in [0, 1]. brightness, contrast: [B] or scalar.

    Returns:
      as x, in [0, 1].
    """
    return jnp.clip(x * (1.0 + _each(contrast)) + _each(brightness), 0.0, 1.0)


def scale_saturation(x, share) -> jax.Array:
    """Chroma times `share` about the luma grey; 0 gives grey (DeeperForensics-1.0, CS).

    Args:
      x: [B, H, W, 3] float32 in [0, 1]. share: [B] or scalar, >= 0.

    Returns:
      [B, H, W, 3] float32 in [0, 1].
    """
    luma = 0.299 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]
    return jnp.clip(luma + _each(share) * (x - luma), 0.0, 1.0)


def _normal(key, shape):
    """Standard normal numbers of shape [N, M, K], drawn as [N, M * K]: on a CPU twice as fast for a small K."""
    return jax.random.normal(key, (shape[0], shape[1] * shape[2])).reshape(shape)


@functools.partial(jax.jit, static_argnames="one_by_one")
def gaussian_noise(key, x, sigma, one_by_one=None) -> jax.Array:
    """`clip(x + sigma * N(0, 1))`, independent by pixel and channel.

    Args:
      key: typed key. x: [B, H, W, C] float32 in [0, 1]. sigma: [B] or scalar, unit of x.

    Returns:
      [B, H, W, C] float32 in [0, 1]. Row i depends on i and not on B.
    """

    def one(key, image, sigma):
        return jnp.clip(image + sigma * _normal(key, image.shape), 0.0, 1.0)

    sigma = jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), x.shape[:1])
    return geometry.map_samples(one, key, x, sigma, one_by_one=one_by_one)


@functools.partial(jax.jit, static_argnames="one_by_one")
def color_noise(key, x, variance, one_by_one=None) -> jax.Array:
    """Gaussian noise in studio-range YCbCr (DeeperForensics-1.0, GNC).

    Args:
      key: typed key. x: [B, H, W, 3] float32 in [0, 1]. variance: [B] or scalar, 0.001 to 0.05 there.

    Returns:
      [B, H, W, 3] float32 in [0, 1].
    """
    # Noise of equal deviation in 219 levels of luma and 224 of chroma, seen in full-range units.
    to_rgb = np.concatenate([np.ones((3, 1), np.float32), _RGB_FROM_CHROMA], axis=1)
    to_rgb = to_rgb * np.array([255 / 219, 255 / 224, 255 / 224], np.float32)

    def one(key, image, variance):
        noise = jnp.einsum("rc,hwc->hwr", to_rgb, _normal(key, image.shape), precision=filters.PRECISION)
        return jnp.clip(image + jnp.sqrt(variance) * noise, 0.0, 1.0)

    variance = jnp.broadcast_to(jnp.asarray(variance, jnp.float32), x.shape[:1])
    return geometry.map_samples(one, key, x, variance, one_by_one=one_by_one)


@functools.partial(jax.jit, static_argnames=("max_blocks", "one_by_one"))
def block_out(key, x, count, max_blocks=80, one_by_one=None) -> jax.Array:
    """Sets random 8 x 8 blocks to mid-grey (DeeperForensics-1.0, BW).

    Args:
      key: typed key. x: [B, H, W, 3] float32. count: [B] or scalar, blocks, at most `max_blocks`.

    Returns:
      [B, H, W, 3] float32.
    """

    def one(key, image, count):
        height, width, _ = image.shape
        size = jnp.array([max(height - 8, 1), max(width - 8, 1)])
        corner = jnp.floor(jax.random.uniform(key, (max_blocks, 2)) * size)
        used = (jnp.arange(max_blocks) < count)[:, None]

        def covers(start, length):
            offset = jnp.arange(length)[None, :] - start[:, None]
            return ((offset >= 0) & (offset < 8)).astype(jnp.float32)

        hit = jnp.matmul((covers(corner[:, 0], height) * used).T, covers(corner[:, 1], width))
        return jnp.where(hit[..., None] > 0.5, 128.0 / 255.0, image)

    count = jnp.broadcast_to(jnp.asarray(count, jnp.float32), x.shape[:1])
    return geometry.map_samples(one, key, x, count, one_by_one=one_by_one)


def sharpness(x, half) -> jax.Array:
    """How sharp images are, in [0, 1): v / (v + half), v the variance of the Laplacian of their luma.

    A measure of the picture and not of the face: noise and JPEG blocks count as sharp.

    Args:
      x: [B, H, W, 3] float32 in [0, 1]. half: variance, grey levels squared, at which it is one half.

    Returns:
      [B] float32.
    """
    luma = 255.0 * (0.299 * x[..., 0] + 0.587 * x[..., 1] + 0.114 * x[..., 2])
    around = luma[:, :-2, 1:-1] + luma[:, 2:, 1:-1] + luma[:, 1:-1, :-2] + luma[:, 1:-1, 2:]
    variance = (around - 4.0 * luma[:, 1:-1, 1:-1]).var((1, 2))
    return variance / (variance + half)


def augment(key, x, *, numbers=None, one_by_one=None, **cfg) -> jax.Array:
    """Photometric augmentation of a batch for training.

    Args:
      key: typed key. x: [B, H, W, 3] float32 in [0, 1]. one_by_one: see `filters.over_rows`.
      numbers: int32 [B], rows of one number are augmented alike; None for 0 to B - 1, each sample for itself.
      **cfg: keywords of `augment_planes`.

    Returns:
      [B, H, W, 3] float32 in [0, 1]. Row i depends on the key and on its number, not on B.
    """
    numbers = jnp.arange(x.shape[0]) if numbers is None else numbers
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers)

    def one(row):
        return jnp.moveaxis(augment_planes(row[0], jnp.moveaxis(row[1], -1, 0), **cfg), 0, -1)

    return filters.over_rows(one, (keys, x), one_by_one)


def augment_planes(
    key,
    planes,
    *,
    blur_prob=0.1,
    blur_kernel=7,
    blur_sigma=(0.1, 2.0),
    downscale_prob=0.3,
    downscale_factors=(2, 4),
    downscale_with="nearest",
    noise_prob=0.0,
    noise_sigma=(0.0, 0.03),
    shift_prob=0.0,
    color_shift=20.0,
    tone_prob=1.0,
    brightness=0.1,
    contrast=0.1,
    jpeg_prob=0.7,
    jpeg_quality=(40, 100),
) -> jax.Array:
    """Blur, re-sampling, noise, colour shift, brightness and contrast, JPEG, in this order, each with its probability.

    The defaults are those of GenD (reference: section 6) with the JPEG probability held at 0.7, so that
    frequency cues survive, and the downscaling of clip_cross_domain B8. Ranges are drawn from uniformly.

    Args:
      key: typed key. planes: [3, H, W] float32 in [0, 1].
      blur_prob, blur_kernel, blur_sigma: kernel size and range of sigma in pixels.
      downscale_prob, downscale_factors, downscale_with: see `down_up_planes`.
      noise_prob, noise_sigma: range of the deviation, unit of the image.
      shift_prob, color_shift: largest shift of a channel, each its own, grey levels (SBI, step 5).
      tone_prob, brightness, contrast: largest shift and relative gain.
      jpeg_prob, jpeg_quality: lowest and highest quality, both included.

    Returns:
      [3, H, W] float32 in [0, 1].

    Raises:
      ValueError: a probability outside [0, 1], a range out of order, an even kernel or no factor.
    """
    chances = {"blur": blur_prob, "downscale": downscale_prob, "noise": noise_prob, "tone": tone_prob}
    chances |= {"jpeg": jpeg_prob, "shift": shift_prob}
    ranges = {"blur_sigma": blur_sigma, "noise_sigma": noise_sigma, "jpeg_quality": jpeg_quality}
    _check_augment(chances, ranges, blur_kernel, downscale_factors)
    # The shift has draws of its own, so that those of the others do not depend on it.
    draw, shifts = jax.random.uniform(jax.random.fold_in(key, 0), (11,)), jax.random.fold_in(key, 2)
    shifts = jax.random.uniform(shifts, (4,), minval=-1.0)
    wanted = {name: u < chances[name] for name, u in zip(("blur", "downscale", "noise", "tone", "jpeg"), draw)}
    wanted["shift"] = (shifts[3] + 1.0) / 2.0 < shift_prob
    draw = draw[5:]

    def between(u, low, high):
        return low + (high - low) * u

    def downscale(p):
        index = 1 + jnp.floor(draw[1] * len(downscale_factors)).astype(jnp.int32)
        return choose_factor(p, index, downscale_factors, downscale_with)

    def add_noise(p):
        noise = _normal(jax.random.fold_in(key, 1), p.shape)
        return jnp.clip(p + between(draw[2], *noise_sigma) * noise, 0.0, 1.0)

    steps = {
        "blur": lambda p: blur_planes(p, float(blur_kernel), between(draw[0], *blur_sigma)),
        "downscale": downscale,
        "noise": add_noise,
        "shift": lambda p: jnp.clip(p + (color_shift / 255.0 * shifts[:3])[:, None, None], 0.0, 1.0),
        "tone": lambda p: adjust_tone(
            p, between(draw[3], -brightness, brightness), between(draw[4], -contrast, contrast)
        ),
        "jpeg": lambda p: jpeg_planes(p, jnp.floor(between(draw[5], jpeg_quality[0], jpeg_quality[1] + 1))),
    }
    for name, step in steps.items():
        if chances[name] > 0.0:
            planes = jax.lax.cond(wanted[name], step, lambda p: p, planes)
    return planes


def _check_augment(chances, ranges, blur_kernel, downscale_factors):
    for name, chance in chances.items():
        if not 0.0 <= chance <= 1.0:
            raise ValueError(f"{name}_prob is {chance}, expected a probability in [0, 1]")
    for name, (low, high) in ranges.items():
        if low > high:
            raise ValueError(f"{name} is ({low}, {high}), expected (lowest, highest)")
    if blur_kernel < 1 or blur_kernel % 2 == 0:
        raise ValueError(f"blur_kernel is {blur_kernel}, expected an odd number of pixels")
    if not downscale_factors:
        raise ValueError("downscale_factors is empty; to leave re-sampling out, set downscale_prob to 0")

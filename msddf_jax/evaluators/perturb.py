"""Published perturbations of an image on the device, with the levels at which they are reported.

Functions take float32 [B, H, W, 3] in [0, 1] and give the same; random ones take the key first. The published codes
work on uint8 images in OpenCV: whoever scores the result rounds it to 256 levels, as a stored image has them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.synth import degrade, filters

KERNELS = ("nearest", "linear", "cubic", "area", "lanczos4")
_HALF = 0.5 + 1.0 / 1024.0


def _always(level, size):
    return True


class Perturbation(NamedTuple):
    """A row of a robustness table: one perturbation at its levels.

    name: of the row. levels: what `fn` takes, one a column, the mildest first.
    fn: by kind. "device": (x, level) and "random": (key, x, level), float32 [B, H, W, 3] on the device; "image":
      (uint8 [H, W, 3], level) and "clip": (uint8 [T, H, W, 3], level) on the host; "attack": see `attack.attacks`.
    about, unit: in a few words, what is done and what the level is.
    static: whether the level shapes the computation (compiled anew for each) or is an argument of it.
    changes: (level, (height, width)) -> whether that level touches an image of that size at all.
    """

    name: str
    levels: tuple
    fn: Callable[..., Any]
    about: str
    unit: str
    kind: str = "device"
    static: bool = False
    changes: Callable[[Any, tuple], bool] = _always


def saturate_color(x, share) -> jax.Array:
    """Colour saturation, CS: chroma times `share` about the luma grey; 0 is grey. Source: DeeperForensics-1.0.

    Args:
      x: [B, H, W, 3] float32 in [0, 1]. share: scalar or [B].
    """
    return degrade.scale_saturation(x, share)


def scale_contrast(x, share) -> jax.Array:
    """Colour contrast, CC: every channel times `share`, towards black. Source: DeeperForensics-1.0.

    Args:
      x: [B, H, W, 3] float32 in [0, 1]. share: scalar or [B], in [0, 1].
    """
    return x * jnp.asarray(share, jnp.float32)[..., None, None, None]


def block_wise(key, x, count) -> jax.Array:
    """Local block-wise, BW: count * floor(min(H, W) / 256) random 8 x 8 blocks become grey 128.

    Below 256 pixels that is no block at all: the published definition leaves smaller crops as they are.

    Args:
      key: typed key. x: [B, H, W, 3] float32 in [0, 1]. count: whole number (Python), blocks at 256 pixels.

    Source: DeeperForensics-1.0.
    """
    count = count * (min(x.shape[1:3]) // 256)
    return degrade.block_out(key, x, count, max_blocks=count) if count else x


def noise_color(key, x, variance) -> jax.Array:
    """Gaussian noise in colour, GNC: deviation sqrt(variance) in each channel of studio-range YCbCr.

    Args:
      key: typed key. x: [B, H, W, 3] float32 in [0, 1]. variance: scalar or [B].

    Source: DeeperForensics-1.0.
    """
    return degrade.color_noise(key, x, variance)


def blur_sixth(x, kernel_size) -> jax.Array:
    """Gaussian blur, GB: `cv2.GaussianBlur` with sigma = kernel_size / 6. Source: DeeperForensics-1.0.

    Args:
      x: [B, H, W, 3] float32 in [0, 1]. kernel_size: scalar or [B], odd, pixels, at most 2 min(H, W) - 1.
    """
    kernel_size = jnp.asarray(kernel_size, jnp.float32)
    return degrade.gaussian_blur(x, kernel_size, kernel_size / 6.0)


def pixelate(x, factor) -> jax.Array:
    """What DeeperForensics-1.0 calls JPEG: bilinear to floor(size / factor) pixels, and back.

    Args:
      x: [B, H, W, 3] float32 in [0, 1]. factor: whole number (Python) >= 1.
    """
    height, width = x.shape[1:3]
    small = resize(x, max(height // factor, 1), max(width // factor, 1), "linear")
    return resize(small, height, width, "linear")


def compress_frame(x, quality) -> jax.Array:
    """VC~: JPEG of each frame by itself, where the video that VC compresses is not there.

    Args:
      x: [B, H, W, 3] float32 in [0, 1]. quality: scalar or [B], libjpeg's 1 to 100.
    """
    return degrade.jpeg(x, quality)


def blur(x, level) -> jax.Array:
    """Gaussian blur of kernel size and sigma given. Source: GenD.

    Args:
      x: [B, H, W, 3] float32 in [0, 1]. level: (kernel size, odd; sigma in pixels); (0, 0) changes nothing.
    """
    kernel_size, sigma = jnp.asarray(level, jnp.float32)
    return degrade.gaussian_blur(x, jnp.maximum(kernel_size, 1.0), jnp.maximum(sigma, 1e-3))


def noise(key, x, sigma) -> jax.Array:
    """Gaussian noise by pixel and channel, deviation `sigma` in the unit of the image. Source: GenD.

    Args:
      key: typed key. x: [B, H, W, 3] float32 in [0, 1]. sigma: scalar or [B].
    """
    return degrade.gaussian_noise(key, x, sigma)


def resize_to(kernel) -> Callable[[jax.Array, int], jax.Array]:
    """A function (x, side): x [B, H, W, 3] to side x side with `kernel`, then to H x W again with "cubic".

    GenD hands the small image to CLIP's processor, which enlarges it with a cubic kernel; here the detector keeps
    the size of input that it was compiled for. A side of H or more leaves the image as it is.
    """

    def resize_square(x, side):
        if not shrinks(side, x.shape[1:3]):
            return x
        return resize(resize(x, side, side, kernel), *x.shape[1:3], "cubic")

    return resize_square


def shrinks(side, size) -> bool:
    """Whether `side` x `side` is smaller than (height, width) on both axes."""
    return side < min(size)


def round_trip(down, up, passes=1) -> Callable[[jax.Array, float], jax.Array]:
    """A function (x, share): each pass down to `share` of the sides with kernel `down`, and up again with `up`.

    The image has 256 levels between the steps, as a file between two programs has. With passes=None the level
    is the number of passes, at a share of one half.
    """

    def rescale(x, level):
        count, share = (level, 0.5) if passes is None else (passes, level)
        height, width = x.shape[1:3]
        small = max(round(height * share), 1), max(round(width * share), 1)
        for _ in range(count):
            x = resize(resize(x, *small, down), height, width, up)
        return x

    return rescale


def screenshot_twice(x, level) -> jax.Array:
    """A screenshot of a screenshot; the definition is this project's own, no published one is known to it.

    Each of two passes: enlarged or reduced to `scale` (linear), shown by a screen of relative exponent `gamma`,
    stored with `bits` a channel, saved as JPEG (4:2:0) of `quality`, and brought back to the size it had (area where
    that reduces, else linear).

    Args:
      x: [B, H, W, 3] float32 in [0, 1]. level: (scale, gamma, bits, quality), Python numbers.
    """
    scale, gamma, bits, quality = level
    height, width = x.shape[1:3]
    shown = max(round(height * scale), 1), max(round(width * scale), 1)
    steps = 2**bits - 1
    for _ in range(2):
        screen = resize(x, *shown, "linear") ** gamma
        saved = degrade.jpeg(jnp.round(screen * steps) / steps, quality)
        x = resize(saved, height, width, "area" if scale > 1 else "linear")
    return x


def resize(x, height, width, kernel) -> jax.Array:
    """`cv2.resize` of a batch of uint8 images, to one grey level.

    Args:
      x: [B, H, W, C] float32 in [0, 1], multiples of 1 / 255. height, width: of the result. kernel: of `KERNELS`; no
        antialiasing but for "area", which only reduces.

    Returns:
      [B, height, width, C] float32 in [0, 1], multiples of 1 / 255.

    Raises:
      ValueError: an unknown kernel, or "area" to a larger size.
    """
    # OpenCV takes the mean of four where both sides are halved.
    halved = x.shape[1] == 2 * height and x.shape[2] == 2 * width
    if kernel == "linear" and not halved:
        return _resize_fixed_point(x, height, width)
    rows = resize_matrix(x.shape[1], height, kernel)
    cols = resize_matrix(x.shape[2], width, kernel)
    planes = jnp.matmul(rows, jnp.moveaxis(x, -1, 1), precision=filters.PRECISION)
    planes = jnp.matmul(planes, cols.T, precision=filters.PRECISION)
    return to_uint8(jnp.moveaxis(planes, 1, -1)).astype(jnp.float32) / 255.0


def _resize_fixed_point(x, height, width):
    """Bilinear in the whole numbers of OpenCV: weights in 1 / 2048, the sum of the rows cut and not rounded.

    The cuts darken by a quarter of a level, which the second of two resizes would make two levels somewhere.
    """
    (top, bottom, upper, lower), (left, right, near, far) = (
        _fixed_point_taps(x.shape[axis], size) for axis, size in ((1, height), (2, width))
    )
    levels = to_uint8(x).astype(jnp.int32)
    levels = (levels[:, :, left] * near[:, None] + levels[:, :, right] * far[:, None]) >> 4
    weigh = lambda rows, weight: (levels[:, rows] * weight[:, None, None]) >> 16
    return ((weigh(top, upper) + weigh(bottom, lower) + 2) >> 2).astype(jnp.float32) / 255.0


def _fixed_point_taps(size_in, size_out):
    """(low, high, weight of low, weight of high), int32 [size_out], the weights in 1 / 2048."""
    position = np.clip((np.arange(size_out) + 0.5) * (size_in / size_out) - 0.5, 0, size_in - 1).astype(np.float32)
    low = np.floor(position).astype(np.int32)
    share = (position - low).astype(np.float32)
    weights = [np.rint(2048 * w).astype(np.int32) for w in (np.float32(1.0) - share, share)]
    return low, np.minimum(low + 1, size_in - 1), *weights


def resize_matrix(size_in, size_out, kernel) -> np.ndarray:
    """[size_out, size_in] float32: OpenCV's weights of one axis; see `resize`."""
    scale = size_in / size_out
    matrix = np.zeros((size_out, size_in), np.float64)
    out = np.arange(size_out)
    if kernel == "nearest":
        # 1 / (out / in) and not in / out: they differ in the last bit, and OpenCV rounds down the first.
        matrix[out, np.minimum(np.floor(out * (1.0 / (size_out / size_in))).astype(int), size_in - 1)] = 1.0
    elif kernel == "area":
        if size_out > size_in:
            raise ValueError(f"kernel 'area' only reduces, asked for {size_in} -> {size_out} pixels")
        start, pixel = out[:, None] * scale, np.arange(size_in)[None, :]
        overlap = np.minimum(start + scale, pixel + 1.0) - np.maximum(start, pixel)
        matrix = np.clip(overlap, 0.0, None) / scale
    elif kernel in _WEIGHTS:
        radius, weight = _WEIGHTS[kernel]
        position = (out + 0.5) * scale - 0.5
        offsets = np.arange(1 - radius, radius + 1)
        taps = np.floor(position)[:, None] + offsets
        weights = weight(np.abs(taps - position[:, None]))
        weights /= weights.sum(axis=1, keepdims=True)
        np.add.at(matrix, (out[:, None], np.clip(taps, 0, size_in - 1).astype(int)), weights)
    else:
        raise ValueError(f"kernel is {kernel!r}, allowed: {KERNELS}")
    return matrix.astype(np.float32)


def _cubic(distance, a=-0.75):
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


# Radius in pixels, and the weight at a distance >= 0.
_WEIGHTS = {
    "linear": (1, lambda d: np.maximum(1 - d, 0)),
    "cubic": (2, _cubic),
    "lanczos4": (4, lambda d: np.where(d < 4, np.sinc(d) * np.sinc(d / 4), 0.0)),
}


@jax.jit
def to_uint8(x) -> jax.Array:
    """float [0, 1] -> uint8, the nearest of 256 levels; halves up, as OpenCV, also where float32 is just below."""
    return jnp.floor(255.0 * jnp.clip(x, 0.0, 1.0) + _HALF).astype(jnp.uint8)


def _has_blocks(level, size):
    return min(size) >= 256


# The values of the original code. Its VC, a video codec, is in `recompress`. SJEDD trains on the mildest two or three
# levels of BW, GNC, GB and JPEG: a detector trained that way has seen those columns.
DEEPERFORENSICS = (
    Perturbation("CS", (0.4, 0.3, 0.2, 0.1, 0.0), saturate_color, "colour saturation", "share of chroma kept"),
    Perturbation("CC", (0.85, 0.725, 0.6, 0.475, 0.35), scale_contrast, "colour contrast", "share of brightness kept"),
    Perturbation(
        "BW", (16, 32, 48, 64, 80), block_wise, "8x8 grey blocks", "number per 256 px of side",
        "random", static=True, changes=_has_blocks,
    ),
    Perturbation("GNC", (0.001, 0.002, 0.005, 0.01, 0.05), noise_color, "Gaussian YCbCr noise", "variance", "random"),
    Perturbation("GB", (7, 9, 13, 17, 21), blur_sixth, "Gaussian blur, sigma a sixth of the kernel", "kernel, px"),
    Perturbation("JPEG", (2, 3, 4, 5, 6), pixelate, "pixelation (named JPEG there)", "factor", static=True),
)  # fmt: skip
VC_FRAMES = Perturbation(
    "VC~", (70, 60, 50, 40, 30), compress_frame, "JPEG of each frame, for VC: the frames form no clip", "quality"
)
# GenD's sixth kernel, OpenCV's exact bilinear, is "linear" to one grey level. Its JPEG is in `recompress`.
GEND = (
    Perturbation(
        "blur", ((0, 0), (5, 0.5), (7, 1.0), (11, 1.5), (13, 2.0), (19, 3.0)), blur, "Gaussian blur",
        "kernel, sigma, px", changes=lambda level, size: level[0] > 1,
    ),
    *(
        Perturbation(
            f"resize {kernel}", (224, 112, 64), resize_to(kernel), f"reduced with kernel {kernel}", "side, px",
            static=True, changes=shrinks,
        )
        for kernel in KERNELS
    ),
    Perturbation(
        "noise", (0.0, 0.01, 0.03, 0.05, 0.1, 0.2), noise, "Gaussian noise", "deviation in [0, 1]", "random",
        changes=lambda level, size: level > 0,
    ),
)  # fmt: skip
_SHARES = (0.75, 0.5, 0.35, 0.25)
RESIZE = (
    *(
        Perturbation(
            f"{down}-{up}", _SHARES, round_trip(down, up), f"down with {down}, up with {up}", "share of the sides",
            static=True,
        )
        for down, up in (("area", "cubic"), ("linear", "linear"), ("cubic", "lanczos4"), ("nearest", "linear"))
    ),
    Perturbation(
        "chain", (1, 2, 3, 4), round_trip("area", "linear", passes=None), "down to half (area) and up (linear)",
        "number of times", static=True,
    ),
)  # fmt: skip
SCREENSHOT = (
    Perturbation(
        "screenshot",
        ((1.5, 1.05, 8, 90), (1.5, 1.1, 7, 80), (1.25, 1.15, 6, 70), (0.75, 1.2, 6, 60), (0.5, 1.25, 5, 50)),
        screenshot_twice, "screenshot of a screenshot (own definition)", "scale, gamma, bits, quality", static=True,
    ),
)  # fmt: skip

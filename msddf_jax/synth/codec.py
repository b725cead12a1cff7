"""H.264 in the train step: what coding and decoding do to a frame, for any QP, differentiable.

An intra frame of one QP (ITU-T H.264, 8-bit 4:2:0, High profile) with the standard's transforms, steps, chroma QP,
prediction modes and deblocking filter. Prediction from decoded pixels, which a decoder does one block after the other,
is solved by a few passes over all blocks at once: each predicts from what the pass before decoded, the first one from
the source. The choices of an encoder, of which the standard says nothing, follow x264's costs with a guess at the bits;
benchmarks/codec.py measures how near that comes to x264 itself. There are no predicted frames: an image has no other.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from msddf_jax.synth import deblock, degrade, filters, intra

QP_RANGE = (0, 51)
# Table 8-15: chroma QP of luma QP 30 to 51; below it is the same.
_CHROMA_QP = np.array([*range(30), 29, 30, 31, 32, 32, 33, 34, 34, 35, 35, 36, 36, 37, 37, 37, *[38] * 3, *[39] * 4])
# x264 writes this chroma_qp_offset where its psychovisual costs are on, as they are by default.
_CHROMA_OFFSET = -2
# BT.601, studio range: grey levels of Y, Cb, Cr (rows) from R, G, B in [0, 1].
_YCC_FROM_RGB = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]], np.float32)
_OFFSETS = np.array([16.0, 128.0, 128.0], np.float32)[:, None, None]
# Grey levels of R, G, B (rows) from Y - 16, Cb - 128, Cr - 128, as FFmpeg's swscale has them on x86: products of 13
# bits, each rounded down.
_RGB_FROM_YCC = np.array([[9539, 0, 13075], [9539, -3209, -6660], [9539, 16525, 0]], np.float32) / 8192.0
# Passes that predict from the one before. More change what is decoded and do not bring it nearer to x264; chroma, a
# third of the work of one kind of luma block, gains until the fourth.
_PASSES, _CHROMA_PASSES = 2, 4
# x264's price of a bit, 0.9 * 2^((QP - 12) / 3) squared grey levels, in squares of the step 2^((QP - 4) / 6).
_PRICE = 0.9 * 2.0 ** (-8.0 / 3.0)
# Bits of a first level (at the lowest frequency, and more at the highest) and of each doubling; what rounding to the
# level below is worth; price of a mode's bit where modes are compared by absolute differences. By benchmarks/codec.py.
_FIRST_BITS, _HIGH_BITS, _DOUBLING_BITS = 1.5, 1.5, 1.5
_ROUNDING = 0.43
_MODE_PRICE = 0.1


class _Blocks(NamedTuple):
    """One way to code blocks of `side` x `side` pixels, K in all.

    transform [K, K]. predict [modes, K, 3 side + 1]: transformed predictions. first_bits [K]: of a first level.
    mode_bits: of each mode; None where the neighbours' modes say which one is likely.
    """

    side: int
    transform: np.ndarray
    predict: np.ndarray
    first_bits: np.ndarray
    mode_bits: tuple | None


def quantizer_step(qp) -> jax.Array:
    """Qstep of the standard for whole QP in [0, 51]: 0.625 at 0, doubling every six. Shape of qp, float32."""
    base = jnp.array([0.625, 0.6875, 0.8125, 0.875, 1.0, 1.125])
    qp = jnp.asarray(qp).astype(jnp.int32)
    return base[qp % 6] * 2.0 ** (qp // 6).astype(jnp.float32)


def chroma_qp(qp) -> jax.Array:
    """QP of chroma for a luma QP in [0, 51] (table 8-15), with x264's offset of -2. Shape of qp, int32."""
    return jnp.asarray(_CHROMA_QP)[jnp.clip(jnp.asarray(qp).astype(jnp.int32) + _CHROMA_OFFSET, 0, 51)]


def transform_matrix(n) -> np.ndarray:
    """Orthonormal form of the standard's integer transform: float32 [n, n], rows are frequencies; n is 4 or 8."""
    if n == 4:
        rows = np.array([[1, 1, 1, 1], [2, 1, -1, -2], [1, -1, -1, 1], [1, -2, 2, -1]], np.float64)
    else:
        odd = np.array([[12, 10, 6, 3], [10, -3, -12, -6], [6, -12, 3, 10], [3, -6, 10, -12]])
        even = np.array([[8, 8, 8, 8], [8, 4, -4, -8], [8, -8, -8, 8], [4, -8, 8, -4]])
        rows = np.empty((8, 8))
        rows[1::2], rows[::2] = np.hstack([odd, -odd[:, ::-1]]), np.hstack([even, even[:, ::-1]])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def _joined_transform(count):
    """count x count blocks of 4 x 4, their means transformed once more: 16 x 16 luma (4) and 8 x 8 chroma (2)."""
    each = np.kron(np.eye(count), transform_matrix(4))
    both = np.kron(each, each)
    hadamard = np.array([[1.0, 1.0], [1.0, -1.0]]) / np.sqrt(2.0)
    hadamard = np.kron(hadamard, hadamard) if count == 4 else hadamard
    means = np.array([4 * (4 * count) * y + 4 * x for y in range(count) for x in range(count)])
    both[means] = np.kron(hadamard, hadamard) @ both[means]
    return both.astype(np.float32)


def _make_blocks(side, matrices, transform, transformed, mode_bits):
    """`_Blocks`; matrices: of `intra`. transformed: side of what is transformed, for the frequencies."""
    one = np.arange(side) % transformed
    share = (one[:, None] + one[None, :]).ravel() / (2.0 * (transformed - 1))
    predict = np.einsum("ij,mjk->mik", transform, matrices).astype(np.float32)
    return _Blocks(side, transform, predict, (_FIRST_BITS + _HIGH_BITS * share).astype(np.float32), mode_bits)


_SMALL, _MIDDLE = (
    _make_blocks(n, intra.luma_matrices(n), np.kron(transform_matrix(n), transform_matrix(n)), n, None) for n in (4, 8)
)
_WHOLE = _make_blocks(16, intra.luma_matrices(16), _joined_transform(4), 4, (1.0, 3.0, 3.0, 5.0))
_CHROMA = _make_blocks(8, intra.chroma_matrices(), _joined_transform(2), 4, (1.0, 3.0, 3.0, 5.0))
_LUMA = (_SMALL, _MIDDLE, _WHOLE)


def _product(blocks, matrix):
    return jnp.einsum("...i,ji->...j", blocks, matrix, precision=filters.PRECISION)


def _to_blocks(planes, n):
    """[P, H, W] -> [P, H / n, W / n, n * n]."""
    count, height, width = planes.shape
    blocks = planes.reshape(count, height // n, n, width // n, n).transpose(0, 1, 3, 2, 4)
    return blocks.reshape(count, height // n, width // n, n * n)


def _to_planes(blocks, n):
    count, rows, cols, _ = blocks.shape
    return blocks.reshape(count, rows, cols, n, n).transpose(0, 1, 3, 2, 4).reshape(count, rows * n, cols * n)


def _quantize(residual, step, first_bits):
    """Coefficients [..., K] as they are decoded, and what a block costs [...], in squares of the step.

    Levels that cost more than they save are left out, first one by one and then all of a block together.
    """
    size = jnp.abs(residual) / step
    level = jnp.floor(size + _ROUNDING)
    level = jnp.where((level < 1.5) & (size < 0.5 + 0.5 * _PRICE * first_bits), 0.0, level)
    bits = jnp.where(level > 0.0, first_bits + _DOUBLING_BITS * jnp.log2(jnp.maximum(level, 1.0)), 0.0)
    coded = (jnp.square(size - level) + _PRICE * bits).sum(-1)
    nothing = jnp.square(size).sum(-1)
    level = jnp.where((coded < nothing)[..., None], level, 0.0)
    return jnp.sign(residual) * level * step, jnp.minimum(coded, nothing)


def _likely_modes(modes):
    """The mode that the neighbours' make likely (8.3.1.1): the lower one of left and above, 2 (DC) at the border."""
    left = jnp.pad(modes[:, :-1], ((0, 0), (1, 0)), constant_values=2)
    above = jnp.pad(modes[:-1], ((1, 0), (0, 0)), constant_values=2)
    border = (np.arange(modes.shape[0]) == 0)[:, None] | (np.arange(modes.shape[1]) == 0)
    return jnp.where(border, 2, jnp.minimum(left, above))


def _code_blocks(coefficients, decoded, modes, step, kind):
    """One pass: (planes decoded anew, cost of each block, its mode). The P planes share their modes [rows, cols]."""
    lines = jnp.stack([intra.neighbour_lines(plane, kind.side) for plane in decoded])
    guesses = jnp.einsum("prck,mik->prcmi", lines, kind.predict, precision=filters.PRECISION)
    # Only the plane modes can leave the range, where the standard clips them; here what is decoded is clipped.
    numbers = np.arange(len(kind.predict))
    if kind.mode_bits is None:
        bits = 4.0 - 3.0 * (numbers == _likely_modes(modes)[..., None])
    else:
        bits = jnp.broadcast_to(jnp.array(kind.mode_bits), (*modes.shape, len(numbers)))
    off = jnp.abs(coefficients[..., None, :] - guesses).sum((0, -1))
    modes = jnp.argmin(off + _MODE_PRICE * step * bits, axis=-1)
    chosen = (numbers == modes[..., None]).astype(jnp.float32)
    guess = (guesses * chosen[..., None]).sum(-2)
    kept, cost = _quantize(coefficients - guess, step, kind.first_bits)
    blocks = jnp.clip(jnp.round(_product(guess + kept, kind.transform.T)), 0.0, 255.0)
    return _to_planes(blocks, kind.side), cost.sum(0) + _PRICE * (bits * chosen).sum(-1), modes


def _code_luma(luma, qp):
    """[1, H, W] whole numbers -> the same decoded; each macroblock takes the kind of blocks that costs it least."""
    step = quantizer_step(qp)
    coefficients = [_product(_to_blocks(luma, kind.side), kind.transform) for kind in _LUMA]
    modes = [jnp.full(found.shape[1:3], 2) for found in coefficients]
    decoded = luma
    for _ in range(_PASSES):
        costs, planes = [], []
        for i, kind in enumerate(_LUMA):
            made, cost, modes[i] = _code_blocks(coefficients[i], decoded, modes[i], step, kind)
            side = 16 // kind.side
            costs.append(cost.reshape(cost.shape[0] // side, side, -1, side).sum((1, 3)))
            planes.append(made)
        best = jnp.argmin(jnp.stack(costs), axis=0)
        where = jnp.repeat(jnp.repeat(best, 16, axis=0), 16, axis=1)
        decoded = jnp.where(where == 0, planes[0], jnp.where(where == 1, planes[1], planes[2]))
    return deblock.deblock_luma(decoded[0], qp, best != 1)[None]


def _code_chroma(chroma, qp):
    """[2, H, W] whole numbers -> the same decoded; qp is chroma's own."""
    coefficients = _product(_to_blocks(chroma, _CHROMA.side), _CHROMA.transform)
    modes, decoded = jnp.zeros(coefficients.shape[1:3], jnp.int32), chroma
    for _ in range(_CHROMA_PASSES):
        decoded, _, modes = _code_blocks(coefficients, decoded, modes, quantizer_step(qp), _CHROMA)
    return deblock.deblock_chroma(decoded, qp)


def _through(before, after):
    """`after`, with the derivative of `before` (straight-through estimator)."""
    return before + jax.lax.stop_gradient(after - before)


def _to_ycc(planes):
    """[3, H, W] in [0, 1] -> luma [1, H, W] and chroma [2, H / 2, W / 2], whole numbers, as swscale makes yuv420p."""
    ycc = jnp.tensordot(_YCC_FROM_RGB, planes, 1, precision=filters.PRECISION) + _OFFSETS
    chroma = (ycc[1:, :, ::2] + ycc[1:, :, 1::2]) / 2.0
    grown = jnp.pad(chroma, ((0, 0), (1, 1), (0, 0)), mode="edge")
    half = (grown[:, :-2:2] + 3.0 * grown[:, 1:-1:2] + 3.0 * grown[:, 2::2] + grown[:, 3::2]) / 8.0
    return _through(ycc[:1], jnp.round(ycc[:1])), _through(half, jnp.round(half))


def _to_rgb(luma, chroma):
    """The way back; each chroma sample is that of four pixels."""
    ycc = jnp.concatenate([luma, jnp.repeat(jnp.repeat(chroma, 2, axis=1), 2, axis=2)]) - _OFFSETS
    products = _RGB_FROM_YCC[:, :, None, None] * ycc
    return jnp.clip(_through(products, jnp.floor(products)).sum(1) / 255.0, 0.0, 1.0)


def h264_planes(planes, qp) -> jax.Array:
    """`h264` of one image: planes [3, H, W] float32 in [0, 1], qp a scalar."""
    _, height, width = planes.shape
    planes = degrade.pad_edge(jnp.clip(planes, 0.0, 1.0), -(-height // 16) * 16, -(-width // 16) * 16)
    luma, chroma = _to_ycc(planes)
    coded = _code_luma(jax.lax.stop_gradient(luma), qp), _code_chroma(jax.lax.stop_gradient(chroma), chroma_qp(qp))
    return _to_rgb(_through(luma, coded[0]), _through(chroma, coded[1]))[:, :height, :width]


@functools.partial(jax.jit, static_argnames="one_by_one")
def h264(x, qp, one_by_one=None) -> jax.Array:
    """H.264 and back, as an intra frame of one QP; every rounding and choice has the derivative of the identity.

    Args:
      x: [B, H, W, 3] float32 in [0, 1], any H and W (grown to whole macroblocks by repeating the edge, and cut again).
      qp: [B] or scalar, whole numbers 0 to 51. one_by_one: see `filters.over_rows`.

    Returns:
      [B, H, W, 3] float32 in [0, 1], multiples of 1 / 255.
    """
    return degrade.planewise(h264_planes, x, qp, one_by_one=one_by_one)

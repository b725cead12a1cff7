import numpy as np
import pytest

from msddf_jax.weights.positions import resample


def _draw(rows, width=5):
    return np.random.default_rng(0).normal(size=(rows, width)).astype(np.float32)


def test_the_old_grid_comes_back_unchanged():
    positions = _draw(1 + 16)
    np.testing.assert_array_equal(resample(positions, 4), positions)


def test_constant_and_class_row_stay():
    positions = np.concatenate([_draw(1), np.full((9, 5), 0.25, np.float32)])
    for grid in (1, 2, 7):
        out = resample(positions, grid)
        assert out.shape == (1 + grid * grid, 5) and out.dtype == np.float32
        np.testing.assert_array_equal(out[0], positions[0])
        np.testing.assert_allclose(out[1:], 0.25, rtol=1e-6)


def test_two_rows_to_one_by_hand():
    # Scale 2 widens the kernel to [-4, 4]: both old centres are 0.25 of a radius-2 kernel away, so they weigh the same.
    np.testing.assert_allclose(resample(np.float32([[1], [3], [5], [11]]), 1, prefix=0), [[5]])


def test_rows_and_columns_are_not_swapped():
    rows = np.repeat(np.arange(3, dtype=np.float32), 3)[:, None]
    out = resample(rows, 6, prefix=0).reshape(6, 6)
    assert (np.diff(out, axis=0) > 0).all()
    np.testing.assert_allclose(out, out[:, :1].repeat(6, 1))


@pytest.mark.parametrize(("old", "new"), [(7, 14), (14, 7), (16, 24), (24, 16), (14, 37), (37, 14), (3, 4)])
def test_equals_torch_bicubic_with_antialiasing(old, new):
    torch = pytest.importorskip("torch", reason="parity needs the [torch] extra")
    positions = _draw(1 + old * old)
    image = torch.from_numpy(positions[1:]).reshape(1, old, old, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(
        image, size=(new, new), mode="bicubic", antialias=True, align_corners=False
    )
    expected = expected.permute(0, 2, 3, 1).reshape(new * new, -1).numpy()
    np.testing.assert_allclose(resample(positions, new)[1:], expected, atol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match=r"\[1 \+ N, d\].*\[16, 5\]"):
        resample(_draw(16), 4)
    with pytest.raises(ValueError, match=r"\[0 \+ N, d\].*\[17, 5\]"):
        resample(_draw(17), 4, prefix=0)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        resample(_draw(17), 0)

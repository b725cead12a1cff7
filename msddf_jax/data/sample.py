"""A few records of a set, evenly spread, in batches of one shape: for looking at a model, not for scoring a set."""

from collections.abc import Iterator

import numpy as np

from msddf_jax.data import pipeline


def spread(indices, number) -> np.ndarray:
    """At most `number` of the indices, evenly spread over them, first and last among them.

    Args:
      indices: int [N]. number: at least 1, or None for all.

    Raises:
      ValueError: number < 1.
    """
    indices = np.asarray(indices, np.int64)
    if number is None or number >= len(indices):
        return indices
    if number < 1:
        raise ValueError(f"expected to take at least 1 record, got {number}")
    return indices[np.linspace(0, len(indices) - 1, number).astype(np.int64)]


def batches(source, indices, batch_size) -> Iterator[tuple[dict, int]]:
    """Yields (host batch, number of rows that count); the last batch is filled up with its own last record.

    Args:
      source: `source.Source`. indices: records, in the order they come. batch_size: rows of every batch.
    """
    image_size = source.image_size
    for start in range(0, len(indices), batch_size):
        rows = [int(i) for i in indices[start : start + batch_size]]
        filled = rows + rows[-1:] * (batch_size - len(rows))
        yield pipeline.collect(source, filled, image_size=image_size), len(rows)

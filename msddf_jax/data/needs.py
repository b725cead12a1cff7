"""Whether a training set has what a detector cannot do without: masks, landmarks, pairs, identities."""

import numpy as np

# {field: (in words, data sets of data_prep that have it)}.
FIELDS = {
    "mask": ("masks of fakes", ("faceforensics", "dfd", "ffiw", "sladd", "dfb")),
    "landmarks": ("landmarks of reals", ("all that are prepared from videos or whole images",)),
    "pair": (
        "fakes with their own real",
        ("faceforensics", "celebdf", "dfd", "dfdc", "dfdcp", "deeperforensics", "deepspeak", "df40", "ffiw", "sladd"),
    ),
    "identity": ("identities", ("faceforensics", "celebdf", "dfd", "deeperforensics", "deepspeak", "uadfv")),
}
# Records that are looked at for what the index does not say.
_LOOKED_AT = 16


def check(name, needs, weights, source) -> None:
    """Raise ValueError where a detector needs what none of a source's records has.

    Args:
      name: of the detector. needs: {field of `FIELDS`: term of the loss that needs it, "" where all does}; a term whose
        weight is 0 or that is not asked for needs nothing. weights: `config.loss_weights`. source: data.source.Source.
    """
    unknown = sorted(set(needs) - set(FIELDS))
    if unknown:
        raise ValueError(f"detector {name!r}: NEEDS names {unknown}, allowed: {', '.join(FIELDS)}")
    for field, term in needs.items():
        if (term and not weights.get(term, 0)) or _has(field, source):
            continue
        words, sets = FIELDS[field]
        way = f", or leave that term out (--config.loss_weights.{term}=0)" if term else ""
        raise ValueError(
            f"detector {name!r} needs {words}{f' for its loss {term}' if term else ''}, and {source.name} has none in "
            f"what was looked at. These sets have them: {', '.join(sets)}. Train on one of them{way}"
        )


def _has(field, source):
    there = source.count > 0
    real = there & (source.videos["label"] == "real")
    if field == "pair":
        return bool(set(source.videos["pair_id"][there].tolist()) & set(source.videos["video_id"][real].tolist()))
    if field == "identity":
        return bool(set(source.videos["target_identity"][there].tolist()) - {""})
    rows = np.flatnonzero(real if field == "landmarks" else there & ~real)
    rows = rows[np.linspace(0, len(rows) - 1, min(len(rows), _LOOKED_AT)).astype(int)]
    return any(bool(source[int(source.first[row])][f"has_{field}"]) for row in rows)

"""The test sets of the cross-data-set table, in its order."""

from configs.common import eval_set

# {name in the table: (built data set, split)}. Which split a paper means is in data_prep/<data set>/README.md.
TEST_SETS = {
    "ff++": ("faceforensics/c23", "test"),
    "ff++_c40": ("faceforensics/c40", "test"),
    "faceshifter": ("faceforensics/c23_fsh", "test"),
    "dfd": ("dfd/c23", "all"),
    "celebdf_v1": ("celebdf/v1", "test"),
    "celebdf_v2": ("celebdf/v2", "test"),
    "celebdf++": ("celebdf/pp", "test"),
    "dfdcp": ("dfdcp/default", "test"),
    "dfdc": ("dfdc/test_only", "test"),
    "deeperforensics": ("deeperforensics/end_to_end", "test"),
    "uadfv": ("uadfv/default", "all"),
    "ffiw_val": ("ffiw/default", "validation"),
    "ffiw_test": ("ffiw/default", "test"),
    "deepspeak": ("deepspeak/v1_1", "test"),
    "wilddeepfake": ("wilddeepfake/default", "test"),
    # The embedded set, for a run of the table without any download.
    "toy": ("faceforensics/toy", "test"),
    "toy_c40": ("faceforensics/toy_c40", "test"),
}

# Those of the data set that the configs train on: means over them and over the others are two figures.
WITHIN = ("ff++", "ff++_c40", "toy", "toy_c40")


def get_test_sets(names):
    """{name: entry of config.evals}. Raises ValueError for names that are not in `TEST_SETS`."""
    unknown = sorted(set(names) - set(TEST_SETS))
    if unknown:
        raise ValueError(f"unknown test sets {unknown}, there are: {', '.join(TEST_SETS)}")
    return {name: eval_set(*TEST_SETS[name]) for name in names}

"""Which images lists of DiFF name."""

from data_prep import listing
from data_prep.diffusionface.downloads import find_listed

CONFIGS = ("list",)


def find(root, config, options):
    """The images that lists of DiFF (Cheng et al. 2024) name; see `diffusionface.downloads.find_listed`."""
    listing.check_config(config, CONFIGS)
    return find_listed(root, "diff", "DiFF", options)

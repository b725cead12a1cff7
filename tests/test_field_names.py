"""Every field that a page names as `config.a.b`, or a command as --config.a.b, is one of some experiment."""

import functools
import re

import doc_pages
import pytest
from ml_collections import ConfigDict

from msddf_jax import experiments

_NAMES = re.compile(r"(?<![\w/.])(?:--)?config\.(\w+(?:\.\w+)*)")
# config.json, and two fields of Scenic's own configs.
_NOT_OURS = {"json", "dataset_name", "dataset_configs"}


def _paths(config, prefix=""):
    """Dotted names of a config's fields and sections."""
    for name, value in config.items():
        yield f"{prefix}{name}"
        if isinstance(value, ConfigDict):
            yield from _paths(value, f"{prefix}{name}.")


@functools.cache
def _fields():
    with_arguments = ["configs/detectors/sjedd.py:so_vit_b32", "configs/detectors/fpg.py:network"]
    configs = [experiments.load(spec) for spec in [*experiments.names(), *with_arguments]]
    return frozenset(path for config in configs for path in _paths(config))


@pytest.mark.parametrize("page", doc_pages.pages(), ids=lambda page: page.relative_to(doc_pages.ROOT).as_posix())
def test_fields_that_a_page_names_are_there(page):
    code = re.findall(r"`([^`\n]+)`|^(python -m .*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    named = {name for part in code for name in _NAMES.findall(part[0] or part[1])}
    assert sorted(named - _fields() - _NOT_OURS) == []


def test_fields_are_found_in_pages():
    page = (doc_pages.ROOT / "docs/howto/coming_from_gend.md").read_text(encoding="utf-8")
    assert {"loss_weights.label", "optim.final_lr", "data.data_dir"} <= set(_NAMES.findall(page))
    assert "loss_weights.feature_uniformity" in _fields() and "loss_weights.uniformity" not in _fields()

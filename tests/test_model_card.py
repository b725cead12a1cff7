"""What a model card says, and what it leaves unsaid rather than guess."""

import pytest

from msddf_jax import model_card

CONFIG = {
    "detector": "baseline",
    "model": {"variant": "B/16", "image_size": 224},
    "data": {"image_size": 256, "preset": "dfb", "group": [1, 1], "train": {"name": "ff", "split": "train"}},
    "evals": {"val": {"name": "ff", "split": "validation"}, "new": {"name": "celebdf", "split": "test"}},
    "select": {"eval": "val", "metric": "video_auc"},
    "init": {"path": ""},
}
RESULTS = {"new/video_auc": 0.5, "_about": {"step": 3, "weights": "best"}}


def card(config=CONFIG, **changes):
    about = {"step": 3, "origin": "best", "choice": {"step": 3, "val/video_auc": 0.9}, "results": RESULTS}
    about |= {"versions": {"training": None, "export": {"jax": "1.2"}}, "num_parameters": 1234}
    return model_card.write_card(config, **(about | {"has_map": False, "tower": None} | changes))


@pytest.mark.parametrize(
    ("path", "licence"),
    [
        ("weights/openai/clip-vit-large-patch14/model.safetensors", "MIT"),
        ("hf://openai/clip-vit-base-patch16", "MIT"),
        ("hf-hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "unknown"),
        ("weights/mine.safetensors", "unknown"),
        ("weights/not-openai/clip-vit-base-patch16/x", "unknown"),
        ("", "no base weights"),
    ],
)
def test_licence_of_the_base_weights(path, licence):
    assert model_card.base_weights(path)[1].startswith(licence)
    assert f"Their licence: {licence}" in card(CONFIG | {"init": {"path": path}})


def test_converted_weights_are_not_called_trained():
    text = card(choice={"step": 0, "converted_from": "gend", "sha256": "ab"}, results=None)
    assert "Not trained here: converted from a published file (format gend, SHA-256 ab)" in text
    assert "Their licence: unknown" in text and "has not been evaluated" in text
    assert "random weights" not in text


def test_figures_of_other_weights_are_left_out():
    assert "| new | celebdf | test | all methods | 50.0 | - | - | - | - |" in card()
    text = card(step=4)
    assert "50.0" not in text and "of the weights 'best' of step 3, and exported are 'best' of step 4" in text
    assert "no validation figure chose them" in card(origin="last", choice=None)


def test_a_detector_without_map_and_clip_says_nothing_of_them():
    text = card()
    assert "`map`" not in text and "backbone.safetensors" not in text
    assert "resizing to the model's own 224 pixels" in text and "[b, 256, 256, 3]" in text
    assert "`map`" in card(has_map=True) and "CLIPVisionConfig(patch_size=16)" in card(tower={"patch_size": 16})
    assert "| jax | unknown | 1.2 |" in text

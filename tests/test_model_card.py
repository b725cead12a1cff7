"""What a model card says, and what it leaves unsaid rather than guess."""

import pytest

from msddf_jax import model_card

CONFIG = {
    "detector": "baseline",
    "model": {"variant": "B/16", "image_size": 224},
    "data": {
        "image_size": 256,
        "preset": "dfb",
        "group": {"real": 1, "fake": 1},
        "train": {"name": "ff", "split": "train"},
    },
    "evals": {"val": {"name": "ff", "split": "validation"}, "new": {"name": "celebdf", "split": "test"}},
    "select": {"eval": "val", "metric": "video_auc"},
    "init": {"backbone": "random"},
    "synth": {"recipe": {"name": "none"}},
}
RESULTS = {"new/video_auc": 0.5, "_about": {"step": 3, "weights": "best"}}


def card(config=CONFIG, **changes):
    about = {"step": 3, "origin": "best", "choice": {"step": 3, "val/video_auc": 0.9}, "results": RESULTS}
    about |= {"versions": {"training": None, "export": {"jax": "1.2"}}, "num_parameters": 1234}
    return model_card.write_card(config, **(about | {"outputs": ("score",), "tower": None} | changes))


@pytest.mark.parametrize(
    ("path", "licence"),
    [
        ("weights/openai/clip-vit-large-patch14/model.safetensors", "MIT"),
        ("hf://openai/clip-vit-base-patch16", "MIT"),
        ("hf-hub:laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "unknown"),
        ("weights/mine.safetensors", "unknown"),
        ("weights/not-openai/clip-vit-base-patch16/x", "unknown"),
        ("hf://openai/clip-vit-large-patch14@32bd64#format=hf_clip&sha256=ab", "MIT"),
        ("random", "no base weights"),
    ],
)
def test_licence_of_the_base_weights(path, licence):
    assert model_card.base_weights(path)[1].startswith(licence)
    assert f"Their licence: {licence}" in card(CONFIG | {"init": {"backbone": path}})


def test_every_tree_of_weights_has_a_licence():
    text = card(CONFIG | {"init": {"backbone": "hf://openai/clip-vit-base-patch16@ab", "head": "weights/mine.npz"}})
    assert "Base weights of backbone: OpenAI's CLIP. Their licence: MIT" in text
    assert "Base weights of head: `weights/mine.npz`. Their licence: unknown" in text


def test_type_regions_and_strength():
    text = card(outputs=("score", "type", "regions", "strength"))
    assert "; `type` [b, 6], the probabilities of alpha, poisson, dynamic, self_blend, real, dataset_fake; `reg" in text
    assert "left_eye, right_eye, nose, mouth, whole_face; `strength` [b], of the blend. Conversion" in " ".join(
        text.split()
    )
    assert "of forgeries made as in training" not in text
    results = RESULTS | {"new/forgery_type_accuracy": 0.625, "new/forgery_strength_mae": 0.0815}
    text = card(results=results)
    assert "| eval | forgery_type_accuracy | forgery_strength_mae |" in text and "| new | 62.5 | 0.082 |" in text


def test_reals_alone_are_named():
    only = "real images alone"
    assert only not in card() and only in card(CONFIG | {"data": CONFIG["data"] | {"group": {"real": 2, "fake": 0}}})


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
    assert "`map` [b, g, g]" in card(outputs=("map", "score")) and "CLIPVisionConfig(patch_size=16)" in card(
        tower={"patch_size": 16}
    )
    assert "| jax | unknown | 1.2 |" in text

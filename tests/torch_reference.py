"""PyTorch as the reference of the parity tests: what has to happen before timm, open_clip or transformers import."""

_LIBRARIES = []


def prepare():
    """One thread, and the operators that a torchvision built for another torch asks for while it is imported.

    Such a torchvision fails at import because `torchvision::nms` and `torchvision::qnms` do not exist. No model
    compared here calls them: declaring their signatures is enough. Where they exist nothing is declared.
    """
    import torch

    torch.set_num_threads(1)
    for name in ("nms", "qnms"):
        try:
            torch._C._dispatch_find_schema_or_throw(f"torchvision::{name}", "")
        except RuntimeError:
            library = torch.library.Library("torchvision", "FRAGMENT")
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
            # The declaration lives as long as its library object.
            _LIBRARIES.append(library)

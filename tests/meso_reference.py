"""MesoNet by plain NumPy, layer by layer as its authors' Keras code and the PyTorch port have it; no code of ours.

Source: classifiers.py of DariusAf/MesoNet (convolution with ReLU, batch norm, pooling; Flatten channels last, Dense 16,
LeakyReLU 0.1, one sigmoid) and classifier.py of HongguLiu/MesoNet-Pytorch (no ReLU in the inception blocks, one batch
norm a width, channels first, two outputs).
"""

import numpy as np

KERAS_EPSILON, TORCH_EPSILON = 1e-3, 1e-5
# Widths of an inception block's four branches, and of each plain convolution: width, kernel, window of the pooling.
INCEPTION = ((1, 4, 4, 2), (2, 4, 4, 2))
PLAIN = {"meso4": ((8, 3, 2), (8, 5, 2), (16, 5, 2), (16, 5, 4)), "meso_inception4": ((16, 5, 2), (16, 5, 4))}


def convolve(x, kernel, bias=0.0, dilation=1):
    """[B, H, W, C] with a kernel [k, k, C, D], padded by zeros to the same size."""
    side = kernel.shape[0]
    pad = dilation * (side // 2)
    padded = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    height, width = x.shape[1:3]
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for i in range(side):
        for j in range(side):
            rows, columns = slice(i * dilation, i * dilation + height), slice(j * dilation, j * dilation + width)
            out += padded[:, rows, columns] @ kernel[i, j]
    return out + bias


def normalise(x, norm, epsilon):
    """norm: (scale, shift, mean, variance), each [C]."""
    scale, shift, mean, variance = norm
    return (x - mean) / np.sqrt(variance + epsilon) * scale + shift


def pool(x, window):
    """The largest of each window."""
    batch, height, width, channels = x.shape
    return x.reshape(batch, height // window, window, width // window, window, channels).max((2, 4))


def relu(x):
    """x where it is positive, else 0."""
    return np.maximum(x, 0)


def keras_logit(layers, variant, x):
    """What goes into the sigmoid, [B], of a Keras file: layers {kind: [arrays of each layer, in the order made]}."""
    convs, norms, dense = (iter(layers[kind]) for kind in ("conv2d", "batch_normalization", "dense"))
    if variant == "meso_inception4":
        for _ in INCEPTION:
            branches = [relu(convolve(x, *next(convs)))]
            for dilation in (1, 2, 3):
                y = relu(convolve(x, *next(convs)))
                branches.append(relu(convolve(y, *next(convs), dilation=dilation)))
            x = pool(normalise(np.concatenate(branches, -1), next(norms), KERAS_EPSILON), 2)
    for _, _, window in PLAIN[variant]:
        x = pool(normalise(relu(convolve(x, *next(convs))), next(norms), KERAS_EPSILON), window)
    kernel, bias = next(dense)
    y = x.reshape(len(x), -1) @ kernel + bias
    kernel, bias = next(dense)
    y = np.where(y > 0, y, 0.1 * y) @ kernel + bias
    assert not [*convs, *norms, *dense]
    return y[:, 0]


def torch_logits(tensors, variant, x):
    """Both outputs [B, 2] by the names of the PyTorch port: {name: array}, kernels [out, in, k, k]."""
    kernel = lambda name: tensors[f"{name}.weight"].transpose(2, 3, 1, 0)
    norm = lambda name: [tensors[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")]
    if variant == "meso_inception4":
        for number in (1, 2):
            at = f"Incption{number}_"
            branches = [convolve(x, kernel(f"{at}conv1"))]
            for dilation in (1, 2, 3):
                y = convolve(x, kernel(f"{at}conv{dilation + 1}_1"))
                branches.append(convolve(y, kernel(f"{at}conv{dilation + 1}_2"), dilation=dilation))
            x = pool(normalise(np.concatenate(branches, -1), norm(f"{at}bn"), TORCH_EPSILON), 2)
    for number, (width, _, window) in enumerate(PLAIN[variant], 1):
        shared = "bn1" if width == PLAIN[variant][0][0] else "bn2"
        x = pool(normalise(relu(convolve(x, kernel(f"conv{number}"))), norm(shared), TORCH_EPSILON), window)
    y = x.transpose(0, 3, 1, 2).reshape(len(x), -1) @ tensors["fc1.weight"].T + tensors["fc1.bias"]
    return np.where(y > 0, y, 0.1 * y) @ tensors["fc2.weight"].T + tensors["fc2.bias"]

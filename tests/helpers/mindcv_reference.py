# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Features that MindCV's own ResNet gives, for tests/weights/test_mindcv.py.

    pip install --no-deps mindcv==0.3.0
    python -m tests.helpers.mindcv_reference

writes tests/data/mindcv_resnet.npz: names and shapes of the parameters, and features of generated
pictures whose sides after the stem are even and odd. Its values are drawn, as `values` does.
"""

from __future__ import annotations

import zlib

import numpy as np

from src.model_utils.paths import project_folder

PATH = project_folder() / "tests" / "data" / "mindcv_resnet.npz"
BLOCKS = (1, 1, 2, 1)
SIZES = ((64, 96), (65, 98), (70, 33))
EVERY = 16  # channels that are kept: one of so many


def values(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A parameter with which features are of order one."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if len(shape) > 1:
        found = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
    elif "variance" in name:
        found = rng.uniform(0.5, 1.5, shape)
    else:
        found = rng.normal(0.5, 0.2, shape)
    return found.astype(np.float32)


def pixels(size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 BGR."""
    return np.random.default_rng(size).integers(0, 256, (*size, 3), np.uint8)


def main() -> None:
    """Run MindCV's code."""
    import mindspore as ms
    from mindcv.models.resnet import Bottleneck, ResNet  # type: ignore[import-not-found]

    net = ResNet(Bottleneck, list(BLOCKS), num_classes=10)
    net.set_train(False)
    shapes = {}
    for parameter in net.get_parameters():
        shapes[parameter.name] = np.array(parameter.shape, np.int32)
        parameter.set_data(ms.Tensor(values(parameter.name, tuple(parameter.shape))))
    # Of values in 0..255, red first, as its `create_transforms` has them.
    mean = np.array([0.485, 0.456, 0.406]) * 255
    std = np.array([0.229, 0.224, 0.225]) * 255
    features = {}
    for height, width in SIZES:
        image = ((pixels((height, width))[..., ::-1] - mean) / std).transpose(2, 0, 1)[None]
        found = net.forward_features(ms.Tensor(image.astype(np.float32))).asnumpy()[0]
        features[f"features {height} {width}"] = found[::EVERY].transpose(1, 2, 0)
    np.savez_compressed(PATH, **shapes, **features)


if __name__ == "__main__":
    main()

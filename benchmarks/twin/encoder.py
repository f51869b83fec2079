# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block: torchvision's ResNet-101 on whole pictures, boxes pooled from its map."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torchvision.models import resnet101
from torchvision.ops import roi_align

STRIDE = 32
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Encoder:
    """Vectors of boxes of a picture.

    Args:
        arrays: weights by torchvision's names.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.net = resnet101(weights=None)
        self.net.load_state_dict({name: torch.from_numpy(one) for name, one in arrays.items()})
        self.net.eval()

    @torch.inference_mode()
    def feature_map(self, pixels: np.ndarray) -> Tensor:
        """(H, W, 3) uint8 BGR -> (1, C, H / 32, W / 32)."""
        image = torch.from_numpy(pixels[..., ::-1].copy()).permute(2, 0, 1).float() / 255.0
        image = (image - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
        net = self.net
        maps = net.maxpool(net.relu(net.bn1(net.conv1(image[None]))))
        return net.layer4(net.layer3(net.layer2(net.layer1(maps))))

    @torch.inference_mode()
    def vectors(self, features: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (R, 4) of the picture -> (R, 1000)."""
        pooled = roi_align(features, [boxes], 1, 1.0 / STRIDE, aligned=True)
        return self.net.fc(pooled.flatten(1))


def calibrated(scores: Tensor, vectors: Tensor, prototypes: Tensor, alpha: float) -> Tensor:
    """Mix scores (R,) with the cosines of rows of vectors and prototypes, (R, 1000) each."""
    return alpha * scores + (1 - alpha) * F.cosine_similarity(vectors, prototypes)

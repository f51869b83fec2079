# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The detector as it is exported: raw pixels in, boxes and scores of all proposals out.

Letters: H x W the one input size, P proposals, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

from src.defrcn.de_frcn import DeFRCN
from src.defrcn.portable import make_portable
from src.defrcn.resnet import valid_mask

#: The outputs, in order.
OUTPUT_NAMES = ("boxes", "scores", "valid", "info")


class DetectorForExport(nn.Cell):
    """`DeFRCN` for one picture inside a fixed shape, with what surrounds it in evaluation.

    Args:
        net: the detector, masked, with its weights; it is changed, see `portable.make_portable`.
        height: H.
        width: W.
        pixel_mean: B, G, R, taken off.
        pixel_std: B, G, R, divided by.
        restore_boxes: boxes in the image frame instead of the model frame.
        oblong: see `portable.make_portable`.

    Inputs:
        - **image** (Tensor) - (1, 3, H, W) float32, BGR from 0 to 255, resized; what lies beyond
          the resized picture does not matter as long as it is finite.
        - **image_id** (Tensor) - (1,) int32, handed through.
        - **image_meta** (Tensor) - (1, 4) float32: height and width after resizing, and before.

    Outputs:
        boxes (1, P, K, 4) float32, clipped to the picture; scores (1, P, K + 1) float32,
        background last; valid (1, P) int32; info (1, 4) int32: image id, number of valid
        proposals, what suppression left undecided, which must be 0, and whether the boxes are in
        the image frame.
    """

    def __init__(
        self,
        net: DeFRCN,
        *,
        height: int,
        width: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        restore_boxes: bool,
        oblong: bool = False,
    ) -> None:
        super().__init__()
        if not net.masked:
            raise ValueError("a network for one input shape must be built with masked=True")
        make_portable(net, height, width, oblong=oblong)
        self.net = net
        self.size = (height, width)
        self.num_proposals: int = net.proposal_generator.test_proposals.post_nms_topk
        self.restore_boxes = restore_boxes
        self.restored = Tensor(np.array([restore_boxes], np.int32))
        self.mean = Tensor(np.asarray(pixel_mean, np.float32).reshape(1, 3, 1, 1))
        self.std = Tensor(np.asarray(pixel_std, np.float32).reshape(1, 3, 1, 1))
        self.set_train(False)

    def construct(self, image: Tensor, image_id: Tensor, image_meta: Tensor) -> tuple:
        """See the class."""
        sizes = image_meta[:, :2]
        padded_size = sizes.astype(ms.int32).reshape(2)
        mask = valid_mask(self.size[0], self.size[1], padded_size[0], padded_size[1])
        images = (image - self.mean) / self.std * mask
        boxes, scores, valid, undecided = self.detect(images, sizes, padded_size)
        valid = valid.astype(ms.int32)
        if self.restore_boxes:
            boxes = self._restored(boxes, image_meta)
        # Whole numbers: an id above 2^24 is no float.
        count, undecided = valid.sum(1).astype(ms.int32), undecided.astype(ms.int32)
        info = ops.concat((image_id, count, undecided, self.restored))
        return boxes, scores, valid, info.reshape(1, 4)

    def detect(
        self, images: Tensor, image_sizes: Tensor, padded_size: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """`DeFRCN.construct`, and (1,) float32: what suppression left undecided."""
        net = self.net
        rpn = net.proposal_generator
        features = net.backbone(images, padded_size)
        rpn_features, valid_size, anchor_valid = net.rpn_inputs(features, padded_size)
        logits, deltas = rpn.rpn_head(rpn_features)
        anchors = rpn.anchors(features)
        proposals, _, valid, undecided = rpn.test_proposals(
            logits, deltas, anchors, anchor_valid, image_sizes
        )
        boxes, scores = net.detect(features, valid_size, proposals, image_sizes)
        return boxes, scores, valid, undecided

    def _restored(self, boxes: Tensor, image_meta: Tensor) -> Tensor:
        """`detections.to_image_frame` of all boxes."""
        limit = image_meta[:, 2:]
        scale = limit / image_meta[:, :2]
        return ops.minimum(ops.relu(boxes * _as_box(scale)), _as_box(limit))


def _as_box(size: Tensor) -> Tensor:
    """(1, 2) height, width -> (1, 1, 1, 4): width, height, width, height."""
    height, width = size[:, :1], size[:, 1:]
    return ops.concat((width, height, width, height), 1).reshape(1, 1, 1, 4)


def example_inputs(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs of the right shapes and dtypes, for tracing."""
    return (
        Tensor(np.zeros((1, 3, height, width), np.float32)),
        Tensor(np.zeros(1, np.int32)),
        Tensor(np.array([[height, width, height, width]], np.float32)),
    )

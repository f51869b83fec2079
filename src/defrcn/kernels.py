# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Parts of the detector by kernels in C++ for CPUs: those with many steps and no gradient.

`use_kernels` puts them into a built detector. Each has the interface of the part that it replaces
and gives its numbers, by one operator where that has a hundred: less to compile and to start.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.defrcn.anchor_generator import AnchorGenerator
from src.defrcn.bbox_assign_sample import RPNTargets
from src.defrcn.bbox_assign_sample_stage2 import ROITargets
from src.defrcn.fast import names_kept
from src.defrcn.kernel_blocks import (
    BoxRows,
    KernelBackbone,
    KernelBottleneck,
    KernelBoxBlock,
    KernelGDL,
    KernelRPNHead,
    kernel,
    rows_of,
)
from src.defrcn.proposal_generator import ProposalGenerator, settings_of
from src.defrcn.rcnn import PredictedBoxes, ROILosses
from src.defrcn.rpn import RPNLosses


# MindSpore reads these functions' text; it takes no variable number of arguments here.
def _no_gradient_of_7(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    e: Tensor,
    f: Tensor,
    g: Tensor,
    _out: tuple,
    _d_out: tuple,
) -> tuple[Tensor, ...]:
    zeros = ops.ZerosLike()
    return zeros(a), zeros(b), zeros(c), zeros(d), zeros(e), zeros(f), zeros(g)


def _no_gradient_of_8(
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
    e: Tensor,
    f: Tensor,
    g: Tensor,
    h: Tensor,
    _out: tuple,
    _d_out: tuple,
) -> tuple[Tensor, ...]:
    zeros = ops.ZerosLike()
    return zeros(a), zeros(b), zeros(c), zeros(d), zeros(e), zeros(f), zeros(g), zeros(h)


def _kernel(library: str, name: str, num_inputs: int, types: tuple[ms.Type, ...]) -> ops.Custom:
    no_gradient = {7: _no_gradient_of_7, 8: _no_gradient_of_8}[num_inputs]
    return kernel(library, name, types, no_gradient)


class KernelProposals(ProposalGenerator):
    """`ProposalGenerator` by a kernel; suppression compares in double, as the official code does.

    Args:
        generator: whose settings it takes.
        library: path of the kernels.
    """

    def __init__(self, generator: ProposalGenerator, library: str) -> None:
        super().__init__(**settings_of(generator))
        settings = [self.pre_nms_topk, self.nms_threshold, self.min_box_size, *self.box_weights]
        self.settings = Tensor(np.array(settings, np.float64))
        self.rows = rows_of(self.post_nms_topk)
        self.kernel = _kernel(library, "Proposals", 7, (ms.float32, ms.float32, ms.bool_))

    def construct(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        anchor_valid: Tensor,
        image_sizes: Tensor,
    ) -> tuple[Tensor, ...]:
        """See `ProposalGenerator`."""
        logits, deltas = ops.stop_gradient(logits), ops.stop_gradient(deltas)
        return self.kernel(
            logits, deltas, anchors, anchor_valid, image_sizes, self.settings, self.rows
        )


class KernelAnchors(nn.Cell):
    """`AnchorGenerator` by a kernel.

    Args:
        anchors: whose settings it takes.
        library: path of the kernels.
    """

    def __init__(self, anchors: AnchorGenerator, library: str) -> None:
        super().__init__()
        self.num_cell_anchors = anchors.num_cell_anchors
        self.cell_anchors = anchors.cell_anchors
        self.settings = Tensor(np.array([anchors.stride, anchors.offset], np.float64))
        self.kernel = kernel(library, "Anchors", (ms.float32,))

    def construct(self, features: Tensor) -> Tensor:
        """See `AnchorGenerator`."""
        features = ops.stop_gradient(features)
        return ops.stop_gradient(self.kernel(features, self.cell_anchors, self.settings)[0])


class KernelPredictedBoxes(nn.Cell):
    """`PredictedBoxes` by a kernel, without gradient.

    Args:
        boxes_of: whose settings it takes.
        library: path of the kernels.
    """

    def __init__(self, boxes_of: PredictedBoxes, library: str) -> None:
        super().__init__()
        self.settings = Tensor(np.array(boxes_of.box_weights, np.float64))
        self.kernel = kernel(library, "PredictedBoxes", (ms.float32,))

    def construct(self, proposals: Tensor, deltas: Tensor, image_sizes: Tensor) -> Tensor:
        """See `PredictedBoxes`."""
        return self.kernel(proposals, deltas, image_sizes, self.settings)[0]


class KernelRPNTargets(RPNTargets):
    """`RPNTargets` by a kernel.

    Args:
        targets: whose settings it takes.
        library: path of the kernels.
    """

    def __init__(self, targets: RPNTargets, library: str) -> None:
        super().__init__(
            iou_thresholds=targets.iou_thresholds,
            num_samples=targets.num_samples,
            positive_fraction=targets.positive_fraction,
        )
        most = int(self.num_samples * self.positive_fraction)
        self.settings = Tensor(np.array([*self.iou_thresholds, most], np.float64))
        self.rows = rows_of(self.num_samples)
        types = (ms.int32, ms.bool_, ms.bool_, ms.float32)
        self.kernel = _kernel(library, "RPNTargets", 7, types)

    def construct(
        self,
        anchors: Tensor,
        anchor_valid: Tensor,
        gt_boxes: Tensor,
        gt_valid: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `RPNTargets`."""
        return self.kernel(
            anchors, anchor_valid, gt_boxes, gt_valid, noise, self.settings, self.rows
        )


class KernelROITargets(ROITargets):
    """`ROITargets` by a kernel.

    Args:
        targets: whose settings it takes.
        library: path of the kernels.
    """

    def __init__(self, targets: ROITargets, library: str) -> None:
        super().__init__(
            iou_threshold=targets.iou_threshold,
            num_samples=targets.num_samples,
            positive_fraction=targets.positive_fraction,
            num_classes=targets.num_classes,
            append_gt=targets.append_gt,
        )
        most = int(self.num_samples * self.positive_fraction)
        settings = [self.iou_threshold, most, self.num_classes, self.append_gt]
        self.settings = Tensor(np.array(settings, np.float64))
        self.rows = rows_of(self.num_samples)
        types = (ms.float32, ms.int32, ms.bool_, ms.float32)
        self.kernel = _kernel(library, "ROITargets", 8, types)

    def construct(
        self,
        proposals: Tensor,
        proposal_valid: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        gt_valid: Tensor,
        noise: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `ROITargets`."""
        given = (proposals, proposal_valid, gt_boxes, gt_classes, gt_valid, noise)
        return self.kernel(*given, self.settings, self.rows)


class KernelSquareSum(nn.Cell):
    """The sum of the squares of all numbers of some tensors, as one operator.

    Args:
        library: path of the kernels.
    """

    def __init__(self, library: str) -> None:
        super().__init__()
        self.kernel = kernel(library, "SquareSum", (ms.float32,))

    def construct(self, tensors: tuple[Tensor, ...]) -> Tensor:
        """Tensors of float32 -> scalar."""
        return self.kernel(*tensors)[0].reshape(())


class KernelSGDStep(nn.Cell):
    """A step of `sgd_optimizer.SGD` by a kernel, which changes weights and velocities in place.

    Args:
        decays: weight decay of each parameter.
        momentum: as in `SGD`.
        nesterov: as in `SGD`.
        library: path of the kernels.
    """

    def __init__(
        self, decays: Sequence[float], momentum: float, nesterov: bool, library: str
    ) -> None:
        super().__init__()
        self.settings = Tensor(np.array([momentum, nesterov, *decays], np.float64))
        self.kernel = kernel(library, "SGDStep", (ms.float32,))

    def construct(
        self, lr: Tensor, weights: tuple, velocities: tuple, gradients: tuple[Tensor, ...]
    ) -> Tensor:
        """Make one step; returns `lr`."""
        given = (*weights, *velocities, *gradients)
        return self.kernel(lr.reshape(1), self.settings, *given)[0].reshape(())


class KernelAdamWStep(nn.Cell):
    """A step of `adamw_optimizer.AdamW` by a kernel, which changes what it keeps in place.

    Args:
        decays: weight decay of each parameter.
        beta1: as in `AdamW`.
        beta2: as in `AdamW`.
        eps: as in `AdamW`.
        library: path of the kernels.
    """

    def __init__(
        self, decays: Sequence[float], beta1: float, beta2: float, eps: float, library: str
    ) -> None:
        super().__init__()
        self.settings = Tensor(np.array([beta1, beta2, eps, *decays], np.float64))
        self.kernel = kernel(library, "AdamWStep", (ms.float32,))

    def construct(
        self,
        lr: Tensor,
        steps: Parameter,
        weights: tuple,
        means: tuple,
        squares: tuple,
        gradients: tuple[Tensor, ...],
    ) -> Tensor:
        """Make one step; returns `lr`."""
        given = (steps, *weights, *means, *squares, *gradients)
        return self.kernel(lr.reshape(1), self.settings, *given)[0].reshape(())


def _losses(library: str, name: str, num_inputs: int) -> ops.Custom:
    scaled = kernel(library, "ScaledPair", (ms.float32, ms.float32))
    z = ops.ZerosLike()

    def back_of_7(a, b, c, d, e, f, g, out, d_out):  # noqa: ANN001,ANN202
        first, second = scaled(out[2], out[3], d_out[0], d_out[1])
        return first, second, z(c), z(d), z(e), z(f), z(g)

    def back_of_8(a, b, c, d, e, f, g, h, out, d_out):  # noqa: ANN001,ANN202
        first, second = scaled(out[2], out[3], d_out[0], d_out[1])
        return first, second, z(c), z(d), z(e), z(f), z(g), z(h)

    back = {7: back_of_7, 8: back_of_8}[num_inputs]
    return kernel(library, name, (ms.float32,) * 4, back)


class KernelRPNLosses(RPNLosses):
    """`RPNLosses` by a kernel, which finds the gradients at once.

    Args:
        losses: whose settings it takes.
        library: path of the kernels.
    """

    def __init__(self, losses: RPNLosses, library: str) -> None:
        super().__init__(losses.box_weights, losses.smooth_l1_beta, losses.weights)
        settings = [*self.box_weights, self.smooth_l1_beta, *self.weights]
        self.settings = Tensor(np.array(settings, np.float64))
        self.kernel = _losses(library, "RPNLosses", 8)

    def construct(
        self,
        logits: Tensor,
        deltas: Tensor,
        anchors: Tensor,
        index: Tensor,
        gt_boxes: Tensor,
        positive: Tensor,
        valid: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See `RPNLosses`."""
        given = (logits, deltas, anchors, index, gt_boxes, positive, valid)
        out = self.kernel(*given, self.settings)
        return out[0].reshape(()), out[1].reshape(())


class KernelROILosses(ROILosses):
    """`ROILosses` by a kernel, which finds the gradients at once.

    Args:
        losses: whose settings it takes.
        library: path of the kernels.
    """

    def __init__(self, losses: ROILosses, library: str) -> None:
        super().__init__(losses.box_weights, losses.smooth_l1_beta, losses.box_loss_weight)
        settings = [*self.box_weights, self.smooth_l1_beta, self.box_loss_weight]
        self.settings = Tensor(np.array(settings, np.float64))
        self.kernel = _losses(library, "ROILosses", 7)

    def construct(
        self,
        logits: Tensor,
        deltas: Tensor,
        boxes: Tensor,
        classes: Tensor,
        gt_boxes: Tensor,
        valid: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """See `ROILosses`."""
        out = self.kernel(logits, deltas, boxes, classes, gt_boxes, valid, self.settings)
        return out[0].reshape(()), out[1].reshape(())


def use_kernels(net: nn.Cell, library: str, *, blocks: bool = True) -> None:
    """Exchange parts of a detector for kernels.

    Args:
        net: `DeFRCN` after `make_fast`, for CPU.
        library: path of the kernels, see `kernels.library.built`.
        blocks: also pooling, stages and losses, which round otherwise; see
            `kernels.library.has_fast_products`.
    """
    rpn, heads = net.proposal_generator, net.roi_heads
    rpn.train_proposals = KernelProposals(rpn.train_proposals, library)
    rpn.test_proposals = KernelProposals(rpn.test_proposals, library)
    rpn.anchors = KernelAnchors(rpn.anchors, library)
    rpn.targets = KernelRPNTargets(rpn.targets, library)
    heads.boxes_of = KernelPredictedBoxes(heads.boxes_of, library)
    heads.targets = KernelROITargets(heads.targets, library)
    if not blocks:
        return
    rpn.losses_of = KernelRPNLosses(rpn.losses_of, library)
    heads.losses_of = KernelROILosses(heads.losses_of, library)
    with names_kept(net):
        if not net.masked:
            net.backbone = KernelBackbone(net.backbone, library)
        if net.rpn_scale is not None:
            net.affine_rpn = KernelGDL(net.affine_rpn, library)
        if net.rcnn_scale is not None:
            net.affine_rcnn = KernelGDL(net.affine_rcnn, library)
        rpn.rpn_head = KernelRPNHead(rpn.rpn_head, library)
        first, *others = heads.res5
        heads.pooler = KernelBoxBlock(heads.pooler, first, library)
        heads.layout = BoxRows()
        res5 = [KernelBottleneck(block, library, stride=1) for block in others]
        heads.res5 = nn.CellList(res5)

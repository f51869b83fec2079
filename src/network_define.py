# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Where numbers of the configuration meet classes: the detector, its training and test steps."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.adamw_optimizer import AdamW
from src.defrcn.anchor_generator import AnchorGenerator
from src.defrcn.de_frcn import DeFRCN
from src.defrcn.proposal_generator import ProposalGenerator
from src.defrcn.rcnn import Res5ROIHeads
from src.defrcn.resnet import STAGE_BLOCKS, ResNetC4, norm_of
from src.defrcn.rpn import RPN, RPNHead
from src.model_utils.config import ModelSection
from src.model_utils.errors import InputError
from src.sgd_optimizer import SGD, weight_decay_of


def build_detector(
    model: ModelSection, *, num_classes: int, max_size: float, masked: bool, fast: bool
) -> DeFRCN:
    """Build the detector, all parameters at their neutral values (see `initialise`).

    Args:
        model: the `model` section.
        num_classes: K, foreground classes.
        max_size: longest side of an input, pixels of the model frame.
        masked: whether batches come in fixed shapes larger than themselves.
        fast: use the formulations of `src.defrcn.winograd` and pool only what res5 reads.

    Raises:
        InputError: if keys do not go together.
    """
    backbone, rpn, roi = model.backbone, model.rpn, model.roi_heads
    if masked and backbone.norm != "FrozenBN":
        raise InputError(
            "input.input_shapes: fixed shapes need model.backbone.norm FrozenBN, because another "
            "norm would measure the padding; use input_shapes: exact"
        )
    res5_norm = norm_of(backbone.norm, roi.freeze_feat)
    channels = 4 * backbone.res2_out_channels
    stride = model.anchors.stride
    if stride != 16:
        raise InputError(f"model.anchors.stride: res4 has a stride of 16, not {stride}")
    anchors = AnchorGenerator(
        model.anchors.sizes, model.anchors.aspect_ratios, stride, model.anchors.offset
    )
    head = RPNHead(channels, anchors.num_cell_anchors, winograd=fast)
    return DeFRCN(
        backbone=ResNetC4(
            depth=backbone.depth,
            norm=backbone.norm,
            freeze_at=backbone.freeze_at,
            stem_channels=backbone.stem_out_channels,
            res2_channels=backbone.res2_out_channels,
            masked=masked,
        ),
        proposal_generator=RPN(
            head,
            anchors,
            iou_thresholds=rpn.iou_thresholds,
            num_samples=rpn.batch_size_per_image,
            positive_fraction=rpn.positive_fraction,
            box_weights=rpn.bbox_reg_weights,
            smooth_l1_beta=rpn.smooth_l1_beta,
            loss_weights=(rpn.loss_weight, rpn.loss_weight * rpn.bbox_loss_weight),
            sampled_gradient=fast,
        ),
        roi_heads=Res5ROIHeads(
            num_blocks=STAGE_BLOCKS[backbone.depth][3],
            in_channels=channels,
            norm=res5_norm,
            pooler_resolution=roi.pooler_resolution,
            spatial_scale=1.0 / stride,
            max_size=max_size,
            num_classes=num_classes,
            dropout_ratio=roi.dropout_ratio if roi.cls_dropout else 0.0,
            freeze_res5=roi.freeze_feat,
            even_bins=fast,
            tiles=fast and roi.pooler_resolution in (7, 8) and res5_norm == "FrozenBN",
        ),
        train_proposals=_proposals(model, rpn.pre_nms_topk_train, rpn.post_nms_topk_train),
        test_proposals=_proposals(model, rpn.pre_nms_topk_test, rpn.post_nms_topk_test),
        num_channels=channels,
        num_classes=num_classes,
        rpn_scale=rpn.backward_scale if rpn.enable_decouple else None,
        rcnn_scale=roi.backward_scale if roi.enable_decouple else None,
        masked=masked,
        freeze_rpn=rpn.freeze,
        roi_num_samples=roi.batch_size_per_image,
        roi_positive_fraction=roi.positive_fraction,
        roi_iou_threshold=roi.iou_threshold,
        roi_append_gt=roi.append_gt,
        roi_box_weights=roi.bbox_reg_weights,
        roi_smooth_l1_beta=roi.smooth_l1_beta,
        roi_box_loss_weight=roi.bbox_loss_weight,
    )


def _proposals(model: ModelSection, pre_nms_topk: int, post_nms_topk: int) -> ProposalGenerator:
    rpn = model.rpn
    return ProposalGenerator(
        pre_nms_topk=pre_nms_topk,
        post_nms_topk=post_nms_topk,
        nms_threshold=rpn.nms_threshold,
        min_box_size=rpn.min_box_size,
        box_weights=rpn.bbox_reg_weights,
    )


def initialise(net: nn.Cell, seed: int) -> None:
    """Draw the start of a run without weights, each array from the seed and its name.

    Convolutions: normal with std sqrt(2 / fan_out) (He et al. 2015); RPN and class layer: 0.01;
    box layer: 0.001; biases 0. With norms that train (BN, GN) the scale of a convolution does not
    matter to what comes out, but the smaller it is the faster SGD turns it (van Laarhoven 2017);
    those start at 0.3 of that, or a short run would leave them where they were. Where norms are
    frozen nothing else bounds what blocks add up to: each starts with 0.3 of its output.
    """
    names = {parameter.name for parameter in net.trainable_params()}
    for parameter in net.get_parameters():
        name, shape = parameter.name, parameter.shape
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if len(shape) >= 2 and name.endswith(".weight") and "affine" not in name:
            if "rpn_head" in name or "cls_score" in name:
                std = 0.01
            elif "bbox_pred" in name:
                std = 0.001
            else:
                std = math.sqrt(2.0 / (shape[0] * shape[2] * shape[3]))
                if name.replace(".weight", ".norm.weight") in names:
                    std *= 0.3
            values = (rng.standard_normal(shape) * std).astype(np.float32)
            parameter.set_data(Tensor(values))
        elif name.endswith("conv3.norm.weight") and not parameter.requires_grad:
            parameter.set_data(Tensor(np.full(shape, 0.3, np.float32)))


def parameters_of(net: nn.Cell) -> dict[str, np.ndarray]:
    """Copy every parameter to the host, by its official name."""
    return {p.name: p.asnumpy().copy() for p in net.get_parameters()}


def set_parameters(cells: Sequence[Parameter], values: dict[str, np.ndarray]) -> None:
    """Set parameters by name; those without a value keep theirs. Shapes are checked before."""
    for parameter in cells:
        if parameter.name in values:
            # In place: after `set_data` a function compiled before goes on with the old memory.
            ops.assign(parameter, Tensor(np.asarray(values[parameter.name], np.float32)))


def build_optimizer(
    net: nn.Cell,
    *,
    momentum: float,
    nesterov: bool,
    weight_decay: float,
    weight_decay_bias: float,
    weight_decay_norm: float,
    kind: str = "sgd",
) -> SGD | AdamW:
    """SGD (or AdamW) over the trainable parameters, each with the decay of its kind."""
    parameters = net.trainable_params()
    decays = [
        weight_decay_of(
            p.name,
            weight_decay=weight_decay,
            weight_decay_bias=weight_decay_bias,
            weight_decay_norm=weight_decay_norm,
        )
        for p in parameters
    ]
    if kind == "adamw":
        return AdamW(parameters, decays, beta1=momentum)
    return SGD(parameters, decays, momentum, nesterov)


def _dynamic(*shape: int | None, dtype: ms.Type = ms.float32) -> Tensor:
    return Tensor(shape=list(shape), dtype=dtype)


def build_train_step(
    net: DeFRCN,
    optimizer: SGD | AdamW,
    *,
    batch_size: int,
    exact: bool,
    reducer: nn.Cell | None = None,
) -> tuple[Callable, Callable]:
    """Compile the forward and backward pass and the update, as two functions.

    Args:
        net: the detector.
        optimizer: over its trainable parameters.
        batch_size: N.
        exact: compile once for all image sizes; otherwise once for each fixed input shape.
        reducer: from gradients to their mean over processes, see `parallel.Group.reducer`; None
            for one process.

    Returns:
        `(gradients_of, update)`: `gradients_of(*inputs of DeFRCN.losses)` gives the losses (4,)
        float32 in the order of `LOSS_NAMES`, the gradients' squared norm, both of this process
        alone, and the gradients, averaged over processes; `update(gradients, lr)` applies these.
        In between the caller can refuse losses that are not finite.
    """
    net.set_train(True)

    def total_loss(
        images: Tensor,
        image_sizes: Tensor,
        padded_size: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        gt_valid: Tensor,
        rpn_noise: Tensor,
        roi_noise: Tensor,
        dropout_noise: Tensor,
    ) -> tuple[Tensor, Tensor]:
        losses = net.losses(
            images,
            image_sizes,
            padded_size,
            gt_boxes,
            gt_classes,
            gt_valid,
            rpn_noise,
            roi_noise,
            dropout_noise,
        )
        return sum(losses), ms.ops.stack(losses)

    gradient = ms.value_and_grad(total_loss, None, optimizer.parameters, has_aux=True)

    # fullgraph refuses what would fall back to Python and lose gradients without a word.
    @ms.jit(fullgraph=True)
    def gradients_of(
        images: Tensor,
        image_sizes: Tensor,
        padded_size: Tensor,
        gt_boxes: Tensor,
        gt_classes: Tensor,
        gt_valid: Tensor,
        rpn_noise: Tensor,
        roi_noise: Tensor,
        dropout_noise: Tensor,
    ) -> tuple:
        (_, losses), gradients = gradient(
            images,
            image_sizes,
            padded_size,
            gt_boxes,
            gt_classes,
            gt_valid,
            rpn_noise,
            roi_noise,
            dropout_noise,
        )
        # A gradient that is not finite shows in the sum of squares.
        squares = [(one * one).sum() for one in gradients]
        if reducer is not None:
            gradients = reducer(gradients)
        return losses, sum(squares), gradients

    # Separate arguments: a tuple would be taken for a constant and compiled anew every time.
    @ms.jit(fullgraph=True)
    def update_with(lr: Tensor, *gradients: Tensor) -> Tensor:
        return optimizer(gradients, lr)

    def update(gradients: tuple, lr: Tensor) -> Tensor:
        return update_with(lr, *gradients)

    if exact:
        n = batch_size
        gradients_of = ms.enable_dynamic(
            images=_dynamic(n, 3, None, None),
            gt_boxes=_dynamic(n, None, 4),
            gt_classes=_dynamic(n, None, dtype=ms.int32),
            gt_valid=_dynamic(n, None, dtype=ms.bool_),
            rpn_noise=_dynamic(n, None),
            roi_noise=_dynamic(n, None),
        )(gradients_of)
    return gradients_of, update


def build_eval_step(net: DeFRCN, *, exact: bool) -> Callable:
    """Compile inference for one image: (images, image_sizes, padded_size) -> `DeFRCN` outputs.

    It runs the Cell in evaluation mode. Build it once; a training step has its own function,
    because a jitted function keeps the mode of its first call.
    """

    @ms.jit(fullgraph=True)
    def infer(images: Tensor, image_sizes: Tensor, padded_size: Tensor) -> tuple:
        return net(images, image_sizes, padded_size)

    if exact:
        infer = ms.enable_dynamic(images=_dynamic(1, 3, None, None))(infer)

    def eval_step(images: Tensor, image_sizes: Tensor, padded_size: Tensor) -> tuple:
        net.set_train(False)
        try:
            return infer(images, image_sizes, padded_size)
        finally:
            net.set_train(True)

    return eval_step

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Where numbers of the configuration meet classes: the detector, its training and test steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

from src.adamw_optimizer import BETA2, EPS, AdamW
from src.defrcn.anchor_generator import AnchorGenerator
from src.defrcn.bbox_assign_sample import RPNTargets
from src.defrcn.bbox_assign_sample_stage2 import ROITargets
from src.defrcn.de_frcn import DeFRCN
from src.defrcn.kernels import KernelAdamWStep, KernelSGDStep
from src.defrcn.proposal_generator import ProposalGenerator
from src.defrcn.rcnn import BoxMaps, BoxPredictor, PredictedBoxes, Res5ROIHeads, ROILosses
from src.defrcn.resnet import STRIDE, ResNetC4, freeze, make_stage, norm_of
from src.defrcn.roi_align import ROIAlign
from src.defrcn.rpn import RPN, ConvBias, RPNHead, RPNLosses
from src.model_utils.config import ModelSection, Solver
from src.model_utils.errors import InputError
from src.sgd_optimizer import SGD, weight_decay_of
from src.weights.weight_shapes import STAGE_BLOCKS


def build_detector(
    model: ModelSection, *, num_classes: int, max_size: float, masked: bool
) -> DeFRCN:
    """Build the detector, all parameters at their neutral values (see `weights.initialise`).

    It is computed with built-in operators; `defrcn.fast.make_fast` exchanges parts of it.

    Args:
        model: the `model` section.
        num_classes: K, foreground classes.
        max_size: longest side of an input, pixels of the model frame.
        masked: whether batches come in fixed shapes larger than themselves.

    Raises:
        InputError: if keys do not go together.
    """
    backbone, rpn, roi = model.backbone, model.rpn, model.roi_heads
    if masked and backbone.norm != "FrozenBN":
        raise InputError(
            "input.input_shapes: fixed shapes need model.backbone.norm FrozenBN, because another "
            "norm would measure the padding; use input_shapes: exact"
        )
    if model.anchors.stride != STRIDE:
        raise InputError(
            f"model.anchors.stride: res4 has a stride of {STRIDE}, not {model.anchors.stride}"
        )
    channels = 4 * backbone.res2_out_channels
    detector = DeFRCN(
        ResNetC4(
            depth=backbone.depth,
            norm=backbone.norm,
            freeze_at=backbone.freeze_at,
            stem_channels=backbone.stem_out_channels,
            res2_channels=backbone.res2_out_channels,
            masked=masked,
        ),
        _rpn(model, channels),
        _roi_heads(model, channels, num_classes, max_size),
        num_channels=channels,
        rpn_scale=rpn.backward_scale if rpn.enable_decouple else None,
        rcnn_scale=roi.backward_scale if roi.enable_decouple else None,
        masked=masked,
    )
    if rpn.freeze:
        freeze(detector.proposal_generator)
    if roi.freeze_feat:
        freeze(detector.roi_heads.res5)
    return detector


def _rpn(model: ModelSection, channels: int) -> RPN:
    rpn, anchors = model.rpn, model.anchors
    generator = AnchorGenerator(
        anchors.sizes, anchors.aspect_ratios, anchors.stride, anchors.offset
    )
    count = generator.num_cell_anchors
    head = RPNHead(
        ConvBias(channels, channels, 3),
        ConvBias(channels, count, 1),
        ConvBias(channels, 4 * count, 1),
    )
    return RPN(
        head,
        generator,
        _proposals(model, rpn.pre_nms_topk_train, rpn.post_nms_topk_train),
        _proposals(model, rpn.pre_nms_topk_test, rpn.post_nms_topk_test),
        RPNTargets(
            iou_thresholds=rpn.iou_thresholds,
            num_samples=rpn.batch_size_per_image,
            positive_fraction=rpn.positive_fraction,
        ),
        RPNLosses(
            rpn.bbox_reg_weights,
            rpn.smooth_l1_beta,
            (rpn.loss_weight, rpn.loss_weight * rpn.bbox_loss_weight),
        ),
    )


def _proposals(model: ModelSection, pre_nms_topk: int, post_nms_topk: int) -> ProposalGenerator:
    return ProposalGenerator(
        pre_nms_topk=pre_nms_topk,
        post_nms_topk=post_nms_topk,
        nms_threshold=model.rpn.nms_threshold,
        min_box_size=model.rpn.min_box_size,
        box_weights=model.rpn.bbox_reg_weights,
    )


def _roi_heads(
    model: ModelSection, channels: int, num_classes: int, max_size: float
) -> Res5ROIHeads:
    roi, backbone = model.roi_heads, model.backbone
    norm = norm_of(backbone.norm, roi.freeze_feat)
    dropout = roi.dropout_ratio if roi.cls_dropout else 0.0
    return Res5ROIHeads(
        ROIAlign(roi.pooler_resolution, 1.0 / STRIDE, max_size),
        make_stage(STAGE_BLOCKS[backbone.depth][3], channels, 2 * channels, 2, norm),
        BoxMaps(roi.pooler_resolution),
        BoxPredictor(2 * channels, num_classes, dropout),
        ROITargets(
            iou_threshold=roi.iou_threshold,
            num_samples=roi.batch_size_per_image,
            positive_fraction=roi.positive_fraction,
            num_classes=num_classes,
            append_gt=roi.append_gt,
        ),
        ROILosses(roi.bbox_reg_weights, roi.smooth_l1_beta, roi.bbox_loss_weight),
        PredictedBoxes(roi.bbox_reg_weights),
    )


def parameters_of(net: nn.Cell) -> dict[str, np.ndarray]:
    """Copy every parameter to the host, by its official name."""
    return {p.name: p.asnumpy().copy() for p in net.get_parameters()}


def set_parameters(cells: Sequence[Parameter], values: dict[str, np.ndarray]) -> None:
    """Set parameters by name; those without a value keep theirs. Shapes are checked before."""
    for parameter in cells:
        if parameter.name in values:
            # In place: after `set_data` a function compiled before goes on with the old memory.
            ops.assign(parameter, Tensor(np.asarray(values[parameter.name], np.float32)))


def build_optimizer(net: nn.Cell, solver: Solver, library: str = "") -> SGD | AdamW:
    """The optimizer of the `solver` section over the trainable parameters, each with its decay.

    Args:
        net: the detector.
        solver: the section.
        library: path of the kernels in C++ to use, see `kernels.library.built`; "" for none.
    """
    parameters = net.trainable_params()
    decays = [
        weight_decay_of(
            parameter.name,
            weight_decay=solver.weight_decay,
            weight_decay_bias=solver.weight_decay_bias,
            weight_decay_norm=solver.weight_decay_norm,
        )
        for parameter in parameters
    ]
    step: nn.Cell | None = None
    if solver.optimizer == "adamw":
        if library:
            step = KernelAdamWStep(decays, solver.momentum, BETA2, EPS, library)
        return AdamW(parameters, decays, beta1=solver.momentum, in_one=step)
    if library:
        step = KernelSGDStep(decays, solver.momentum, solver.nesterov, library)
    return SGD(parameters, decays, solver.momentum, solver.nesterov, in_one=step)


def _dynamic(*shape: int | None, dtype: ms.Type = ms.float32) -> Tensor:
    return Tensor(shape=list(shape), dtype=dtype)


# Mapped over the gradients: a list built in the graph would make it grow with its length squared.
_sum_of_squares = ops.MultitypeFuncGraph("sum_of_squares")


@_sum_of_squares.register("Tensor")
def _sum_of_squares_of(gradient: Tensor) -> Tensor:
    return ops.ReduceSum()(ops.Square()(gradient), ())


def _compiler(jit_level: str | None) -> Callable:
    """`ms.jit` that refuses what would fall back to Python and lose gradients without a word."""
    return ms.jit(fullgraph=True, **({"jit_level": jit_level} if jit_level else {}))


_divided = ops.MultitypeFuncGraph("divided")


@_divided.register("Tensor", "Tensor")
def _divided_by(divisor: Tensor, gradient: Tensor) -> Tensor:
    return gradient / divisor


def _finisher(square_sum: Callable | None, reducer: nn.Cell | None) -> Callable:
    """What a training step does with its gradients; see `build_train_step`."""

    def finished(losses: Tensor, gradients: tuple) -> tuple:
        # A gradient that is not finite shows in the sum of squares.
        if square_sum is None:
            squares = ops.addn(ops.HyperMap()(_sum_of_squares, gradients))
        else:
            squares = square_sum(gradients)
        if reducer is not None:
            gradients = reducer(gradients)
        return losses, squares, gradients

    return finished


def build_train_step(
    net: DeFRCN,
    optimizer: SGD | AdamW,
    *,
    batch_size: int,
    exact: bool,
    reducer: nn.Cell | None = None,
    square_sum: Callable | None = None,
    scaled: bool = False,
    jit_level: str | None = None,
) -> tuple[Callable, Callable]:
    """Compile the forward and backward pass and the update, as two functions.

    Args:
        net: the detector.
        optimizer: over its trainable parameters.
        batch_size: N.
        exact: compile once for all image sizes; otherwise once for each fixed input shape.
        reducer: from gradients to their mean over processes, see `parallel.Group.reducer`; None
            for one process.
        square_sum: from a tuple of tensors to the sum of their squares, see
            `defrcn.kernels.KernelSquareSum`; None for built-in operators.
        scaled: `gradients_of` takes one more input, a scalar that the loss is multiplied by and
            the gradients are divided by (`engine.loss_scale`).
        jit_level: of MindSpore's compiler, such as "O2"; None for its default.

    Returns:
        `(gradients_of, update)`: `gradients_of(*inputs of DeFRCN.losses)`, with `labelled` or
        without, gives the losses (4,)
        float32 in the order of `LOSS_NAMES`, the gradients' squared norm, both of this process
        alone, and the gradients, averaged over processes; `update(gradients, lr)` applies these.
        In between the caller can refuse losses that are not finite.
    """
    net.set_train(True)

    compiled = _compiler(jit_level)

    def total_loss(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        losses = net.losses(*inputs)
        return sum(losses), ops.stack(losses)

    def scaled_loss(*inputs: Tensor) -> tuple[Tensor, Tensor]:
        loss, losses = total_loss(*inputs[:-1])
        return loss * inputs[-1], losses

    loss_of = scaled_loss if scaled else total_loss
    gradient = ms.value_and_grad(loss_of, None, optimizer.parameters, has_aux=True)

    finished = _finisher(square_sum, reducer)

    @compiled
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
        *others: Tensor,
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
            *others,
        )
        if scaled:
            gradients = ops.HyperMap()(ops.partial(_divided, others[-1]), gradients)
        return finished(losses, gradients)

    # Separate arguments: a tuple would be taken for a constant and compiled anew every time.
    @compiled
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


def build_eval_step(net: DeFRCN, *, exact: bool, jit_level: str | None = None) -> Callable:
    """Compile inference for one image: (images, image_sizes, padded_size) -> `DeFRCN` outputs.

    It runs the Cell in evaluation mode. Build it once; a training step has its own function,
    because a jitted function keeps the mode of its first call.
    """

    @_compiler(jit_level)
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

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Residual blocks and pooling by kernels in C++ for CPUs, forward and backward.

Maps have channels last, (N, H, W, C). A block is one operator where it was forty: less to compile
and to start, nothing kept between the passes but what the backward pass reads.
"""

from __future__ import annotations

import mindspore as ms
import numpy as np
from mindspore import Parameter, ParameterTuple, Tensor, nn, ops

from src.defrcn.gdl import GradientDecoupledLayer
from src.defrcn.pcb_resnet import NUM_STAGES, ResNet
from src.defrcn.resnet import STAGES, ResNetC4
from src.defrcn.roi_align import ROIAlign
from src.defrcn.rpn import RPNHead

FLOAT = ms.float32


def kernel(library: str, name: str, types: tuple, gradient: object = None) -> ops.Custom:
    """The operator `name` of a library; its output shapes are the library's matter.

    Args:
        library: path of the kernels, see `kernels.library.built`.
        name: of the function.
        types: of its outputs; it returns a tuple, also of one.
        gradient: function of the inputs, the outputs and their gradients.
    """
    operator = ops.Custom(f"{library}:{name}", None, types, func_type="aot", bprop=gradient)
    # What inference of several output shapes looks for, and Custom sets for Ascend only.
    operator.add_prim_attr("reg_op_name", name)
    operator.add_prim_attr("multi_output", True)
    return operator


def rows_of(count: int) -> Tensor:
    """Its shape tells a kernel a number that shapes of outputs depend on."""
    return Tensor(np.zeros(count, np.int8))


# The functions below are read as text by MindSpore, which takes no variable number of arguments
# there. Letters: x the input; of convolution i wi its weight, ai and bi weight and bias of its
# norm, mi and vi mean and variance; s settings; r stride.


def _no_gradient(a, b, c, d, e, f, g, out, d_out):  # noqa: ANN001,ANN202
    z = ops.ZerosLike()
    return z(a), z(b), z(c), z(d), z(e), z(f), z(g)


def _frozen_block(library: str) -> ops.Custom:
    gradient = kernel(library, "FrozenBlockGrad", (FLOAT,) * 4)
    z = ops.ZerosLike()

    def back(x, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3, s, r, out, d_out):  # noqa: ANN001,ANN202
        first = (x, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3, s, r)
        dx, d1, d2, d3 = gradient(*first, out[1], out[2], out[0], d_out[0])
        one = (dx, d1, z(a1), z(b1), z(m1), z(v1))
        two = (d2, z(a2), z(b2), z(m2), z(v2))
        return *one, *two, d3, z(a3), z(b3), z(m3), z(v3), z(s), z(r)

    return kernel(library, "FrozenBlock", (FLOAT,) * 3, back)


def _frozen_block_projected(library: str) -> ops.Custom:
    gradient = kernel(library, "FrozenBlockProjectedGrad", (FLOAT,) * 5)
    z = ops.ZerosLike()

    def back(  # noqa: ANN202
        x, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3, w4, a4, b4, m4, v4, s, r, out, d_out  # noqa: ANN001,E501
    ):  # fmt: skip
        first = (x, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3)
        inputs = (*first, w4, a4, b4, m4, v4, s, r)
        dx, d1, d2, d3, d4 = gradient(*inputs, out[1], out[2], out[0], d_out[0])
        one = (dx, d1, z(a1), z(b1), z(m1), z(v1))
        two = (d2, z(a2), z(b2), z(m2), z(v2))
        three = (d3, z(a3), z(b3), z(m3), z(v3))
        return *one, *two, *three, d4, z(a4), z(b4), z(m4), z(v4), z(s), z(r)

    return kernel(library, "FrozenBlockProjected", (FLOAT,) * 3, back)


def _batch_block(library: str) -> ops.Custom:
    gradient = kernel(library, "BatchBlockGrad", (FLOAT,) * 10)
    z = ops.ZerosLike()

    def back(x, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3, s, r, out, d_out):  # noqa: ANN001,ANN202
        first = (x, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3, s, r)
        y, c1, c2, c3, stored = out[0], out[1], out[2], out[3], out[4]
        g = gradient(*first, y, c1, c2, c3, stored, d_out[0])
        one = (g[0], g[1], g[2], g[3], z(m1), z(v1))
        two = (g[4], g[5], g[6], z(m2), z(v2))
        return *one, *two, g[7], g[8], g[9], z(m3), z(v3), z(s), z(r)

    return kernel(library, "BatchBlock", (FLOAT,) * 11, back)


def _batch_block_projected(library: str) -> ops.Custom:
    gradient = kernel(library, "BatchBlockProjectedGrad", (FLOAT,) * 13)
    z = ops.ZerosLike()

    def back(  # noqa: ANN202
        x, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3, w4, a4, b4, m4, v4, s, r, out, d_out  # noqa: ANN001,E501
    ):  # fmt: skip
        first = (x, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3)
        inputs = (*first, w4, a4, b4, m4, v4, s, r)
        y, c1, c2, c3, c4, stored = out[0], out[1], out[2], out[3], out[4], out[5]
        g = gradient(*inputs, y, c1, c2, c3, c4, stored, d_out[0])
        one = (g[0], g[1], g[2], g[3], z(m1), z(v1))
        two = (g[4], g[5], g[6], z(m2), z(v2))
        three = (g[7], g[8], g[9], z(m3), z(v3))
        return *one, *two, *three, g[10], g[11], g[12], z(m4), z(v4), z(s), z(r)

    return kernel(library, "BatchBlockProjected", (FLOAT,) * 14, back)


class KernelBottleneck(nn.Cell):
    """`resnet.Bottleneck` by a kernel; its 3x3 convolution is Winograd's.

    Args:
        block: `Bottleneck` or `fast.TileBottleneck`, whose parameters it takes.
        library: path of the kernels.
        stride: cells; 1 where the pooling has taken it.
        input_gradient: False where nothing before the block is trained.

    Inputs:
        - **features** (Tensor) - (N, H, W, C) float32.

    Outputs:
        Tensor (N, H / stride, W / stride, D) float32, rounded up.
    """

    def __init__(
        self, block: nn.Cell, library: str, *, stride: int, input_gradient: bool = True
    ) -> None:
        super().__init__()
        # In the order that they have in a block, which optimizers and lists of them follow.
        layers = [block.shortcut] if block.projected else []
        layers += [block.conv1, block.conv2, block.conv3]
        held: list[Parameter] = []
        for layer in layers:
            norm = layer.norm
            held += [layer.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        # Not the Cells: what reads a Cell's parameter compiles the Cell.
        self.held = ParameterTuple(held)
        self.inputs = ParameterTuple(held[5:] + held[:5] if block.projected else held)
        norm, trained = layers[0].norm, layers[0].weight.requires_grad
        settings = [norm.eps, trained, input_gradient, getattr(norm, "momentum", 0.0)]
        self.settings = Tensor(np.array(settings, np.float64))
        self.stride = rows_of(stride)
        self.batch_norms = not layers[0].foldable
        self.kernel = (_frozen_block_projected if block.projected else _frozen_block)(library)
        if self.batch_norms:
            of_batch = _batch_block_projected if block.projected else _batch_block
            self.train_kernel = of_batch(library)
        self.count = len(layers)

    def construct(self, features: Tensor) -> Tensor:
        """See the class."""
        if not (self.batch_norms and self.training):
            return self.kernel(features, *self.inputs, self.settings, self.stride)[0]
        out = self.train_kernel(features, *self.inputs, self.settings, self.stride)
        for i in range(self.count):
            mean, variance = self.inputs[5 * i + 3], self.inputs[5 * i + 4]
            ops.assign(mean, ops.stop_gradient(out[self.count + 2 + 2 * i]))
            ops.assign(variance, ops.stop_gradient(out[self.count + 3 + 2 * i]))
        return out[0]


def _trained_stem(library: str) -> ops.Custom:
    gradient = kernel(library, "TrainedStemGrad", (FLOAT,))
    z = ops.ZerosLike()

    def back(x, w, a, b, m, v, s, out, d_out):  # noqa: ANN001,ANN202
        d = gradient(x, w, a, b, m, v, s, out[0], out[1], d_out[0])[0]
        return z(x), d, z(a), z(b), z(m), z(v), z(s)

    return kernel(library, "TrainedStem", (FLOAT,) * 2, back)


def _batch_stem(library: str) -> ops.Custom:
    gradient = kernel(library, "BatchStemGrad", (FLOAT,) * 3)
    z = ops.ZerosLike()

    def back(x, w, a, b, m, v, s, out, d_out):  # noqa: ANN001,ANN202
        d, da, db = gradient(x, w, a, b, m, v, s, out[0], out[1], out[2], d_out[0])
        return z(x), d, da, db, z(m), z(v), z(s)

    return kernel(library, "BatchStem", (FLOAT,) * 5, back)


class KernelStem(nn.Cell):
    """A ResNet's first convolution, its norm and pooling by a kernel.

    Args:
        layer: the convolution.
        norm: its norm.
        library: path of the kernels.
        trained: whether the convolution has a gradient; the images have none.
    """

    def __init__(self, layer: nn.Cell, norm: nn.Cell, library: str, *, trained: bool) -> None:
        super().__init__()
        held = [layer.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        self.held = ParameterTuple(held)
        settings = [norm.eps, getattr(norm, "momentum", 0.0)]
        self.settings = Tensor(np.array(settings, np.float64))
        self.batch_norm = trained and norm.weight.requires_grad
        if trained:
            self.kernel = _trained_stem(library)
        else:
            self.kernel = kernel(library, "FrozenStem", (FLOAT,), _no_gradient)
        if self.batch_norm:
            self.train_kernel = _batch_stem(library)

    def construct(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, H / 4, W / 4, C), rounded up."""
        if not (self.batch_norm and self.training):
            return self.kernel(images, *self.held, self.settings)[0]
        out = self.train_kernel(images, *self.held, self.settings)
        ops.assign(self.held[3], ops.stop_gradient(out[3]))
        ops.assign(self.held[4], ops.stop_gradient(out[4]))
        return out[0]


class KernelBackbone(nn.Cell):
    """`ResNetC4` whose stages are `KernelBottleneck`s.

    Args:
        backbone: whose parameters it takes; not for masked inputs.
        library: path of the kernels.

    Inputs:
        - **images** (Tensor) - (N, 3, H, W) float32, normalised, model frame.
        - **padded_size** (Tensor) - not used: the batch fills the tensor.

    Outputs:
        Tensor (N, H / 16, W / 16, C) float32 (rounded up).
    """

    def __init__(self, backbone: ResNetC4, library: str) -> None:
        super().__init__()
        self.freeze_at = backbone.freeze_at
        layer = backbone.stem.conv1
        self.stem = KernelStem(layer, layer.norm, library, trained=self.freeze_at < 1)
        for number, name in enumerate(STAGES, start=2):
            blocks = [
                KernelBottleneck(
                    block,
                    library,
                    stride=2 if number > 2 and i == 0 else 1,
                    input_gradient=i > 0 or number - 1 > self.freeze_at,
                )
                for i, block in enumerate(getattr(backbone, name))
            ]
            setattr(self, name, nn.CellList(blocks))

    def construct(self, images: Tensor, padded_size: Tensor) -> Tensor:
        """See the class."""
        return self._stages(images)[-1]

    def stages(self, images: Tensor, padded_size: Tensor) -> tuple[Tensor, ...]:
        """As `ResNetC4.stages`: the first three as (N, C, H, W)."""
        stem, res2, res3, res4 = self._stages(images)
        first = [one.transpose(0, 3, 1, 2) for one in (stem, res2, res3)]
        return *first, res4

    def _stages(self, images: Tensor) -> tuple[Tensor, ...]:
        stem = self._cut(self.stem(images), 1)
        res2 = stem
        for block in self.res2:
            res2 = block(res2)
        res2 = self._cut(res2, 2)
        res3 = res2
        for block in self.res3:
            res3 = block(res3)
        res3 = self._cut(res3, 3)
        res4 = res3
        for block in self.res4:
            res4 = block(res4)
        return stem, res2, res3, self._cut(res4, 4)

    def _cut(self, features: Tensor, stage: int) -> Tensor:
        if stage == self.freeze_at or (stage == 4 and self.freeze_at > 4):
            return ops.stop_gradient(features)
        return features


class EncoderBlock(nn.Cell):
    """`pcb_resnet.Bottleneck` with frozen norms by a kernel, without gradient.

    Args:
        block: whose parameters it takes.
        library: path of the kernels.
        stride: of its 3x3 convolution and of its shortcut, cells.
    """

    def __init__(self, block: nn.Cell, library: str, stride: int) -> None:
        super().__init__()
        layers = [(block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3)]
        if block.projected:
            layers.append((block.downsample[0], block.downsample[1]))
        held: list[Parameter] = []
        for layer, norm in layers:
            held += [layer.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]
        self.held = ParameterTuple(held)
        self.settings = Tensor(np.array([block.bn1.eps, 0, 0, 0], np.float64))
        self.stride = rows_of(stride)
        name = "EncoderBlockProjected" if block.projected else "EncoderBlock"
        self.kernel = kernel(library, name, (FLOAT,))

    def construct(self, features: Tensor) -> Tensor:
        """(N, H, W, C) -> (N, H / stride, W / stride, D), rounded up."""
        return self.kernel(features, *self.held, self.settings, self.stride)[0]


class KernelEncoder(nn.Cell):
    """`pcb_resnet.ResNet` by kernels, as it is used: norms frozen, no masks, no gradient.

    Args:
        net: whose parameters it takes.
        library: path of the kernels.
    """

    def __init__(self, net: ResNet, library: str) -> None:
        super().__init__()
        self.net = net
        self.stem = KernelStem(net.conv1, net.bn1, library, trained=False)
        blocks = [
            EncoderBlock(block, library, 2 if stage and not number else 1)
            for stage in range(NUM_STAGES)
            for number, block in enumerate(getattr(net, f"layer{stage + 1}"))
        ]
        self.blocks = nn.CellList(blocks)

    def construct(self, images: Tensor, odd: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, H / 32, W / 32, C), rounded up; `odd`: see `pcb_resnet.ResNet`."""
        if self.net.mindcv:
            out = self.net.stem(images, odd).transpose(0, 2, 3, 1)
        else:
            out = self.stem(images)
        for block in self.blocks:
            out = block(out)
        return out


def _decoupled(library: str) -> ops.Custom:
    gradient = kernel(library, "DecoupledGrad", (FLOAT,) * 3)
    z = ops.ZerosLike()

    def back(x, w, b, s, out, d_out):  # noqa: ANN001,ANN202
        dx, dw, db = gradient(x, w, b, s, d_out[0])
        return dx, dw, db, z(s)

    return kernel(library, "Decoupled", (FLOAT,), back)


class KernelGDL(nn.Cell):
    """`GradientDecoupledLayer` by a kernel.

    Args:
        layer: whose parameters it takes.
        library: path of the kernels.
    """

    def __init__(self, layer: GradientDecoupledLayer, library: str) -> None:
        super().__init__()
        self.held = ParameterTuple([layer.weight, layer.bias])
        self.scale = layer.scale
        self.settings = Tensor(np.array([layer.scale], np.float64))
        self.kernel = _decoupled(library)

    def construct(self, features: Tensor) -> Tensor:
        """See `GradientDecoupledLayer`."""
        if self.scale == 0.0:
            features = ops.stop_gradient(features)
        return self.kernel(features, *self.held, self.settings)[0]


def _roi_align(library: str) -> ops.Custom:
    gradient = kernel(library, "ROIAlignGrad", (FLOAT,))
    z = ops.ZerosLike()

    def back(features, boxes, size, s, kept, out, d_out):  # noqa: ANN001,ANN202
        d_features = gradient(features, boxes, size, s, kept, d_out[0])[0]
        return d_features, z(boxes), z(size), z(s), z(kept)

    return kernel(library, "ROIAlign", (FLOAT,), back)


class KernelROIAlign(nn.Cell):
    """`ROIAlign` by a kernel, each box as a map of its own.

    Args:
        pooler: whose settings it takes.
        library: path of the kernels.

    Inputs:
        As `ROIAlign`.

    Outputs:
        Tensor (N * R, B, B, C).
    """

    def __init__(self, pooler: ROIAlign, library: str) -> None:
        super().__init__()
        settings = [pooler.spatial_scale, pooler.num_bins, pooler.bin_step]
        self.settings = Tensor(np.array(settings, np.float64))
        self.kept = rows_of(-(-pooler.num_bins // pooler.bin_step))
        self.kernel = _roi_align(library)

    def construct(self, features: Tensor, boxes: Tensor, valid_size: Tensor) -> Tensor:
        """See the class."""
        boxes = ops.stop_gradient(boxes)
        return self.kernel(features, boxes, valid_size, self.settings, self.kept)[0]


def _box_block(library: str) -> ops.Custom:
    gradient = kernel(library, "BoxBlockGrad", (FLOAT,) * 5)
    z = ops.ZerosLike()

    def back(  # noqa: ANN202
        x, boxes, size, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3, w4, a4, b4, m4, v4, s, kept, out, d_out  # noqa: ANN001,E501
    ):  # fmt: skip
        first = (x, boxes, size, w1, a1, b1, m1, v1, w2, a2, b2, m2, v2, w3, a3, b3, m3, v3)
        inputs = (*first, w4, a4, b4, m4, v4, s, kept)
        dx, d1, d2, d3, d4 = gradient(*inputs, out[1], out[2], out[0], d_out[0])
        one = (d1, z(a1), z(b1), z(m1), z(v1))
        two = (d2, z(a2), z(b2), z(m2), z(v2))
        three = (d3, z(a3), z(b3), z(m3), z(v3))
        four = (d4, z(a4), z(b4), z(m4), z(v4))
        return dx, z(boxes), z(size), *one, *two, *three, *four, z(s), z(kept)

    return kernel(library, "BoxBlock", (FLOAT,) * 3, back)


class KernelBoxBlock(nn.Cell):
    """Pooling and the first block of res5 by a kernel.

    With frozen norms the block's layers that read pooled boxes are taken before the pooling, on
    the map: linear as both are, the order does not matter, and all boxes together have many times
    the cells of the map.

    Args:
        pooler: `ROIAlign`, whose settings it takes.
        block: `Bottleneck` or `fast.TileBottleneck`, with a projection; whose parameters it takes.
        library: path of the kernels.

    Inputs:
        As `ROIAlign`.

    Outputs:
        Tensor (N * R, B, B, D).
    """

    def __init__(self, pooler: ROIAlign, block: nn.Cell, library: str) -> None:
        super().__init__()
        self.pooler = KernelROIAlign(pooler, library)
        self.block = KernelBottleneck(block, library, stride=1)
        eps, weights = self.block.settings.asnumpy()[:2]
        settings = [eps, weights, *self.pooler.settings.asnumpy()]
        self.settings = Tensor(np.array(settings, np.float64))
        self.kernel = _box_block(library)

    def construct(self, features: Tensor, boxes: Tensor, valid_size: Tensor) -> Tensor:
        """See the class."""
        if self.block.batch_norms and self.training:
            return self.block(self.pooler(features, boxes, valid_size))
        given = (features, ops.stop_gradient(boxes), valid_size)
        return self.kernel(*given, *self.block.inputs, self.settings, self.pooler.kept)[0]


class BoxRows(nn.Cell):
    """`rcnn.BoxMaps` for maps with channels last, as `KernelROIAlign` gives them."""

    def construct(self, pooled: Tensor) -> Tensor:
        """(R, B, B, C) -> the same."""
        return pooled

    def average(self, maps: Tensor) -> Tensor:
        """(R, B, B, C) -> (R, C), the mean over positions."""
        return ops.ReduceMean()(maps, (1, 2))


def _at_anchors(library: str) -> ops.Custom:
    gradient = kernel(library, "RPNAtAnchorsGrad", (FLOAT,) * 7)
    z = ops.ZerosLike()

    def back(x, w1, b1, w2, b2, w3, b3, index, out, d_out):  # noqa: ANN001,ANN202
        inputs = (x, w1, b1, w2, b2, w3, b3, index)
        return *gradient(*inputs, out[2], d_out[0], d_out[1]), z(index)

    return kernel(library, "RPNAtAnchors", (FLOAT,) * 3, back)


class KernelRPNHead(nn.Cell):
    """`fast.SampledRPNHead` by kernels: on all cells without gradient, at sampled anchors with.

    Args:
        head: whose parameters it takes.
        library: path of the kernels.
    """

    def __init__(self, head: RPNHead, library: str) -> None:
        super().__init__()
        self.num_cell_anchors = head.num_cell_anchors
        layers = (head.conv, head.objectness_logits, head.anchor_deltas)
        self.held = ParameterTuple([one for layer in layers for one in (layer.weight, layer.bias)])
        self.dense = kernel(library, "RPNHead", (FLOAT,) * 2, _no_gradient)
        self.sampled = _at_anchors(library)

    def construct(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(N, H, W, C) -> logits (N, A), deltas (N, A, 4)."""
        return self.dense(ops.stop_gradient(features), *self.held)

    def at_anchors(
        self, features: Tensor, logits: Tensor, deltas: Tensor, index: Tensor
    ) -> tuple[Tensor, Tensor]:
        """See `RPNHead.at_anchors`: computed anew from the features."""
        out = self.sampled(features, *self.held, index)
        return out[0], out[1]

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Blocks and pooling by kernels give the numbers of what they stand for, and of its gradients."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.fast import make_fast, names_kept
from src.defrcn.gdl import GradientDecoupledLayer
from src.defrcn.kernel_blocks import (
    KernelBackbone,
    KernelBottleneck,
    KernelBoxBlock,
    KernelGDL,
    KernelROIAlign,
    KernelRPNHead,
    KernelStem,
)
from src.defrcn.kernels import use_kernels
from src.defrcn.rcnn import BoxMaps
from src.defrcn.resnet import Bottleneck, Stem
from src.defrcn.roi_align import ROIAlign
from src.network_define import parameters_of, set_parameters
from tests.helpers import small
from tests.helpers.small import MODES, boxes_in, compiled, eager

# Sums in float32 in another order; ReLU's switch may flip where a number is next to 0.
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
SHAPES = [(24, 8, 24, 1), (12, 8, 40, 1), (20, 16, 40, 2), (16, 24, 48, 1)]


def random_block(shape, norm):
    block = Bottleneck(*shape, norm)
    rng = np.random.default_rng(0)
    for parameter in block.get_parameters():
        size = parameter.shape
        if len(size) == 4:
            value = rng.normal(0, np.sqrt(2 / np.prod(size[1:])), size)
        elif "var" in parameter.name or parameter.name.endswith("norm.weight"):
            value = rng.uniform(0.5, 1.5, size)
        else:
            value = rng.uniform(-0.3, 0.3, size)
        parameter.set_data(Tensor(value.astype(np.float32)))
    return block


def passes(cell, inputs, weight, parameters, mode):
    """Output, gradient of the input, gradients of the parameters by name."""

    def run(features):
        return cell(features)

    def total(features, weight):
        return (cell(features) * weight).sum()

    gradient = ms.grad(total, 0, parameters)

    def back(features, weight):
        return gradient(features, weight)

    output = mode(run)(inputs).asnumpy()
    of_input, of_parameters = mode(back)(inputs, weight)
    return output, of_input.asnumpy(), [one.asnumpy() for one in of_parameters]


def rows(maps):
    return np.ascontiguousarray(maps.transpose(0, 2, 3, 1))


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(2, 9, 14), (3, 4, 4)])
def test_block(kernels, norm, shape, size):
    mode = compiled if size[0] == 3 else eager
    twin = random_block(shape, norm)
    twin.set_train(True)
    trained = [p for p in twin.get_parameters() if p.requires_grad]
    assert len(trained) == (3 + twin.projected) * (3 if norm == "BN" else 1)
    rng = np.random.default_rng(1)
    features = np.maximum(rng.normal(size=(size[0], shape[0], *size[1:])), 0).astype(np.float32)
    start = parameters_of(twin)
    weight = rng.normal(size=twin(Tensor(features)).shape).astype(np.float32)
    set_parameters(list(twin.get_parameters()), start)
    wanted = passes(twin, Tensor(features), Tensor(weight), trained, eager)
    gathered = parameters_of(twin)
    set_parameters(list(twin.get_parameters()), start)
    with names_kept(twin):
        cell = KernelBottleneck(twin, kernels, stride=shape[3])
    cell.set_train(True)
    found = passes(cell, Tensor(rows(features)), Tensor(rows(weight)), trained, mode)
    np.testing.assert_allclose(found[0].transpose(0, 3, 1, 2), wanted[0], **TOLERANCE)
    np.testing.assert_allclose(found[1].transpose(0, 3, 1, 2), wanted[1], **TOLERANCE)
    for one, other in zip(found[2], wanted[2]):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())
    assert [p.name for p in cell.get_parameters()] == list(start)
    for name, value in parameters_of(cell).items():
        np.testing.assert_allclose(value, gathered[name], rtol=1e-5, atol=1e-6, err_msg=name)
        if norm == "BN" and "running" in name:
            assert not np.array_equal(value, start[name])
    # Inference takes what was gathered.
    cell.set_train(False)
    twin.set_train(False)
    found = cell(Tensor(rows(features))).asnumpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, twin(Tensor(features)).asnumpy(), **TOLERANCE)


def test_what_is_not_wanted_is_not_computed(kernels):
    """The rest is the same."""
    twin = random_block(SHAPES[2], "FrozenBN")
    weights = [p for p in twin.get_parameters() if p.requires_grad]
    rng = np.random.default_rng(0)
    features = Tensor(rng.normal(size=(1, 7, 9, 20)).astype(np.float32))
    weight = Tensor(rng.normal(size=(1, 4, 5, 40)).astype(np.float32))
    whole = passes(KernelBottleneck(twin, kernels, stride=2), features, weight, weights, eager)
    cell = KernelBottleneck(twin, kernels, stride=2, input_gradient=False)
    part = passes(cell, features, weight, weights, eager)
    for one, other in zip(part[2], whole[2]):
        np.testing.assert_array_equal(one, other)
    for parameter in weights:
        parameter.requires_grad = False
    cell = KernelBottleneck(twin, kernels, stride=2)
    np.testing.assert_array_equal(passes(cell, features, weight, weights[:1], eager)[1], whole[1])


@pytest.mark.parametrize("size", [(12, 16), (7, 9), (4, 4)])
@pytest.mark.parametrize("shape", [*SHAPES, (64, 64, 256, 1), (160, 40, 160, 1)])
def test_a_picture_does_not_depend_on_those_beside_it(kernels, shape, size):
    """Bit for bit: processes that share a batch give the numbers of one that has all of it."""
    cell = KernelBottleneck(random_block(shape, "FrozenBN"), kernels, stride=shape[3])
    rng = np.random.default_rng(0)
    features = rng.normal(size=(3, *size, shape[0])).astype(np.float32)
    weight = rng.normal(size=cell(Tensor(features)).shape).astype(np.float32)
    trained = cell.trainable_params()
    whole = passes(cell, Tensor(features), Tensor(weight), trained, eager)
    for i in range(3):
        one = [Tensor(array[i : i + 1]) for array in (features, weight)]
        part = passes(cell, *one, trained, eager)
        np.testing.assert_array_equal(part[0][0], whole[0][i])
        np.testing.assert_array_equal(part[1][0], whole[1][i])


def test_what_is_no_number_shows(kernels):
    """A loss that is not finite stops a training: no kernel may hide one."""
    cell = KernelBottleneck(random_block(SHAPES[0], "FrozenBN"), kernels, stride=1)
    features = np.ones((1, 6, 6, 24), np.float32)
    features[0, 3, 3, 5] = np.nan
    out = cell(Tensor(features)).asnumpy()
    assert np.isnan(out[0, 3, 3]).all() and np.isnan(out[0, 2, 4]).any()


@MODES
@pytest.mark.parametrize(("bins", "step"), [(7, 1), (7, 2), (8, 2), (5, 2)])
def test_roi_align(kernels, mode, bins, step):
    """Also boxes beyond the map, beyond what counts of it, and without extent."""
    rng = np.random.default_rng(bins)
    twin = ROIAlign(bins, 1 / 16, 400, step)
    cell = KernelROIAlign(twin, kernels)
    boxes = np.stack([boxes_in((220, 300), 12, seed) for seed in (0, 1)]).astype(np.float32)
    boxes[:, :4] += rng.uniform(-150, 150, (2, 4, 4)).astype(np.float32)
    boxes[0, 4, 2:] = boxes[0, 4, :2]
    boxes[0, 5] = [-30, -40, 330, 250]
    features = Tensor(rng.normal(size=(2, 13, 18, 24)).astype(np.float32))
    valid = Tensor(np.array([12, 17], np.float32))
    side = -(-bins // step)
    weight = rng.normal(size=(24, side, side, 24)).astype(np.float32)
    by_place = Tensor(weight.reshape(24, side * side, 24).transpose(1, 0, 2))

    def pooled(features):
        return cell(features, Tensor(boxes), valid)

    def total(features):
        return (cell(features, Tensor(boxes), valid) * Tensor(weight)).sum()

    def twin_total(features):
        return (twin(features, Tensor(boxes), valid) * by_place).sum()

    def back(features):
        return ms.grad(total)(features)

    found = mode(pooled)(features).asnumpy().reshape(24, side * side, 24)
    wanted = twin(features, Tensor(boxes), valid).asnumpy().transpose(1, 0, 2)
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    wanted = ms.grad(twin_total)(features).asnumpy()
    np.testing.assert_allclose(mode(back)(features).asnumpy(), wanted, atol=2e-5)


def box_block(kernels, norm="FrozenBN"):
    """Pooling and a block, features, boxes (some beyond the map, or empty), what counts of it."""
    pooler = ROIAlign(7, 1 / 16, 400, 2)
    block = random_block((24, 16, 40, 1), norm)
    boxes = np.stack([boxes_in((220, 300), 20, seed) for seed in (0, 1, 2)]).astype(np.float32)
    boxes[:, :4] += np.random.default_rng(0).uniform(-150, 150, (3, 4, 4)).astype(np.float32)
    boxes[0, 4, 2:] = boxes[0, 4, :2]
    features = np.random.default_rng(1).normal(size=(3, 13, 18, 24)).astype(np.float32)
    return pooler, block, features, boxes, Tensor(np.array([12, 17], np.float32))


@pytest.mark.parametrize(("norm", "training"), [("FrozenBN", True), ("BN", False), ("BN", True)])
def test_pooling_and_a_block(kernels, norm, training):
    """As one after the other, though the block's first layers come before the pooling."""
    pooler, block, features, boxes, valid = box_block(kernels, norm)
    trained = [p for p in block.get_parameters() if p.requires_grad]
    layout = BoxMaps(4)
    cell = KernelBoxBlock(pooler, block, kernels)
    for one in (block, cell):
        one.set_train(training)
    weight = np.random.default_rng(2).normal(size=(60, 4, 4, 40)).astype(np.float32)

    def twin(features):
        return block(layout(pooler(features, Tensor(boxes), valid)))

    def fused(features):
        return cell(features, Tensor(boxes), valid)

    start = parameters_of(block)
    maps = Tensor(np.ascontiguousarray(weight.transpose(0, 3, 1, 2)))
    wanted = passes(twin, Tensor(features), maps, trained if training else trained[:1], eager)
    gathered = parameters_of(block)
    set_parameters(list(block.get_parameters()), start)
    if not training:
        # No gradient is asked for there.
        found = compiled(fused)(Tensor(features)).asnumpy()
        np.testing.assert_allclose(found.transpose(0, 3, 1, 2), wanted[0], **TOLERANCE)
        return
    found = passes(fused, Tensor(features), Tensor(weight), trained, compiled)
    np.testing.assert_allclose(found[0].transpose(0, 3, 1, 2), wanted[0], **TOLERANCE)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-3, atol=1e-3)
    for one, other in zip(found[2], wanted[2]):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())
    for name, value in parameters_of(cell).items():
        np.testing.assert_allclose(value, gathered[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_boxes_do_not_depend_on_those_beside_them(kernels):
    """Bit for bit, of other pictures and of the same."""
    pooler, block, features, boxes, valid = box_block(kernels)
    cell = KernelBoxBlock(pooler, block, kernels)
    weight = np.random.default_rng(2).normal(size=(60, 4, 4, 40)).astype(np.float32)

    def run(chosen, number):
        def fused(features):
            return cell(features, Tensor(boxes[chosen, :number]), valid)

        own = Tensor(weight.reshape(3, 20, 4, 4, 40)[chosen, :number].reshape(-1, 4, 4, 40))
        out, back, _ = passes(fused, Tensor(features[chosen]), own, cell.trainable_params(), eager)
        return out.reshape(-1, number, 4, 4, 40), back

    whole = run(slice(None), 20)
    for i in range(3):
        part = run(slice(i, i + 1), 20)
        np.testing.assert_array_equal(part[0][0], whole[0][i])
        np.testing.assert_array_equal(part[1][0], whole[1][i])
        few = run(slice(i, i + 1), 7)
        np.testing.assert_array_equal(few[0][0], whole[0][i, :7])


def test_rpn_head(kernels):
    """On all cells, and with gradient at sampled anchors, corners and repeated ones among them."""
    twin = small.detector().proposal_generator.rpn_head.set_train(True)
    weights = twin.trainable_params()
    assert len(weights) == 6
    with names_kept(twin):
        cell = KernelRPNHead(twin, kernels)
    rng = np.random.default_rng(0)
    features = Tensor(rng.normal(size=(2, 5, 7, 128)).astype(np.float32))
    index = rng.integers(0, 5 * 7 * twin.num_cell_anchors, (2, 12)).astype(np.int32)
    index[0, :3], index[1, :4] = (0, 5 * 7 * twin.num_cell_anchors - 1, 0), index[1, 4]
    at = Tensor(index)
    factors = [Tensor(rng.normal(size=size).astype(np.float32)) for size in ((24,), (24, 4))]

    def results(head, mode):
        def total(features):
            logits, deltas = head(features)
            logits, deltas = head.at_anchors(features, logits, deltas, at)
            return (logits * factors[0]).sum() + (deltas * factors[1]).sum()

        gradient = ms.value_and_grad(total, 0, weights)

        def back(features):
            return gradient(features)

        def dense(features):
            return head(features)

        value, (of_features, of_weights) = mode(back)(features)
        return [*mode(dense)(features), value, of_features, *of_weights]

    for mode in (eager, compiled):
        for wanted, found in zip(results(twin, eager), results(cell, mode)):
            assert wanted.shape == found.shape
            wanted = wanted.asnumpy()
            atol = 1e-4 * np.abs(wanted).max()
            np.testing.assert_allclose(found.asnumpy(), wanted, rtol=1e-4, atol=atol)


def random_stem(channels, norm):
    stem = Stem(channels, norm)
    rng = np.random.default_rng(0)
    for parameter in stem.get_parameters():
        low = 0.5 if "var" in parameter.name else -0.5
        value = rng.uniform(low, 1, parameter.shape)
        parameter.set_data(Tensor(value.astype(np.float32)))
    return stem


@pytest.mark.parametrize("size", [(2, 33, 50), (1, 70, 64), (1, 5, 3)])
def test_stem(kernels, size):
    twin = random_stem(8, "FrozenBN")
    images = np.random.default_rng(0).normal(size=(size[0], 3, *size[1:])).astype(np.float32)
    layer = twin.conv1
    wanted = twin(Tensor(images)).asnumpy()
    broken = images.copy()
    broken[0, 0, 2, 2] = np.nan
    for trained in (False, True):
        cell = KernelStem(layer, layer.norm, kernels, trained=trained)
        found = cell(Tensor(images)).asnumpy().transpose(0, 3, 1, 2)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        assert np.isnan(cell(Tensor(broken)).asnumpy()).any()


@pytest.mark.parametrize("norm", ["FrozenBN", "BN"])
@pytest.mark.parametrize(
    ("size", "channels", "mode"),
    [((2, 33, 50), 8, eager), ((1, 70, 64), 20, compiled), ((1, 5, 3), 16, eager)],
)
def test_a_stem_that_trains(kernels, norm, size, channels, mode):
    """Output, gradients, statistics; a part of the picture is of one colour, where cells tie."""
    twin = random_stem(channels, norm)
    twin.set_train(True)
    start, trained = parameters_of(twin), [p for p in twin.get_parameters() if p.requires_grad]
    assert len(trained) == (3 if norm == "BN" else 1)
    rng = np.random.default_rng(1)
    images = rng.normal(size=(size[0], 3, *size[1:])).astype(np.float32)
    images[:, :, 20:, :30] = 0.7
    weight = rng.normal(size=twin(Tensor(images)).shape).astype(np.float32)

    def results(cell, mode, weight):
        set_parameters(list(cell.get_parameters()), start)

        def total(images, weight):
            return (cell(images) * weight).sum()

        gradient = ms.grad(total, None, trained)

        def back(images, weight):
            return gradient(images, weight)

        output = cell(Tensor(images)).asnumpy()
        return output, [one.asnumpy() for one in mode(back)(Tensor(images), weight)]

    output, gradients = results(twin, eager, Tensor(weight))
    gathered = parameters_of(twin)
    with names_kept(twin):
        cell = KernelStem(twin.conv1, twin.conv1.norm, kernels, trained=True)
    cell.set_train(True)
    found, others = results(cell, mode, Tensor(rows(weight)))
    np.testing.assert_allclose(found.transpose(0, 3, 1, 2), output, **TOLERANCE)
    for one, other in zip(others, gradients):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4 * np.abs(other).max())
    for name, value in parameters_of(cell).items():
        np.testing.assert_allclose(value, gathered[name], rtol=1e-5, atol=1e-6, err_msg=name)
        assert np.array_equal(value, start[name]) != (norm == "BN" and "running" in name)
    cell.set_train(False)
    twin.set_train(False)
    wanted = twin(Tensor(images)).asnumpy()
    found = cell(Tensor(images)).asnumpy().transpose(0, 3, 1, 2)
    np.testing.assert_allclose(found, wanted, **TOLERANCE)


@pytest.mark.parametrize(("norm", "freeze_at"), [("FrozenBN", 1), ("FrozenBN", 0), ("BN", 0)])
def test_backbone(kernels, norm, freeze_at):
    """All stages, for training and inference, of a batch of two sizes."""
    net = small.detector(small.section(backbone__norm=norm, backbone__freeze_at=freeze_at))
    images, _, padded = map(Tensor, small.pictures(((75, 97), (81, 60))))
    start, twin = parameters_of(net), net.backbone
    with names_kept(net):
        cell = KernelBackbone(twin, kernels)
    for training in (True, False):
        results = []
        for one in (twin, cell):
            one.set_train(training)
            set_parameters(list(net.get_parameters()), start)
            results.append([stage.asnumpy() for stage in one.stages(images, padded)])
        for wanted, found in zip(*results):
            assert wanted.shape == found.shape
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize(("scale", "mode"), [(0.75, eager), (0.75, compiled), (0.0, compiled)])
def test_gradient_decoupled_layer(kernels, scale, mode):
    """Output and gradient of the input bit for bit."""
    rng = np.random.default_rng(0)
    twin = GradientDecoupledLayer(20, scale)
    for parameter in twin.get_parameters():
        parameter.set_data(Tensor(rng.normal(1, 0.5, parameter.shape).astype(np.float32)))
    features, weight = (
        Tensor(rng.normal(size=(2, 40, 33, 20)).astype(np.float32)) for _ in range(2)
    )
    trained = [twin.weight, twin.bias]
    wanted = passes(twin, features, weight, trained, eager)
    with names_kept(twin):
        cell = KernelGDL(twin, kernels)
    assert [p.name for p in cell.get_parameters()] == ["weight", "bias"]
    found = passes(cell, features, weight, trained, mode)
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
    assert (found[1] != 0).any() == (scale > 0)
    for one, other in zip(found[2], wanted[2]):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-3)


def test_other_bins_and_masks(kernels):
    """What kernels are not for stays; names of parameters stay in any case."""
    model = small.section(roi_heads__pooler_resolution=5)
    for masked in (False, True):
        net = small.detector(model, masked=masked, fast=False)
        names = set(parameters_of(net))
        make_fast(net)
        use_kernels(net, kernels)
        assert set(parameters_of(net)) == names
        assert isinstance(net.backbone, KernelBackbone) == (not masked)
        images, sizes, padded = small.pictures(((64, 80),), shape=(96, 112) if masked else None)
        outputs = net.set_train(False)(*map(Tensor, (images, sizes, padded)))
        twin = small.detector(model, masked=masked, fast=False).set_train(False)
        wanted = twin(*map(Tensor, (images, sizes, padded)))
        (boxes, scores, valid), others = (tuple(x.asnumpy() for x in y) for y in (outputs, wanted))
        # Deltas of random weights make some boxes sixty times larger, and their rounding too.
        np.testing.assert_allclose(boxes, others[0], rtol=1e-3, atol=0.1)
        np.testing.assert_allclose(scores, others[1], rtol=1e-4, atol=1e-5)
        np.testing.assert_array_equal(valid, others[2])

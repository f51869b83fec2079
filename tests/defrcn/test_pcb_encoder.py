# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The block's ResNet: layout from a file, pieces and padding without effect, batch statistics."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor
from mindspore.common.api import ms_compile_cache

from src.defrcn.pcb_encoder import ResNetEncoder, normalised, tiles
from src.defrcn.pcb_resnet import ResNet, layout_of
from src.model_utils.errors import InputError
from src.network_define import parameters_of
from src.weights.parameter_rules import shapes_of
from src.weights.weight_shapes import EncoderLayout
from tests.golden import golden

SMALL = EncoderLayout((1, 1, 2, 1), 8, (8, 8, 16, 16), (32, 32, 64, 64), 10)


def parameters(layout=SMALL, seed=0):
    """Values with which features are of order one."""
    rng = np.random.default_rng(seed)
    found = {}
    for name, shape in layout.shapes().items():
        if len(shape) > 1:
            values = rng.normal(0, np.sqrt(2 / np.prod(shape[1:])), shape)
        else:
            values = rng.uniform(0.5, 1.5, shape) if "var" in name else rng.normal(0.5, 0.2, shape)
        found[name] = values.astype(np.float32)
    return found


def encoder(**changes):
    settings = {"identity": "small", "source": "small", "max_pixels": 10**7, **changes}
    return ResNetEncoder(parameters(), **settings)


def pixels(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def reference(params, layout, image):
    """The network in float64 and plain loops over kernels: (3, H, W) -> (C, h, w)."""

    def convolved(features, weight, stride):
        side = weight.shape[2]
        pad = side // 2
        padded = np.pad(features, ((0, 0), (pad, pad), (pad, pad)))
        height, width = (-(-length // stride) for length in features.shape[1:])
        out = np.zeros((len(weight), height, width))
        for i in range(side):
            for j in range(side):
                seen = padded[:, i::stride, j::stride][:, :height, :width]
                out += np.einsum("dc,chw->dhw", weight[:, :, i, j].astype(np.float64), seen)
        return out

    def normed(features, convolution, norm, stride=1):
        out = convolved(features, params[f"{convolution}.weight"], stride)
        weight, bias, mean, var = (
            params[f"{norm}.{part}"][:, None, None].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        return (out - mean) / np.sqrt(var + 1e-5) * weight + bias

    out = np.maximum(normed(image.astype(np.float64), "conv1", "bn1", 2), 0)
    padded = np.pad(out, ((0, 0), (1, 1), (1, 1)))
    height, width = (-(-length // 2) for length in out.shape[1:])
    out = np.max(
        [padded[:, i::2, j::2][:, :height, :width] for i in range(3) for j in range(3)],
        axis=0,
    )
    for stage, count in enumerate(layout.blocks, start=1):
        for block in range(count):
            name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            inner = np.maximum(normed(out, f"{name}.conv1", f"{name}.bn1"), 0)
            inner = np.maximum(normed(inner, f"{name}.conv2", f"{name}.bn2", stride), 0)
            inner = normed(inner, f"{name}.conv3", f"{name}.bn3")
            if f"{name}.downsample.0.weight" in params:
                out = normed(out, f"{name}.downsample.0", f"{name}.downsample.1", stride)
            out = np.maximum(inner + out, 0)
    return out


def test_the_network_is_what_it_says():
    """Stride in the 3x3, shortcut, running statistics, fc; sizes odd on purpose."""
    params, picture = parameters(), pixels(75, 101)
    found = encoder()
    features = found.feature_map(picture)
    expected = reference(params, SMALL, normalised(picture)).transpose(1, 2, 0)
    assert features.shape == expected.shape == (3, 4, 64)
    np.testing.assert_allclose(features, expected, rtol=0, atol=2e-5)
    vectors = found.project(features[0])
    by_hand = features[0] @ params["fc.weight"].T + params["fc.bias"]
    np.testing.assert_allclose(vectors, by_hand, rtol=1e-6)


def test_normalisation():
    picture = np.zeros((1, 1, 3), np.uint8)
    picture[0, 0] = (255, 0, 51)  # B, G, R
    expected = [(0.2 - 0.485) / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225]
    np.testing.assert_allclose(normalised(picture)[:, 0, 0], expected, rtol=1e-5)
    assert normalised(picture[None]).shape == (1, 3, 1, 1)


def test_pieces_and_padding_change_nothing(monkeypatch):
    picture = pixels(237, 205)
    whole = encoder().feature_map(picture)
    scale = np.abs(whole).max()
    for changes in ({"max_pixels": 1}, {"max_pixels": 30000}, {"shape_step": 128}):
        found = encoder(**changes).feature_map(picture)
        np.testing.assert_allclose(found, whole, rtol=0, atol=2e-6 * scale, err_msg=str(changes))
    # It must be able to fail: with less margin the seams show.
    monkeypatch.setattr(EncoderLayout, "reach", lambda self: 16)
    found = encoder(max_pixels=1).feature_map(picture)
    assert np.abs(found - whole).max() > 1e-3 * scale


def test_kernels_give_the_same_maps(kernels):
    plain, by_kernels = encoder(), encoder(library=kernels)
    in_pieces = encoder(library=kernels, max_pixels=30000)
    for size in ((237, 205), (64, 64), (33, 200), (40, 1), (1, 1)):
        picture = pixels(*size)
        expected = plain.feature_map(picture)
        scale = np.abs(expected).max()
        for found in (by_kernels.feature_map(picture), in_pieces.feature_map(picture)):
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("size", [(333, 259), (40, 5000), (5000, 40), (2000, 3000), (1, 1)])
@pytest.mark.parametrize("max_pixels", [1, 90_000, 10**6])
def test_pieces_cover_the_map_once_within_the_limit(size, max_pixels):
    cells = np.zeros([-(-side // 32) for side in size], int)
    reach = 53
    smallest = (32 * (1 + 2 * 2)) ** 2
    for rows, columns, to_rows, to_columns, from_rows, from_columns in tiles(
        *size, reach, max_pixels
    ):
        height, width = rows.stop - rows.start, columns.stop - columns.start
        assert height * width <= max(max_pixels, smallest, 160 * max(min(size), 160))
        assert from_rows.stop <= -(-height // 32) and from_columns.stop <= -(-width // 32)
        cells[to_rows, to_columns] += 1
        for pixels_of, to, own, length in (
            (rows, to_rows, from_rows, size[0]),
            (columns, to_columns, from_columns, size[1]),
        ):
            assert pixels_of.start == 32 * (to.start - own.start)
            assert pixels_of.start == 0 or pixels_of.start <= 32 * to.start - reach
            assert pixels_of.stop == length or pixels_of.stop >= 32 * (to.stop - 1) + reach + 1
    assert (cells == 1).all()


@pytest.mark.parametrize("by_kernels", [False, True])
def test_all_sizes_are_compiled_once(by_kernels, kernels):
    found = encoder(library=kernels if by_kernels else "")
    found.feature_map(pixels(64, 64))
    compiled = len(ms_compile_cache)
    for size in ((70, 90), (33, 200), (200, 33)):
        assert found.feature_map(pixels(*size)).shape[:2] == tuple(-(-s // 32) for s in size)
    assert len(ms_compile_cache) == compiled
    if by_kernels:
        return  # which takes no padded pictures
    padded = encoder(shape_step=128)
    for size in ((100, 100), (128, 90), (200, 128), (130, 33)):
        padded.feature_map(pixels(*size))
    assert len(ms_compile_cache) == compiled + 2  # 128 x 128 and 256 x 128


def test_layouts_of_torchvision():
    shapes = golden.weights.load_specs(golden.common("specs_pcb.json"))
    layout = layout_of(shapes, "golden")
    assert layout.blocks == (3, 4, 23, 3) and layout.num_outputs == 1000
    assert layout.stem_channels == 64
    assert layout.widths == (64, 128, 256, 512)
    assert layout.out_channels == (256, 512, 1024, 2048)
    counters = {name for name in shapes if name.endswith("num_batches_tracked")}
    assert layout.shapes().keys() == shapes.keys() - counters
    # 7x7, pooling, then 16 + ... : half of 971 for the 101 layers with the stride in the 3x3.
    assert layout.reach() == 485
    for blocks in ((3, 4, 6, 3), (3, 8, 36, 3)):
        other = EncoderLayout(blocks, 64, layout.widths, layout.out_channels, 1000)
        assert layout_of(other.shapes(), "x") == other
    assert layout_of(shapes_of(parameters()), "x") == SMALL


def without(name):
    return {key: shape for key, shape in SMALL.shapes().items() if key != name}


@pytest.mark.parametrize(
    ("shapes", "expected"),
    [
        (without("fc.weight"), r"lacks 'fc.weight'.*pth2ckpt"),
        (without("layer2.0.conv3.weight"), r"lacks 'layer2.0.conv3.weight'"),  # as in ResNet-18
        (without("layer3.1.bn2.bias"), r"layer3.1.bn2.bias"),
        ({**SMALL.shapes(), "layer4.0.conv2.weight": (16, 8, 3, 3)}, r"layer4.0.conv2.weight"),
        ({**SMALL.shapes(), "extra.weight": (1,)}, r"extra.weight"),
        ({"backbone.stem.conv1.weight": (64, 3, 7, 7)}, r"lacks 'conv1.weight'"),
    ],
)
def test_other_files_are_refused(shapes, expected):
    with pytest.raises(InputError, match=expected):
        layout_of(shapes, "file.ckpt")


def test_nothing_can_be_trained_in_an_encoder():
    net = ResNet(SMALL)
    assert {p.name for p in net.get_parameters()} == SMALL.shapes().keys()
    frozen = [p.name for p in net.trainable_params() if ".bn" in p.name or "downsample.1" in p.name]
    assert frozen == []
    with pytest.raises(ValueError, match="beyond the picture"):
        ResNet(SMALL, batch_statistics=True, masked=True)


@pytest.mark.slow
def test_batch_statistics_train_and_become_running_ones():
    """After many looks at one batch, the stored statistics normalise as the batch's own did."""
    net = ResNet(SMALL, batch_statistics=True)
    for parameter in net.get_parameters():
        if "running" not in parameter.name:
            parameter.set_data(Tensor(parameters()[parameter.name]))
    picture = pixels(96, 96)
    images = Tensor(np.stack([normalised(picture), normalised(pixels(96, 96, 1))]))
    size = Tensor(np.array([96, 96], np.int32))
    share = Tensor(np.full((2, 1, 3, 3), 1 / 9, np.float32))
    weights = ms.ParameterTuple(net.trainable_params())

    def total(images, size, share):
        return net.classify(images, size, share).sum()

    gradient = ms.grad(total, None, weights)

    @ms.jit(fullgraph=True)
    def gradients_of(images, size, share):
        return gradient(images, size, share)

    @ms.jit(fullgraph=True)
    def look(images, size):
        return net(images, size)

    gradients = gradients_of(images, size, share)
    for _ in range(60):
        features = look(images, size)
    assert all(np.abs(g.asnumpy()).max() > 0 for g in gradients)
    assert {p.name for p in weights} == {n for n in SMALL.shapes() if "running" not in n}
    params = parameters_of(net)
    assert layout_of(shapes_of(params), "trained") == SMALL
    made = ResNetEncoder(params, identity="", source="", max_pixels=10**7).feature_map(picture)
    expected = features.asnumpy()[0].transpose(1, 2, 0)
    # The running variance is the unbiased one: 9 cells a picture, 18 in the batch, at the end.
    assert np.abs(made - expected).max() < 0.06 * np.abs(expected).max()

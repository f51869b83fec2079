# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The encoder on a canvas gives the map that it gives of the picture alone."""

import numpy as np
import pytest
from mindspore import Tensor

from src.defrcn.pcb_encoder import loaded_resnet, normalised
from src.export.encoder import EncoderForExport, example_inputs
from tests.defrcn.test_pcb_encoder import SMALL, parameters, pixels, reference
from tests.helpers import mindcv_reference as mindcv

CANVAS = (128, 160)
SIZES_OF_MINDCV = mindcv.SIZES[:2]  # even and odd after the stem
SIZES = ((128, 160), (75, 101), (97, 64), (33, 159), (1, 2))


def on_canvas(cell, picture, beyond=0.0):
    """The map of a picture, and of what lies beyond it."""
    height, width = picture.shape[:2]
    image = np.full((1, 3, *CANVAS), beyond, np.float32)
    image[0, :, :height, :width] = picture.transpose(2, 0, 1)
    features = cell(Tensor(image), Tensor(np.array([[height, width]], np.float32))).asnumpy()
    assert features.shape == (1, 4, 5, 64) and features.dtype == np.float32
    return features[0, : -(-height // 32), : -(-width // 32)]


def cell(oblong=False):
    net = loaded_resnet(parameters(), "small", masked=True)
    return EncoderForExport(net, height=CANVAS[0], width=CANVAS[1], oblong=oblong)


@pytest.mark.parametrize(
    ("oblong", "sizes"), [(False, SIZES[1:2]), pytest.param(True, SIZES, marks=pytest.mark.slow)]
)
def test_the_map_is_the_pictures_own(oblong, sizes):
    """Against the network by plain loops in float64; tests/predict has the exported graph."""
    made = cell(oblong)
    for size in sizes:
        picture = pixels(*size)
        expected = reference(parameters(), SMALL, normalised(picture)).transpose(1, 2, 0)
        scale = np.abs(expected).max()
        found = on_canvas(made, picture)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale, err_msg=str(size))
    # What lies beyond the picture does not count, bit by bit.
    np.testing.assert_array_equal(on_canvas(made, picture, beyond=200.0), found)


@pytest.mark.slow
def test_mindcv_pools_where_it_does_alone():
    """Features that MindCV's own code gave; sides are odd and even after the stem."""
    with np.load(mindcv.PATH) as file:
        stored = dict(file)
    shapes = {name: array for name, array in stored.items() if "features" not in name}
    params = {name: mindcv.values(name, tuple(shape)) for name, shape in shapes.items()}
    net = loaded_resnet(params, "resnet.ckpt", masked=True)
    height, width = (-(-max(sides) // 32) * 32 for sides in zip(*SIZES_OF_MINDCV))
    made = EncoderForExport(net, height=height, width=width)
    for size in SIZES_OF_MINDCV:
        expected = stored[f"features {size[0]} {size[1]}"]
        picture = mindcv.pixels(size)
        image = np.zeros((1, 3, height, width), np.float32)
        image[0, :, : size[0], : size[1]] = picture.transpose(2, 0, 1)
        found = made(Tensor(image), Tensor(np.array([size], np.float32))).asnumpy()[0]
        rows, columns = expected.shape[:2]
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            found[:rows, :columns, :: mindcv.EVERY], expected, rtol=0, atol=1e-5 * scale
        )


def test_an_encoder_without_masks_is_refused():
    with pytest.raises(ValueError, match="masked"):
        EncoderForExport(loaded_resnet(parameters(), "small"), height=32, width=32)
    image, size = example_inputs(64, 96)
    assert image.shape == (1, 3, 64, 96) and size.asnumpy().tolist() == [[64, 96]]

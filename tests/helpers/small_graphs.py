# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Networks of one convolution with the inputs and outputs of an exported detector and encoder.

MindSpore Lite builds them in a tenth of the time that it takes for a detector.
"""

from __future__ import annotations

import numpy as np
from mindspore import Tensor, nn
from mindspore.ops import operations

from src.defrcn.pcb_pooling import MapEncoder
from src.export.network import example_inputs
from tests.helpers.infer_program import write_mindir

CELL = 16


class Boxes(nn.Cell):
    """Stands for a detector: each cell of 16 x 16 pixels proposes a box for each of K classes."""

    def __init__(self, height, width, num_classes, rng):
        super().__init__()
        rows, columns = height // CELL, width // CELL
        self.num_proposals, self.num_classes = rows * columns, num_classes
        self.convolve_boxes = operations.Conv2D(4 * num_classes, CELL, stride=CELL)
        self.convolve_scores = operations.Conv2D(num_classes + 1, CELL, stride=CELL)
        shape = (3, CELL, CELL)
        weights = rng.normal(0, 1, (5 * num_classes + 1, *shape)).astype(np.float32)
        self.box_weight = Tensor(weights[: 4 * num_classes] * np.float32(2e-3))
        self.score_weight = Tensor(weights[4 * num_classes :] * np.float32(4e-4))
        y, x = np.mgrid[:rows, :columns] * CELL
        corners = np.stack([x - 8, y - 8, x + 24, y + 24], -1).reshape(-1, 4)
        anchors = np.tile(corners[None, :, None], (1, 1, num_classes, 1)).astype(np.float32)
        self.anchors = Tensor(anchors)
        self.last, self.softmax = operations.Transpose(), operations.Softmax(2)
        self.add, self.mul, self.product = operations.Add(), operations.Mul(), operations.MatMul()
        self.reshape = operations.Reshape()
        self.nothing = Tensor(np.zeros((4, 1), np.float32))
        ones = np.ones(self.num_proposals, np.int32)
        self.none, self.ones = Tensor(ones * 0), Tensor(ones)
        self.identity = Tensor(np.array([1, 0, 0, 0], np.int32))
        self.info = Tensor(np.array([0, self.num_proposals, 0, 0], np.int32))

    def construct(self, image, image_id, image_meta):
        cells, classes = self.num_proposals, self.num_classes
        moved = self.last(self.convolve_boxes(image, self.box_weight), (0, 2, 3, 1))
        moved = self.reshape(moved, (1, cells, classes, 4))
        unused = self.reshape(self.product(image_meta, self.nothing), (1, 1, 1, 1))
        scores = self.last(self.convolve_scores(image, self.score_weight), (0, 2, 3, 1))
        scores = self.reshape(scores, (1, cells, classes + 1))
        valid = self.add(self.mul(image_id, self.none), self.ones)
        info = self.add(self.mul(image_id, self.identity), self.info)
        return (
            self.add(self.add(moved, self.anchors), unused),
            self.softmax(scores),
            self.reshape(valid, (1, cells)),
            self.reshape(info, (1, 4)),
        )


class CellMeans(nn.Cell):
    """Stands for an encoder: 32 x 32 pixels become a cell of 6 numbers, channels last."""

    def __init__(self, weight):
        super().__init__()
        self.convolve = operations.Conv2D(6, 32, stride=32)
        self.weight = Tensor(weight)
        self.last, self.add = operations.Transpose(), operations.Add()
        self.product, self.nothing = operations.MatMul(), Tensor(np.zeros((2, 6), np.float32))

    def construct(self, image, size):
        cells = self.last(self.convolve(image, self.weight), (0, 2, 3, 1))
        return self.add(cells, self.product(size, self.nothing))


class CellMeansInNumpy(MapEncoder):
    """The same as `pcb.Encoder`."""

    stride, identity = 32, "test"

    def __init__(self, weight, projection, bias):
        self.weight, self.projection, self.bias = weight, projection, bias

    def feature_map(self, pixels):
        height, width = (-(-side // 32) for side in pixels.shape[:2])
        canvas = np.zeros((height * 32, width * 32, 3), np.float32)
        canvas[: pixels.shape[0], : pixels.shape[1]] = pixels
        cells = canvas.reshape(height, 32, width, 32, 3)
        return np.einsum("hywxc,ncyx->hwn", cells, self.weight).astype(np.float32)

    def project(self, pooled):
        return pooled @ self.projection.T + self.bias


def write_boxes(network, height, width, path):
    return write_mindir(network, example_inputs(height, width), path)


def write_cell_means(weight, height, width, path):
    inputs = [Tensor(np.zeros(shape, np.float32)) for shape in ((1, 3, height, width), (1, 2))]
    return write_mindir(CellMeans(weight), inputs, path)

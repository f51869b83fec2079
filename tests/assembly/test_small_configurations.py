# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Every small configuration trains as it stands, with kernels and without them."""

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor

from src.assembly.training import kernels_of, make_detector
from src.data.batching import Batch
from src.defrcn.kernels import KernelSquareSum
from src.engine.noise import Noise
from src.engine.trainer import batch_tensors
from src.model_utils.config import load_config
from src.model_utils.paths import project_folder
from src.network_define import build_optimizer, build_train_step
from src.weights.initialise import initialise
from tests.helpers import small

CONFIGS = project_folder() / "configs"
# those with "_" only say where the data lie
PATHS = sorted([*(CONFIGS / "demo").glob("*.yaml"), *(CONFIGS / "own").glob("[!_]*.yaml")])
NUM_CLASSES = 3


def batch(count, size):
    """`count` pictures, each a little smaller than the one before, all with two objects."""
    sizes = [(size - 4 * i, size + 24 - 4 * i) for i in range(count)]
    images, heights, padded = small.pictures(sizes)
    return Batch(
        images=images / 60,
        image_sizes=heights,
        padded_size=padded,
        gt_boxes=np.stack([small.boxes_in(one, 2, seed) for seed, one in enumerate(sizes)]),
        gt_classes=np.tile(np.array([0, 2], np.int32), (count, 1)),
        gt_valid=np.ones((count, 2), bool),
        image_ids=list(range(count)),
        file_names=[f"{i}.jpg" for i in range(count)],
        original_sizes=np.array(sizes, np.int32),
        positions=tuple(range(count)),
    )


def losses_of(config, *, with_kernels):
    """The four losses of four steps of the batch that it asks for, two sizes in turn.

    The weights change after the second and the third one.
    """
    solver, model = config.solver, config.model
    library = str(kernels_of(config) or "") if with_kernels else ""
    net = make_detector(config, tuple("abc"), kernels=with_kernels)
    initialise(net, 0)
    gradients_of, update = build_train_step(
        net,
        build_optimizer(net, solver, library),
        batch_size=solver.images_per_card,
        exact=True,
        square_sum=KernelSquareSum(library) if library else None,
    )
    noise = Noise(
        anchors_per_cell=len(model.anchors.sizes) * len(model.anchors.aspect_ratios),
        proposals=model.rpn.post_nms_topk_train,
        dropout=(model.roi_heads.batch_size_per_image, 8 * model.backbone.res2_out_channels)
        if model.roi_heads.cls_dropout
        else (1, 1),
    )
    rows = []
    sizes = (config.input.min_size_train[0], config.input.min_size_train[-1]) * 2
    for number, size in enumerate(sizes):
        made = batch(solver.images_per_card, size)
        inputs = (*batch_tensors(made), *map(Tensor, noise.draw(0, made)))
        losses, squares, gradients = gradients_of(*inputs)
        assert np.isfinite(squares.asnumpy())
        rows.append(losses.asnumpy())
        if number in (1, 2):
            update(gradients, Tensor(solver.base_lr / 10, ms.float32)).asnumpy()
    return np.array(rows)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_it_trains(path, kernels):
    """With the same losses in both forms, until other roundings of an update choose other boxes."""
    config = load_config(path)
    assert str(kernels_of(config)) == kernels
    found, wanted = (losses_of(config, with_kernels=one) for one in (True, False))
    np.testing.assert_allclose(found[:2], wanted[:2], rtol=2e-3, atol=1e-4)
    for rows in (found, wanted):
        assert np.isfinite(rows).all() and (rows[:, [0, 2]] > 0).all()
        assert not np.array_equal(rows[0], rows[2])  # the updates did something

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the configuration to a training: data, network, start weights, loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mindspore as ms
import numpy as np

from src.assembly.data import TrainingData, preprocessing
from src.calibration.support_set import FILE_NAME
from src.dataset import TrainLoader, build_mindrecord
from src.defrcn.data_types import Record
from src.defrcn.de_frcn import DeFRCN
from src.defrcn.fast import make_fast
from src.defrcn.half import make_half
from src.defrcn.kernels import KernelSquareSum, use_kernels
from src.defrcn.portable import order_by_topk
from src.engine.loss_scale import LossScale
from src.engine.noise import Noise
from src.engine.parallel import ALONE, Group
from src.engine.trainer import Trainer
from src.kernels import library
from src.lr_schedule import Schedule
from src.model_utils.config import Config, require_path, to_plain
from src.model_utils.errors import InputError
from src.model_utils.interruption import StopRequests
from src.network_define import (
    build_detector,
    build_optimizer,
    build_train_step,
    set_parameters,
)
from src.weights.checkpoint import (
    TrainingCheckpoint,
    load_weights,
)
from src.weights.initialise import initialise
from src.weights.note import check_classes, class_names_of
from src.weights.parameter_rules import (
    BACKBONE_PRETRAINED,
    FULL,
    SURGERY_REMOVE,
    ParameterRule,
    detector_rule,
    shapes_of,
)

logger = logging.getLogger(__name__)

# What `model.formulation: auto` is on each device: only on CPUs was it measured.
FORMULATIONS = {"CPU": "fast", "GPU": "plain", "Ascend": "plain"}
# What `amp_level: auto` is on each device, as in MindSpore's own `amp`.
AMP_LEVELS = {"CPU": "O0", "GPU": "O2", "Ascend": "O3"}
FIRST_LOSS_SCALE = 2.0**16


def shared_mindrecord(
    config: Config,
    records: list[Record],
    folder: Path,
    class_names: tuple[str, ...],
    *,
    training: bool,
    labelled: bool = False,
    group: Group,
) -> None:
    """Have one process of each machine build a MindRecord folder; return when it is there."""
    build_mindrecord(
        records,
        folder,
        class_names=class_names,
        training=training,
        labelled=labelled,
        max_image_pixels=config.data.max_image_pixels,
        num_workers=config.data.num_workers,
        builds=group.local_rank == 0,
        wait_minutes=config.data.wait_minutes,
    )
    # Not before the builder has also checked what was there already.
    group.wait()


def open_training_data(
    config: Config, data: TrainingData, *, start_batch: int, group: Group = ALONE
) -> TrainLoader:
    """Build the MindRecord of the training sets if needed, and open it.

    Args:
        config: the configuration.
        data: the training sets.
        start_batch: number of the first batch, for a resumed run.
        group: the processes that share the data.

    Raises:
        InputError: `cls_loss` is `dcfs` and no set is a K-shot set.
    """
    decoupled = config.model.roi_heads.cls_loss == "dcfs"
    if decoupled and data.support is None:
        raise InputError(
            f"model.roi_heads.cls_loss is dcfs, but data.train ({', '.join(config.data.train)}) is "
            "no K-shot set: the loss is for pictures that are labelled for some classes only; set "
            "it to ce for base training"
        )
    shared_mindrecord(
        config,
        data.records,
        Path(config.train_mindrecord_dir),
        data.info.class_names,
        training=config.data.filter_empty,
        labelled=decoupled,
        group=group,
    )
    return TrainLoader(
        config.train_mindrecord_dir,
        preprocessing(config, config.input.max_size_train),
        batch_size=config.solver.images_per_card,
        seed=config.seed,
        rank=group.rank,
        world_size=group.size,
        start_batch=start_batch,
        min_sizes=config.input.min_size_train,
        flip_probability=config.input.flip_probability,
        aspect_ratio_grouping=config.data.aspect_ratio_grouping,
        num_workers=config.data.num_workers,
        labelled=decoupled,
    )


def make_detector(config: Config, class_names: tuple[str, ...], *, kernels: bool = True) -> DeFRCN:
    """Build the detector for these classes.

    Args:
        config: the configuration.
        class_names: of the data set.
        kernels: whether it may have parts that only this machine can run.

    Raises:
        InputError: `model.num_classes` is another number.
    """
    wanted = config.model.num_classes
    if wanted is not None and wanted != len(class_names):
        raise InputError(
            f"model.num_classes is {wanted}, but the data set has {len(class_names)} classes; "
            "set it to that number or leave it out"
        )
    exact = config.input.input_shapes == "exact"
    net = build_detector(
        config.model,
        num_classes=len(class_names),
        max_size=max(config.input.max_size_train, config.input.max_size_test),
        masked=not exact,
    )
    if formulation_of(config) == "fast":
        make_fast(net)
        if path := kernels_of(config) if kernels else None:
            use_kernels(net, str(path), blocks=library.has_fast_products(path))
            logger.info("kernels in C++: %s", path.name)
        elif kernels and config.device_target == "CPU":
            logger.info(
                "no kernels in C++: %s builds them; all is faster with them, in less memory",
                library.COMMAND,
            )
    if config.device_target == "GPU":
        order_by_topk(net)
    level = amp_level_of(config)
    if level != "O0":
        make_half(net, getattr(ms, config.amp_dtype), half_norm=level == "O3")
        logger.info("backbone and res5 in %s (amp_level %s)", config.amp_dtype, level)
    return net


def kernels_of(config: Config) -> Path | None:
    """The library of kernels that a configuration's detector takes; None for none."""
    wanted = formulation_of(config) == "fast" and config.device_target == "CPU"
    return library.built() if wanted else None


def formulation_of(config: Config) -> str:
    """How layers are computed, "fast" or "plain", chosen for the device where the key is `auto`."""
    wanted = config.model.formulation
    if wanted == "auto" and amp_level_of(config) != "O0":
        return "plain"
    return FORMULATIONS[config.device_target] if wanted == "auto" else wanted


def amp_level_of(config: Config) -> str:
    """How much is computed in half precision: "O0" nothing, "O2", "O3"."""
    wanted = config.amp_level
    return AMP_LEVELS[config.device_target] if wanted == "auto" else wanted


def loss_scale_of(config: Config) -> LossScale | None:
    """The factor of the loss in half precision; None in float32."""
    if amp_level_of(config) == "O0":
        return None
    fixed = config.solver.loss_scale
    return LossScale(
        FIRST_LOSS_SCALE if fixed is None else fixed,
        dynamic=fixed is None,
        window=config.solver.loss_scale_window,
    )


def load_into(net: DeFRCN, params: dict[str, np.ndarray], source: str, rule: ParameterRule) -> None:
    """Check every name and shape against the network, then set the parameters."""
    parameters = list(net.get_parameters())
    wanted = {parameter.name: tuple(parameter.shape) for parameter in parameters}
    rule.check(shapes_of(params), wanted, source)
    set_parameters(parameters, params)
    logger.info("loaded %s", source)


def load_detector(net: DeFRCN, path: Path, class_names: tuple[str, ...]) -> None:
    """Load a detector to go on from: whole, or without class layers, which keep what they have.

    Args:
        net: the detector, initialised.
        path: `.ckpt` of base training, of surgery, or converted.
        class_names: of the training set.

    Raises:
        InputError: the file does not fit the network, or is for other classes.
    """
    params = load_weights(path)
    rule = detector_rule(params)
    if rule is SURGERY_REMOVE:
        logger.info("%s has no class and box layer: they start anew", path)
    else:
        bias = params.get("roi_heads.box_predictor.cls_score.bias")
        wanted = net.roi_heads.targets.num_classes
        given = wanted if bias is None else len(bias) - 1
        if given != wanted:
            raise InputError(
                f"model_pretrained_path: {path} is for {given} classes, the training set has "
                f"{wanted}; make it ready for them with python -m src.model_surgery"
            )
        check_classes(class_names_of(path), class_names, path, "the training set")
    load_into(net, params, str(path), rule)


def load_start(
    config: Config,
    net: DeFRCN,
    resumed: TrainingCheckpoint | None,
    class_names: tuple[str, ...],
) -> None:
    """Set the weights that training starts from.

    These are a resumed run's own, `model_pretrained_path`, `backbone_pretrained_path` for the
    backbone and res5, or else random ones; what a file does not hold is random too.

    Args:
        config: the configuration.
        net: the detector.
        resumed: the checkpoint of a run to continue.
        class_names: of the training set.

    Raises:
        InputError: a file is missing, does not fit the network, or is for other classes.
    """
    initialise(net, config.seed)
    if resumed is not None:
        check_classes(
            resumed.class_names, class_names, resumed.manifest, "the training set of this run"
        )
        load_into(net, resumed.params, str(resumed.manifest), FULL)
    elif config.model_pretrained_path:
        key = "model_pretrained_path"
        path = require_path(
            key, config.model_pretrained_path, "give a detector's .ckpt file", kind="file"
        )
        load_detector(net, path, class_names)
    elif config.backbone_pretrained_path:
        key = "backbone_pretrained_path"
        path = require_path(
            key, config.backbone_pretrained_path, "make it of R-101.pkl with src/pkl2ckpt.py"
        )
        load_into(net, load_weights(path), str(path), BACKBONE_PRETRAINED)
    elif config.model.backbone.norm == "FrozenBN":
        raise InputError(
            "backbone_pretrained_path and model_pretrained_path are empty, but a network with "
            "model.backbone.norm FrozenBN cannot be trained from random weights; name a file, "
            "or set the norm to BN and freeze_at to 0"
        )


def make_trainer(
    config: Config,
    net: DeFRCN,
    schedule: Schedule,
    loader: TrainLoader,
    *,
    group: Group,
    evaluate: Callable[[int], None] | None,
    stop: StopRequests | None = None,
    origin: Mapping[str, Any] | None = None,
    data: TrainingData | None = None,
) -> Trainer:
    """Build optimizer, compiled steps and training loop.

    Args:
        config: the configuration.
        net: the detector.
        schedule: steps and rates.
        loader: the training pictures.
        group: the processes that train together.
        evaluate: called with the step; None for never.
        stop: asked after every step.
        origin: stored with every checkpoint, see `runs.origin_of`.
        data: whose K-shot boxes are written beside the checkpoints.
    """
    solver, model = config.solver, config.model
    kernels, loss_scale = kernels_of(config), loss_scale_of(config)
    optimizer = build_optimizer(net, solver, str(kernels or ""))
    gradients_of, update = build_train_step(
        net,
        optimizer,
        batch_size=solver.images_per_card,
        exact=config.input.input_shapes == "exact",
        reducer=group.reducer(optimizer.parameters),
        square_sum=KernelSquareSum(str(kernels)) if kernels else None,
        scaled=loss_scale is not None,
        jit_level=config.jit_level,
    )
    dropout = (model.roi_heads.batch_size_per_image, 8 * model.backbone.res2_out_channels)
    noise = Noise(
        anchors_per_cell=len(model.anchors.sizes) * len(model.anchors.aspect_ratios),
        proposals=model.rpn.post_nms_topk_train,
        dropout=dropout if model.roi_heads.cls_dropout else (1, 1),
    )
    return Trainer(
        net,
        optimizer,
        gradients_of,
        update,
        schedule,
        noise,
        seed=config.seed,
        num_images=loader.num_images,
        folder=config.save_checkpoint_path,
        info={"class_names": list(loader.class_names), "config": to_plain(config)}
        | dict(origin or {}),
        beside={FILE_NAME: data.support.to_json()} if data and data.support else None,
        log_period=config.log.period,
        save_period=config.checkpoint.period,
        keep_last=config.checkpoint.keep_last,
        evaluate=evaluate,
        eval_period=config.test.eval_period,
        idle_wait=config.device_target == "CPU",
        max_skipped=solver.max_skipped_steps,
        stop=stop,
        group=group,
        loss_scale=loss_scale,
    )

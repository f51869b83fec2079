# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the configuration to the calibration block's encoder: a ResNet, or an ONNX file."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from src.assembly.encoder_files import encoder_identity, encoder_key, encoder_path, onnx_of
from src.assembly.training import kernels_of
from src.defrcn.pcb import Encoder
from src.defrcn.pcb_encoder import ResNetEncoder
from src.defrcn.pcb_onnx import OnnxCrops, OnnxMaps
from src.kernels.library import has_fast_products
from src.model_utils.config import Config
from src.weights.checkpoint import load_weights

# With fixed input shapes, heights and widths are padded to multiples of this (pixels).
SHAPE_STEP = 128


def make_encoder(config: Config) -> Encoder:
    """Make the encoder that `test.pcb.encoder` names, or else `pcb_modelpath`.

    A `.yaml` is an ONNX file's, all else a checkpoint of a ResNet; another kind is another
    `pcb.Encoder` made here.

    Raises:
        InputError: there is no such file, or it is no such network.
    """
    path, key = encoder_path(config), encoder_key(config)
    identity = encoder_identity(path, key)
    if onnx_of(path, key) is not None:
        return _onnx(path, key, identity)
    exact = config.input.input_shapes == "exact"
    kernels = kernels_of(config)
    return _resnet(
        path,
        identity,
        config.test.pcb.max_pixels,
        0 if exact else SHAPE_STEP,
        config.device_target == "CPU",
        str(kernels) if kernels and has_fast_products(kernels) else "",
    )


def check_encoder(config: Config) -> None:
    """Find out early whether the encoder's file is there, and whether an ONNX file can be used.

    Raises:
        InputError: see `make_encoder`.
    """
    path = encoder_path(config)
    if onnx_of(path, encoder_key(config)) is not None:
        make_encoder(config)


@lru_cache(maxsize=1)
def _resnet(
    path: Path, identity: str, max_pixels: int, shape_step: int, idle_wait: bool, library: str
) -> ResNetEncoder:
    """Several test sets, and evaluations during training, share what is compiled."""
    return ResNetEncoder(
        load_weights(path, mindcv=True),
        identity=identity,
        source=path,
        max_pixels=max_pixels,
        shape_step=shape_step,
        idle_wait=idle_wait,
        library=library,
    )


@lru_cache(maxsize=1)
def _onnx(path: Path, key: str, identity: str) -> OnnxMaps | OnnxCrops:
    """Likewise."""
    found = onnx_of(path, key)
    assert found is not None
    settings, model = found
    kind = OnnxMaps if settings.features == "map" else OnnxCrops
    return kind(model, settings, identity=identity, source=path)

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block's encoder as files: which one is named, its kind, its content's hash.

`test.pcb.encoder` names it, or `pcb_modelpath` where that is empty: a checkpoint of a ResNet
(`.ckpt`), or a YAML file beside an ONNX file. No MindSpore here: the sweep asks too.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import shlex
from pathlib import Path

from src.model_utils.config import Config, read_section, require_path, to_plain
from src.model_utils.errors import InputError
from src.model_utils.onnx_settings import OnnxSettings
from src.util import sha256_file

ENCODER, MODELPATH = "test.pcb.encoder", "pcb_modelpath"
_YAML = (".yaml", ".yml")
# How protobuf writes that an array lies in another file: "location", its name (to 127 bytes).
_ELSEWHERE = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")


def encoder_key(config: Config) -> str:
    """The key that names the encoder."""
    return ENCODER if config.test.pcb.encoder else MODELPATH


def encoder_path(config: Config) -> Path:
    """The encoder's file.

    Raises:
        InputError: there is no such file; the message says how it is made.
    """
    key = encoder_key(config)
    if key == ENCODER:
        how = (
            "give the .ckpt of a ResNet, or the .yaml beside an ONNX file (docs/encoders.md), or "
            "leave the key empty for pcb_modelpath"
        )
        return require_path(key, config.test.pcb.encoder, how, kind="file")
    target = shlex.quote(config.pcb_modelpath or "res101_ms.ckpt")
    how = (
        "make it of torchvision's resnet101-5d3b4d8f.pth with `python src/pth2ckpt.py --input "
        f"resnet101-5d3b4d8f.pth --output {target}` (pictures unlike ImageNet's: `python -m "
        "src.tools.pretrain_encoder`), or set test.pcb.enable to false"
    )
    return require_path(key, config.pcb_modelpath, how, kind="file")


def onnx_of(path: Path, key: str) -> tuple[OnnxSettings, Path] | None:
    """Settings and model of an ONNX encoder; None for a checkpoint.

    Args:
        path: the encoder's file.
        key: that named it.

    Raises:
        InputError: the YAML file is wrong, there is no model, or an ONNX file is named itself.
    """
    if path.suffix == ".onnx":
        raise InputError(
            f"{key}: {path} does not say how pictures are brought to it; name a .yaml file beside "
            "it that does (docs/encoders.md)"
        )
    if path.suffix not in _YAML:
        return None
    settings = read_section(path, OnnxSettings, key)
    how = "name the ONNX file, seen from the folder of the YAML file"
    return settings, require_path(f"{path}: model", path.parent / settings.model, how, kind="file")


def encoder_identity(path: Path, key: str) -> str:
    """What changes with the encoder's results: SHA-256 of its content, wherever it lies.

    Of an ONNX encoder it is that of its settings and of all files with its arrays.

    Raises:
        InputError: see `onnx_of`.
    """
    found = onnx_of(path, key)
    if found is None:
        return sha256_file(path)
    settings, model = found
    content = {
        "settings": {name: v for name, v in to_plain(settings).items() if name != "model"},
        "model": sha256_file(model),
        "arrays": {name: sha256_file(model.parent / name) for name in _array_files(model)},
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _array_files(model: Path) -> list[str]:
    """Names of the files beside an ONNX file that hold arrays of it, those that exist."""
    if not model.stat().st_size:
        return []
    with model.open("rb") as handle, mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as all_:
        names = {
            all_[match.end() : match.end() + match[1][0]] for match in _ELSEWHERE.finditer(all_)
        }
    listed = sorted(name.decode("utf-8", "replace") for name in names)
    return [name for name in listed if "\0" not in name and (model.parent / name).is_file()]

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""ONNX files by onnxruntime on the CPU. It is imported only here, and only when one is opened."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from src.model_utils.errors import InputError

INSTALL = "pip install onnxruntime==1.19.2"


def import_onnxruntime(source: object) -> Any:  # noqa: ANN401
    """onnxruntime, which nothing else needs.

    Args:
        source: the file that needs it, for messages.

    Raises:
        InputError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise InputError(
            f"{source} needs onnxruntime, which is not installed here ({error}); {INSTALL}"
        ) from error
    return onnxruntime


class OnnxSession:
    """An ONNX file, ready to run.

    Args:
        path: the file.
        source: what named it, for messages.

    Attributes:
        inputs: name, type and shape of each, as onnxruntime has them.
        outputs: likewise.

    Raises:
        InputError: onnxruntime is missing or refuses the file.
    """

    def __init__(self, path: Path, source: object) -> None:
        runtime = import_onnxruntime(source)
        known = vars(runtime.capi.onnxruntime_pybind11_state).values()
        self._errors = tuple(
            kind for kind in known if isinstance(kind, type) and issubclass(kind, Exception)
        )
        options = runtime.SessionOptions()
        options.log_severity_level = 4  # errors are raised, and told in a sentence
        # Its threads would wait for the next picture on cores that the detector needs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except self._errors as error:
            raise InputError(
                f"{source}: model: onnxruntime {runtime.__version__} cannot load {path} "
                f"({_line(error)}); export it again"
            ) from error
        self.inputs: list[Any] = self._session.get_inputs()
        self.outputs: list[Any] = self._session.get_outputs()

    def run(self, names: Sequence[str] | None, feeds: Mapping[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs of these names, or all.

        Raises:
            ValueError: onnxruntime refuses the inputs; its reason, in one line.
        """
        try:
            return list(self._session.run(names, feeds))
        except self._errors as error:
            raise ValueError(_line(error)) from error


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]

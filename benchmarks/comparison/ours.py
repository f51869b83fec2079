# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The project's side: the work of every case by the functions that its programs call."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor

from benchmarks.comparison import inputs
from benchmarks.comparison.cases import Case
from src.assembly.evaluation import detections, make_inference
from src.assembly.training import kernels_of, make_detector
from src.data.batching import Batch
from src.defrcn.data_types import DatasetInfo
from src.defrcn.kernels import KernelSquareSum
from src.defrcn.pcb import Calibrator, Prototypes
from src.defrcn.pcb_encoder import ResNetEncoder
from src.detecteval import evaluate
from src.model_utils.config import load_config
from src.model_utils.device_adapter import Runtime
from src.model_utils.paths import project_folder
from src.network_define import build_optimizer, build_train_step, set_parameters
from src.util import idle_thread
from tests.golden import weights


def versions() -> dict[str, str]:
    """The library that did the work."""
    return {"mindspore": importlib.metadata.version("mindspore")}


class _Detection:
    """A detector with the weights of the comparison."""

    def __init__(self, case: Case) -> None:
        Runtime.start("CPU")
        self.case = case
        self.config = load_config(str(project_folder() / case.config), case.flags)
        self.net = make_detector(self.config, tuple(f"class{k}" for k in range(case.classes)))
        parameters = list(self.net.get_parameters())
        arrays = inputs.weights_for({one.name: one.shape for one in parameters})
        self.weights = inputs.fingerprint(arrays)
        set_parameters(parameters, arrays)

    def parts(self) -> dict[str, Callable[[], object]]:
        """None; inference has some."""
        return {}


class Inference(_Detection):
    """From a normalised picture to detections in the original's frame."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.outputs_of = make_inference(self.config, self.net)
        count = range(len(case.sizes))
        self.images = [inputs.images(case, self.config.input, number) for number in count]

    def run(self, number: int) -> None:
        """One picture."""
        size = np.array(self.case.sizes[number])
        batch = Batch(
            self.images[number],
            size[None].astype(np.float32),
            size.astype(np.int32),
            *(np.zeros(0) for _ in range(3)),
            [1],
            ["picture"],
            size[None].astype(np.int32),
        )
        (self.found,) = detections(self.config, self.outputs_of, [batch], 1)

    def result(self) -> dict[str, np.ndarray]:
        """Boxes, scores and classes of the last picture."""
        found = self.found
        return {"boxes": found.boxes, "scores": found.scores, "classes": found.classes}

    def parts(self) -> dict[str, Callable[[], object]]:
        """Backbone, RPN with proposals, and second stage with detections, each compiled alone."""
        net, size = self.net, self.case.sizes[0]
        net.set_train(False)
        images = Tensor(self.images[0])
        padded, sizes = Tensor(size, ms.int32), Tensor([size], ms.float32)

        def see(images: Tensor) -> Tensor:
            return net.backbone(images, padded)

        def propose(features: Tensor) -> tuple[Tensor, Tensor]:
            own, _, anchor_valid = net.rpn_inputs(features, padded)
            return net.proposal_generator(own, anchor_valid, sizes)

        def second(features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
            valid_size = net.rpn_inputs(features, padded)[1]
            return net.roi_heads(net.rcnn_features(features), boxes, valid_size)

        backbone, propose, second = (
            ms.jit(part, fullgraph=True) for part in (see, propose, second)
        )
        features = backbone(images).copy()
        boxes, valid = propose(features)
        # The other side has no slots to fill.
        boxes = Tensor(boxes.asnumpy()[:, : int(valid.asnumpy().sum())])
        return {
            "backbone": _waiting(lambda: backbone(images)),
            "RPN and proposals": _waiting(lambda: propose(features)[0]),
            "second stage": _waiting(lambda: second(features, boxes)[0]),
        }


def _waiting(work: Callable[[], Tensor]) -> Callable[[], object]:
    def run() -> object:
        with idle_thread(True):
            return work().asnumpy()

    return run


class Training(_Detection):
    """Forward, backward and update, as the training loop does them."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        kernels = str(kernels_of(self.config) or "")
        optimizer = build_optimizer(self.net, self.config.solver, kernels)
        self.gradients_of, self.update = build_train_step(
            self.net,
            optimizer,
            batch_size=case.images,
            exact=True,
            square_sum=KernelSquareSum(kernels) if kernels else None,
        )
        made = inputs.training(case, self.config)
        self.arrays = (
            made.images,
            made.sizes,
            np.array(case.sizes[0], np.int32),
            made.boxes,
            made.classes,
            np.ones(made.classes.shape, bool),
            made.rpn_noise,
            made.roi_noise,
            made.dropout_noise,
        )
        self.compiled = False

    def run(self, _number: int) -> None:
        """One step."""
        with idle_thread(self.compiled):
            losses, _, gradients = self.gradients_of(*map(Tensor, self.arrays))
            self.losses = losses.asnumpy()
            if not np.isfinite(self.losses).all():
                raise ArithmeticError(f"losses {self.losses}")
            self.update(gradients, Tensor(inputs.LEARNING_RATE, ms.float32)).asnumpy()
        self.compiled = True

    def result(self) -> dict[str, np.ndarray]:
        """The four losses of the last step."""
        return {"losses": self.losses}


class Calibration:
    """Scores of one picture's detections."""

    def __init__(self, case: Case) -> None:
        Runtime.start("CPU")
        config = load_config(str(project_folder() / case.config), case.flags)
        pcb = config.test.pcb
        specs = weights.load_specs(project_folder() / "tests/golden/specs_pcb.json")
        arrays = inputs.weights_for(specs)
        self.weights = inputs.fingerprint(arrays)
        encoder = ResNetEncoder(
            arrays,
            identity="",
            source="",
            max_pixels=pcb.max_pixels,
            idle_wait=True,
            library=str(kernels_of(config) or ""),
        )
        self.given = inputs.calibration(case)
        prototypes = Prototypes(self.given.prototypes, np.ones(case.classes, np.int64))
        self.calibrate = Calibrator(
            encoder,
            prototypes,
            excluded=(),
            alpha=pcb.alpha,
            lower=pcb.lower,
            upper=pcb.upper,
            read=lambda _name: None,
        )

    def run(self, _number: int) -> None:
        """One picture."""
        given = self.given
        self.scores = self.calibrate.on_pixels(
            given.pixels, given.boxes, given.scores, given.classes
        )

    def result(self) -> dict[str, np.ndarray]:
        """The scores afterwards."""
        return {"calibrated": self.scores}

    def parts(self) -> dict[str, Callable[[], object]]:
        """None."""
        return {}


class Coco:
    """COCO's figures by the project's evaluation."""

    weights = 0

    def __init__(self, case: Case) -> None:
        self.table, self.rows = inputs.annotations(case)

    def run(self, _number: int) -> None:
        """From annotations and rows to figures."""
        categories = self.table["categories"]
        info = DatasetInfo(
            name="generated",
            format="coco",
            annotations=Path(),
            image_root=Path(),
            image_list=None,
            class_names=tuple(one["name"] for one in categories),
            category_ids=tuple(one["id"] for one in categories),
            base_classes=(),
            novel_classes=(),
        )
        self.found = evaluate(info, self.table, self.rows, metric="coco")

    def result(self) -> dict[str, np.ndarray]:
        """The twelve figures, percent."""
        return {"figures": np.array(list(self.found.groups["all"].values()))}

    def parts(self) -> dict[str, Callable[[], object]]:
        """None."""
        return {}


def make(case: Case) -> Inference | Training | Calibration | Coco:
    """The work of a case."""
    kinds = {
        "inference": Inference,
        "training": Training,
        "calibration": Calibration,
        "coco": Coco,
    }
    return kinds[case.kind](case)

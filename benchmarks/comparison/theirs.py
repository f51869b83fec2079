# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The twin's side: the work of every case with torch, as a PyTorch user would write it."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from benchmarks.comparison import inputs
from benchmarks.comparison.cases import Case
from benchmarks.twin.detector import Batch, Detector, load, shapes_of
from benchmarks.twin.encoder import Encoder, calibrated
from benchmarks.twin.optimizer import make_optimizer
from src.model_utils.config import load_config
from src.model_utils.paths import project_folder
from tests.golden import weights

THREADS = 2
torch.set_num_threads(THREADS)


def versions() -> dict[str, str]:
    """The libraries that did the work."""
    return {"torch": torch.__version__, "torchvision": torchvision.__version__}


def matmul() -> None:
    """The product that inference is held against."""
    torch.mm(*_factors())


@functools.cache
def _factors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(8192, 512), torch.rand(512, 2048)


class _Detection:
    """A detector with the weights of the comparison."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.config = load_config(str(project_folder() / case.config), case.flags)
        self.net = Detector(self.config.model, case.classes)
        arrays = inputs.weights_for(shapes_of(self.net))
        self.weights = inputs.fingerprint(arrays)
        load(self.net, arrays)

    def parts(self) -> dict[str, Callable[[], object]]:
        """None; inference has some."""
        return {}


class Inference(_Detection):
    """From a normalised picture to detections in the original's frame."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.net.eval()
        count = range(len(case.sizes))
        self.images = [inputs.images(case, self.config.input, number) for number in count]

    def run(self, number: int) -> None:
        """One picture."""
        height, width = self.case.sizes[number]
        image = torch.from_numpy(self.images[number])
        self.found = self.net.detect(
            image, (float(height), float(width)), (height, width), self.config.test
        )

    def result(self) -> dict[str, np.ndarray]:
        """Boxes, scores and classes of the last picture."""
        found = self.found
        return {
            "boxes": found.boxes.numpy(),
            "scores": found.scores.numpy(),
            "classes": found.classes.numpy(),
        }

    def parts(self) -> dict[str, Callable[[], object]]:
        """Backbone, RPN with proposals, and second stage with detections."""
        net, size = self.net, tuple(map(float, self.case.sizes[0]))
        image = torch.from_numpy(self.images[0])
        with torch.inference_mode():
            features = net.backbone(image)
            boxes = net.propose(features, [size])[0].boxes
        whole = torch.inference_mode()
        return {
            "backbone": whole(lambda: net.backbone(image)),
            "RPN and proposals": whole(lambda: net.propose(features, [size])),
            "second stage": whole(lambda: net.second_stage(features, boxes)),
        }


class Training(_Detection):
    """Forward, backward and update."""

    def __init__(self, case: Case) -> None:
        super().__init__(case)
        self.net.train()
        self.optimizer = make_optimizer(self.net, self.config.solver, inputs.LEARNING_RATE)
        made = inputs.training(case, self.config)
        self.batch = Batch(
            torch.from_numpy(made.images),
            [tuple(map(float, size)) for size in made.sizes],
            list(torch.from_numpy(made.boxes)),
            list(torch.from_numpy(made.classes).long()),
            torch.from_numpy(made.rpn_noise),
            torch.from_numpy(made.roi_noise),
            torch.from_numpy(made.dropout_noise),
        )

    def run(self, _number: int) -> None:
        """One step."""
        losses = torch.stack(self.net.losses(self.batch))
        if not torch.isfinite(losses).all():
            raise ArithmeticError(f"losses {losses}")
        self.optimizer.zero_grad()
        losses.sum().backward()
        self.optimizer.step()
        self.losses = losses.detach().numpy()

    def result(self) -> dict[str, np.ndarray]:
        """The four losses of the last step."""
        return {"losses": self.losses}


class Calibration:
    """Scores of one picture's detections."""

    def __init__(self, case: Case) -> None:
        specs = weights.load_specs(project_folder() / "tests/golden/specs_pcb.json")
        arrays = inputs.weights_for(specs)
        self.weights = inputs.fingerprint(arrays)
        self.encoder = Encoder(arrays)
        self.given = inputs.calibration(case)

    def run(self, _number: int) -> None:
        """One picture."""
        given = self.given
        maps = self.encoder.feature_map(given.pixels)
        vectors = self.encoder.vectors(maps, torch.from_numpy(given.boxes))
        own = torch.from_numpy(given.prototypes[given.classes])
        self.scores = calibrated(torch.from_numpy(given.scores), vectors, own, 0.5)

    def result(self) -> dict[str, np.ndarray]:
        """The scores afterwards."""
        return {"calibrated": self.scores.numpy()}

    def parts(self) -> dict[str, Callable[[], object]]:
        """None."""
        return {}


class Coco:
    """COCO's figures by pycocotools."""

    weights = 0

    def __init__(self, case: Case) -> None:
        self.table, self.rows = inputs.annotations(case)

    def run(self, _number: int) -> None:
        """From annotations and rows to figures."""
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO()
            truth.dataset = self.table
            truth.createIndex()
            judge = COCOeval(truth, truth.loadRes(self.rows), "bbox")
            judge.evaluate()
            judge.accumulate()
            judge.summarize()
        self.figures = np.asarray(judge.stats) * 100

    def result(self) -> dict[str, np.ndarray]:
        """The twelve figures, percent."""
        return {"figures": self.figures}

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

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What is measured: network, sizes and amount of data of every case."""

from __future__ import annotations

from dataclasses import dataclass

BASE = "configs/coco/defrcn_det_r101_base.yaml"
GFSOD = "configs/coco/defrcn_gfsod_r101_novel_10shot.yaml"
DEMO = "configs/demo/shapes_base.yaml"
FULL, SMALL = (800, 1088), (256, 256)
#: A size to compile with, then ten that the network has not seen: height, width.
UNSEEN = (
    (400, 400),
    *((400, 533), (533, 400), (400, 600), (600, 400), (400, 480)),
    *((512, 400), (400, 640), (450, 400), (400, 560), (624, 400)),
)


@dataclass(frozen=True)
class Case:
    """One thing to measure.

    Attributes:
        name: on the command line and in the results.
        title: in the table.
        kind: "inference", "training", "calibration", "coco" (evaluation of detections) or
            "program" (eval.py as a whole).
        config: file of the configuration.
        flags: more keys of it.
        classes: K.
        sizes: (height, width) of the pictures; the first is measured again and again, and the
            others, where there are any, are met for the first time and then again.
        images: of a batch.
        objects: boxes of each image; of the calibration, detections.
        fair: the twin's inference is held against its own matmul.
        parts: the network's parts are measured, too.
    """

    name: str
    title: str
    kind: str
    config: str = BASE
    flags: tuple[str, ...] = ()
    classes: int = 60
    sizes: tuple[tuple[int, int], ...] = (FULL,)
    images: int = 1
    objects: int = 8
    fair: bool = False
    parts: bool = False


_HALF_R50 = (
    "--model.num_classes=20",
    "--model.backbone.depth=50",
    "--model.backbone.stem_out_channels=32",
    "--model.backbone.res2_out_channels=128",
    "--model.backbone.freeze_at=0",
    "--model.roi_heads.batch_size_per_image=32",
)
_DEMO_BATCH = ("--solver.images_per_card=4", "--solver.images_per_batch=4")
_DEMO_SIZE = (144, 176)
CASES = {
    case.name: case
    for case in (
        Case("inference", "inference, R-101, 800×1088", "inference", fair=True, parts=True),
        Case("training", "base training step, R-101, 800×1088", "training"),
        Case("gfsod", "gfsod step, R-101, 800×1088", "training", GFSOD, classes=80),
        Case(
            "inference-256",
            "inference, R-101, 256×256",
            "inference",
            sizes=(SMALL,),
            parts=True,
        ),
        Case("training-256", "base training step, R-101, 256×256", "training", sizes=(SMALL,)),
        Case(
            "half-r50",
            "training step, half-width R-50, 224×224, 2 images, 32 RoIs",
            "training",
            flags=_HALF_R50,
            classes=20,
            sizes=((224, 224),),
            images=2,
        ),
        Case(
            "demo-training",
            "training step, the demo's network, 144×176, 4 images",
            "training",
            DEMO,
            _DEMO_BATCH,
            classes=9,
            sizes=(_DEMO_SIZE,),
            images=4,
            objects=3,
        ),
        Case(
            "demo-frozen",
            "the same with frozen norms and SGD, as the official code has them",
            "training",
            DEMO,
            (*_DEMO_BATCH, "--model.backbone.norm=FrozenBN", "--solver.optimizer=sgd"),
            classes=9,
            sizes=(_DEMO_SIZE,),
            images=4,
            objects=3,
        ),
        Case(
            "calibration",
            "calibration, R-101, 480×640, 50 boxes",
            "calibration",
            sizes=((480, 640),),
            objects=50,
        ),
        Case("demo-evaluation", "evaluation of 150 demo pictures, whole process", "program", DEMO),
        Case(
            "coco-evaluation",
            "COCO evaluation, 5,000 images × 100 detections",
            "coco",
            classes=80,
            images=5000,
            objects=100,
        ),
        Case("unseen-sizes", "inference, R-101, ten unseen sizes", "inference", sizes=UNSEEN),
    )
}

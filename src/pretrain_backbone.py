"""Pre-train backbone and res5 on crops of a training set's own objects.

    python -m src.pretrain_backbone --config_path=FILE --output FILE.ckpt [--steps 800]

What ImageNet weights are to the paper's setting, on data that has none: a classifier of the
training set's classes sees far more objects a second than the detector does. Objects of other
classes (the novel ones, in a base set) are never cropped. The result is what
`backbone_pretrained_path` takes.
"""

from __future__ import annotations

import argparse
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops
from PIL import Image

from src import assembly
from src.checkpoint import write_weights
from src.defrcn.built_datacategory import Record
from src.defrcn.rcnn import Linear
from src.model_utils.config import load_config
from src.model_utils.device_adapter import Runtime
from src.model_utils.errors import InputError
from src.network_define import build_optimizer, initialise
from src.transforms import decode, to_bgr, to_xyxy
from src.util import idle_thread, run_main, set_up_logging

logger = logging.getLogger(__name__)

SIDE = 64  # pixels of a crop as the network sees it
CONTEXT = 0.15  # how far a view's edges move, in sizes of the object
_STREAM = 7  # keeps these draws apart from those of training


class Classifier(nn.Cell):
    """Backbone, res5 and a class layer on whole crops: (N, 3, H, W) -> (N, K)."""

    def __init__(self, detector: nn.Cell, num_channels: int, num_classes: int) -> None:
        super().__init__()
        self.backbone = detector.backbone
        self.res5 = detector.roi_heads.res5
        self.classes = Linear(num_channels, num_classes)
        self.side = Tensor(np.array([SIDE, SIDE], np.int32))

    def construct(self, images: Tensor) -> Tensor:
        """See the class."""
        features = self.backbone(images, self.side).transpose(0, 3, 1, 2)
        for block in self.res5:
            features = block(features)
        return self.classes(ops.mean(features, (2, 3)))


def crop_objects(
    records: Sequence[Record], max_pixels: int, margin: float = 0.3
) -> tuple[list, np.ndarray]:
    """Every object with some surroundings: images (H, W, 3) and classes."""
    crops, classes = [], []
    for record in records:
        image = to_bgr(decode(Path(record.file_name).read_bytes(), record.file_name, max_pixels))
        for item in record.annotations:
            if item.iscrowd:
                continue
            x1, y1, x2, y2 = to_xyxy(item.bbox, item.bbox_mode)
            dx, dy = margin * (x2 - x1), margin * (y2 - y1)
            left, top = max(0, int(x1 - dx)), max(0, int(y1 - dy))
            part = image[top : int(y2 + dy) + 1, left : int(x2 + dx) + 1]
            if min(part.shape[:2]) > 3:
                crops.append((part, (x1 - left, y1 - top, x2 - left, y2 - top)))
                classes.append(item.category_id)
    return crops, np.asarray(classes, np.int32)


def view(crop: tuple, rng: np.random.Generator) -> np.ndarray:
    """A random view of an object, (SIDE, SIDE, 3) uint8."""
    part, (x1, y1, x2, y2) = crop
    width, height = x2 - x1, y2 - y1
    shift = rng.uniform(-CONTEXT, CONTEXT, 4) * (width, height, width, height)
    box = tuple(float(v) for v in np.array((x1, y1, x2, y2)) + shift)
    image = Image.fromarray(part).resize(
        (SIDE, SIDE), Image.Resampling.BILINEAR, box=_within(box, part)
    )
    pixels = np.asarray(image)
    return pixels[:, ::-1] if rng.random() < 0.5 else pixels


def _within(box: tuple, part: np.ndarray) -> tuple:
    height, width = part.shape[:2]
    x1, y1 = min(max(box[0], 0.0), width - 2.0), min(max(box[1], 0.0), height - 2.0)
    return x1, y1, min(max(box[2], x1 + 1.0), width), min(max(box[3], y1 + 1.0), height)


def train(
    net: Classifier,
    crops: list,
    classes: np.ndarray,
    *,
    steps: int,
    batch: int,
    lr: float,
    seed: int,
    pixel_mean: Sequence[float],
    pixel_std: Sequence[float],
) -> float:
    """Train the classifier with AdamW and a cosine schedule.

    Args:
        net: the classifier.
        crops: of `crop_objects`.
        classes: (len(crops),) int32.
        steps: how many.
        batch: crops a step.
        lr: rate after the warm-up.
        seed: decides crops and views.
        pixel_mean: B, G, R, taken off.
        pixel_std: B, G, R, divided by.

    Returns:
        Accuracy over the last tenth of the steps, on the views that were trained on.

    Raises:
        InputError: the loss is not finite.
    """
    optimizer = build_optimizer(
        net,
        momentum=0.9,
        nesterov=False,
        weight_decay=1e-2,
        weight_decay_bias=0.0,
        weight_decay_norm=0.0,
        kind="adamw",
    )
    net.set_train(True)

    def loss_of(images: Tensor, labels: Tensor) -> tuple:
        logits = net(images)
        right = (logits.argmax(1) == labels).astype(ms.float32).mean()
        return ops.cross_entropy(logits, labels), right

    gradient = ms.value_and_grad(loss_of, None, optimizer.parameters, has_aux=True)

    @ms.jit(fullgraph=True)
    def step(images: Tensor, labels: Tensor, rate: Tensor) -> tuple:
        (loss, right), gradients = gradient(images, labels)
        optimizer(gradients, rate)
        return loss, right

    rng = np.random.default_rng([seed, _STREAM])
    mean, std = np.asarray(pixel_mean, np.float32), np.asarray(pixel_std, np.float32)
    rights: list[float] = []
    started = time.monotonic()
    for done in range(steps):
        chosen = rng.integers(len(crops), size=batch)
        images = np.stack([view(crops[i], rng) for i in chosen]).astype(np.float32)
        images = np.ascontiguousarray(((images - mean) / std).transpose(0, 3, 1, 2))
        rate = lr * min(1.0, (done + 1) / 50) * 0.5 * (1 + np.cos(np.pi * done / steps))
        with idle_thread(ms.get_context("device_target") == "CPU" and done > 0):
            loss, right = step(Tensor(images), Tensor(classes[chosen]), Tensor(rate, ms.float32))
            rights.append(float(right.asnumpy()))
        if not np.isfinite(loss.asnumpy()):
            raise InputError(f"step {done + 1}: the loss is not finite; lower --lr")
        if (done + 1) % 50 == 0:
            logger.info(
                "step %d/%d  loss %.3f  accuracy %.3f  %.0f s",
                done + 1,
                steps,
                float(loss.asnumpy()),
                np.mean(rights[-50:]),
                time.monotonic() - started,
            )
    return float(np.mean(rights[-max(1, steps // 10) :]))


def main(argv: Sequence[str] | None = None) -> int:
    """Train the classifier and write its backbone and res5."""
    parser = argparse.ArgumentParser(
        prog="python -m src.pretrain_backbone",
        description="Pre-train backbone and res5 on crops of the training set's objects.",
        epilog="Any --key=value of the configuration may follow.",
    )
    parser.add_argument("--config_path", required=True, help="YAML file, see configs/")
    parser.add_argument("--output", type=Path, required=True, help="checkpoint to write (.ckpt)")
    parser.add_argument("--steps", type=int, default=600, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=64, help="crops a step (%(default)s)")
    parser.add_argument("--lr", type=float, default=0.001, help="default: %(default)s")
    known, overrides = parser.parse_known_args(argv)
    set_up_logging()
    config = load_config(known.config_path, overrides)
    Runtime.start(config.device_target, device_id=config.device_id)
    info, records = assembly.read_sets(config, config.data.train)
    crops, classes = crop_objects(records, config.data.max_image_pixels)
    if not crops:
        raise InputError(f"{info.name}: there is no object to crop; check data.train")
    logger.info("%d objects of %d classes", len(crops), len(info.class_names))
    detector = assembly.make_detector(config, info.class_names)
    initialise(detector, config.seed)
    # By identity: a cell in a second place renames its parameters.
    kept = {
        p.name: p
        for p in detector.get_parameters()
        if p.name.startswith(("backbone.", "roi_heads.res5."))
    }
    width = 8 * config.model.backbone.res2_out_channels
    accuracy = train(
        Classifier(detector, width, len(info.class_names)),
        crops,
        classes,
        steps=known.steps,
        batch=known.batch,
        lr=known.lr,
        seed=config.seed,
        pixel_mean=config.input.pixel_mean,
        pixel_std=config.input.pixel_std,
    )
    write_weights(known.output, {name: p.asnumpy() for name, p in kept.items()})
    logger.info("accuracy %.3f on the crops; wrote %s", accuracy, known.output)
    return 0


if __name__ == "__main__":
    run_main(main)

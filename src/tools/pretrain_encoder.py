# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Train a small encoder for the calibration block on a training set's own objects.

    python -m src.tools.pretrain_encoder --config_path=FILE --output weights/pcb.ckpt [--steps 400]

What ImageNet weights are to the paper's calibration block, on data whose pictures are unlike
ImageNet's. A narrow ResNet of torchvision's layout learns to name the objects of `data.train`, a
set of base classes: novel objects are never shown to it by name. It sees each object as the block
will, at its own scale, in its surroundings, pooled by its box. The result is what `pcb_modelpath`
takes.

A dozen classes teach a network little that helps to tell others apart. So every order of the
three colour channels makes a class of its own: six times as many, and the network has to look at
colours as well as at shapes. The last layer of the result does not name classes but centres the
pooled features: what all objects share is no likeness.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import mindspore as ms
import numpy as np
from mindspore import Tensor, ops

from src.adamw_optimizer import AdamW
from src.assembly.data import read_sets
from src.assembly.device import start_device
from src.calibration.pictures import read_picture
from src.data.transforms import clip_boxes, to_xyxy
from src.defrcn.built_datacategory import Annotation, Record
from src.defrcn.pcb_encoder import STRIDE, ResNetEncoder, normalised
from src.defrcn.pcb_pooling import axis_weights, pool_boxes
from src.defrcn.pcb_resnet import ResNet
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.config import Config, load_config
from src.model_utils.errors import InputError
from src.model_utils.random_streams import Stream, generator
from src.network_define import parameters_of
from src.util import idle_thread, run_main, set_up_logging
from src.weights.ckpt_format import write_ckpt
from src.weights.conversion import check_output
from src.weights.weight_shapes import EncoderLayout

logger = logging.getLogger(__name__)

SIDE = 96  # pixels of a view
FILLED = 0.9  # an object larger than this share of a view is made smaller
ZOOM = 0.25  # views are larger or smaller by up to a factor of e to this
SHIFT = 0.2  # how far an object is from a view's centre, in views
JITTER = 0.1  # how far the edges of its box move, in sizes of the object
GREY = (104, 116, 124)  # B, G, R beyond the picture: 0 once normalised
ORDERS = tuple(itertools.permutations(range(3)))
_CENTRE_PICTURES = 200
FLAGS: Flags = {
    "--config_path": dict(required=True, help="YAML file, see configs/"),
    "--output": dict(type=Path, required=True, help="file to write (.ckpt)"),
    "--steps": dict(type=int, default=400, help="default: %(default)s"),
    "--batch": dict(type=int, default=48, help="views a step (%(default)s)"),
    "--lr": dict(type=float, default=0.002, help="default: %(default)s"),
    "--width": dict(type=int, default=16, help="channels of the stem (%(default)s)"),
}


@dataclass(frozen=True)
class Crop:
    """An object with all that a view of it may show.

    Attributes:
        pixels: (h, w, 3) uint8 BGR, a part of the picture.
        box: (4,) float64, the object's corners in that part.
        class_index: 0..K-1.
    """

    pixels: np.ndarray
    box: np.ndarray
    class_index: int

    @property
    def scale(self) -> float:
        """Of a view that is neither zoomed in nor out: 1, or less for a large object."""
        return min(1.0, FILLED * SIDE / float((self.box[2:] - self.box[:2]).max()))


def crop_objects(
    records: Sequence[Record], max_pixels: int, max_objects: int, rng: np.random.Generator
) -> list[Crop]:
    """Cut out the objects of a training set, crowds and what is below 4 pixels left out.

    Args:
        records: the pictures.
        max_pixels: larger pictures are refused.
        max_objects: of more objects, so many are drawn.
        rng: draws them.
    """
    listed = [
        (record, item)
        for record in records
        for item in record.annotations
        if not item.iscrowd and _smallest_side(item, record) >= 4
    ]
    if len(listed) > max_objects:
        chosen = rng.choice(len(listed), max_objects, replace=False)
        listed = [listed[i] for i in sorted(chosen)]
    crops: list[Crop] = []
    name, pixels = "", np.empty((0, 0, 3), np.uint8)
    for record, item in listed:
        if record.file_name != name:
            name = record.file_name
            pixels = read_picture(name, max_pixels).pixels
        box = np.array(to_xyxy(item.bbox, item.bbox_mode))
        scale = Crop(pixels, box, 0).scale
        reach = SIDE / scale * math.exp(ZOOM) * (0.5 + SHIFT) + 2
        left, top = (max(int(v - reach), 0) for v in (box[:2] + box[2:]) / 2)
        right, bottom = (int(v + reach) for v in (box[:2] + box[2:]) / 2)
        part = pixels[top:bottom, left:right].copy()
        crops.append(Crop(part, box - (left, top, left, top), item.category_id))
    return crops


def _smallest_side(item: Annotation, record: Record) -> float:
    """Of the part of a box that lies in its picture, pixels."""
    corners = np.array([to_xyxy(item.bbox, item.bbox_mode)])
    x1, y1, x2, y2 = clip_boxes(corners, record.height, record.width)[0]
    return float(min(x2 - x1, y2 - y1))


def view(crop: Crop, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, int]:
    """A random view of an object.

    Returns:
        (SIDE, SIDE, 3) uint8 BGR in a random order of channels; the box (4,) float32 in it; and
        which of `ORDERS` it is.
    """
    scale = crop.scale * math.exp(rng.uniform(-ZOOM, ZOOM))
    side = SIDE / scale
    origin = (crop.box[:2] + crop.box[2:]) / 2 - side / 2 + rng.uniform(-SHIFT, SHIFT, 2) * side
    matrix = np.array([[scale, 0, -origin[0] * scale], [0, scale, -origin[1] * scale]])
    pixels = cv2.warpAffine(crop.pixels, matrix, (SIDE, SIDE), borderValue=GREY)
    size = np.tile(crop.box[2:] - crop.box[:2], 2)
    box = crop.box + rng.uniform(-JITTER, JITTER, 4) * size
    box = np.clip((box - np.tile(origin, 2)) * scale, 0, SIDE)
    if rng.random() < 0.5:
        pixels, box = pixels[:, ::-1], np.array([SIDE - box[2], box[1], SIDE - box[0], box[3]])
    order = int(rng.integers(len(ORDERS)))
    return pixels[:, :, ORDERS[order]], box.astype(np.float32), order


def shares(boxes: np.ndarray) -> np.ndarray:
    """Weights that pool boxes (N, 4) of views from their maps: (N, 1, cells, cells) float32."""
    edges = boxes / np.float32(STRIDE) - np.float32(0.5)
    cells = -(-SIDE // STRIDE)
    rows = axis_weights(edges[:, 1], edges[:, 3], cells)
    columns = axis_weights(edges[:, 0], edges[:, 2], cells)
    return (rows[:, :, None] * columns[:, None, :])[:, None]


def new_network(layout: EncoderLayout, rng: np.random.Generator) -> ResNet:
    """A network to train, convolutions as by He et al. (2015)."""
    net = ResNet(layout, batch_statistics=True)
    for parameter in net.get_parameters():
        shape = parameter.shape
        if len(shape) > 1:
            fan_out = shape[0] * int(np.prod(shape[2:]))
            std = math.sqrt(2.0 / fan_out) if len(shape) == 4 else 0.01
            values = rng.standard_normal(shape) * std
            parameter.set_data(Tensor(values.astype(np.float32)))
    return net


def _build_step(net: ResNet) -> Callable:
    """Compile one step: (images, size, shares, labels, rate) -> (loss, predicted labels)."""
    weights = net.trainable_params()
    optimizer = AdamW(weights, [0.01 if len(p.shape) > 1 else 0.0 for p in weights])

    def loss_of(images: Tensor, size: Tensor, share: Tensor, labels: Tensor) -> tuple:
        logits = net.classify(images, size, share)
        return ops.cross_entropy(logits, labels), logits.argmax(1)

    gradient = ms.value_and_grad(loss_of, None, optimizer.parameters, has_aux=True)

    @ms.jit(fullgraph=True)
    def step(images: Tensor, size: Tensor, share: Tensor, labels: Tensor, rate: Tensor) -> tuple:
        (loss, found), gradients = gradient(images, size, share, labels)
        optimizer(gradients, rate)
        return loss, found

    return step


def train(
    net: ResNet,
    crops: Sequence[Crop],
    *,
    steps: int,
    batch: int,
    lr: float,
    rng: np.random.Generator,
    idle_wait: bool = False,
) -> float:
    """Train with AdamW and a cosine schedule.

    Args:
        net: its last layer has K * 6 rows: class, then order of the channels.
        crops: what is shown.
        steps: how many.
        batch: views a step.
        lr: rate after the warm-up.
        rng: draws objects and views.
        idle_wait: see `util.idle_thread`, for the CPU.

    Returns:
        Share of the views of the last tenth of the steps whose class was named rightly (not
        counting the order of channels), each before the step that it took part in.

    Raises:
        InputError: the loss is not finite.
    """
    step = _build_step(net)
    size = Tensor(np.array([SIDE, SIDE], np.int32))
    rights: list[float] = []
    started = time.monotonic()
    for done in range(steps):
        chosen = [crops[i] for i in rng.integers(len(crops), size=batch)]
        views = [view(crop, rng) for crop in chosen]
        images = normalised(np.stack([pixels for pixels, _, _ in views]))
        share = shares(np.stack([box for _, box, _ in views]))
        classes = np.array([crop.class_index for crop in chosen])
        labels = (classes * len(ORDERS) + [order for _, _, order in views]).astype(np.int32)
        rate = lr * min(1.0, (done + 1) / 30) * 0.5 * (1 + math.cos(math.pi * done / steps))
        with idle_thread(idle_wait and done > 0):
            loss, found = step(
                Tensor(images), size, Tensor(share), Tensor(labels), Tensor(rate, ms.float32)
            )
            rights.append(float((found.asnumpy() // len(ORDERS) == classes).mean()))
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


def centred(
    params: dict[str, np.ndarray], records: Sequence[Record], max_pixels: int
) -> dict[str, np.ndarray]:
    """Replace the class layer by one that takes the mean pooled feature of all objects off.

    Args:
        params: a trained network's.
        records: the pictures it was trained on; some of them are looked at.
        max_pixels: larger pictures are refused.
    """
    encoder = ResNetEncoder(params, identity="", source="the new encoder", max_pixels=max_pixels)
    pooled = []
    for record in records[:: max(1, len(records) // _CENTRE_PICTURES)]:
        boxes = [to_xyxy(a.bbox, a.bbox_mode) for a in record.annotations if not a.iscrowd]
        if boxes:
            features = encoder.feature_map(read_picture(record.file_name, max_pixels).pixels)
            pooled.append(pool_boxes(features, np.array(boxes, np.float32), STRIDE))
    mean = np.concatenate(pooled).mean(0)
    return {**params, "fc.weight": np.eye(len(mean), dtype=np.float32), "fc.bias": -mean}


def make_encoder(config: Config, *, steps: int, batch: int, lr: float, width: int) -> dict:
    """Train an encoder for `data.train`.

    Returns:
        Its parameters, by torchvision's names.

    Raises:
        InputError: the training set has novel classes, or nothing to look at.
    """
    info, records = read_sets(config, config.data.train)
    novel = [name for name in info.class_names if name in info.novel_classes]
    if novel:
        raise InputError(
            f"data.train: {info.name} has novel classes ({', '.join(novel)}), which the encoder of "
            "the calibration block must not know; name the base set"
        )
    rng = generator(config.seed, Stream.ENCODER)
    max_pixels = config.data.max_image_pixels
    crops = crop_objects(records, max_pixels, 8000, rng)
    if not crops:
        raise InputError(f"{info.name}: there is no object to look at; check data.train")
    logger.info("%d objects of %d classes", len(crops), len(info.class_names))
    widths = tuple(width * 2**stage for stage in range(4))
    layout = EncoderLayout(
        blocks=(1, 1, 1, 1),
        stem_channels=width,
        widths=widths,
        out_channels=tuple(4 * value for value in widths),
        num_outputs=len(info.class_names) * len(ORDERS),
    )
    net = new_network(layout, rng)
    idle_wait = config.device_target == "CPU"
    accuracy = train(net, crops, steps=steps, batch=batch, lr=lr, rng=rng, idle_wait=idle_wait)
    logger.info("accuracy %.3f on the views of the last steps", accuracy)
    return centred(parameters_of(net), records, max_pixels)


def main(argv: Sequence[str] | None = None) -> int:
    """Train and write the encoder."""
    parser = command_parser(
        FLAGS,
        program="python -m src.tools.pretrain_encoder",
        description="Train an encoder for the calibration block on the training set's objects.",
        epilog="Any --key=value of the configuration may follow.",
    )
    known, overrides = parser.parse_known_args(argv)
    set_up_logging()
    for name in ("steps", "batch", "width"):
        if getattr(known, name) < (2 if name == "batch" else 1):
            raise InputError(f"--{name} {getattr(known, name)} is too small")
    check_output(known.output, ".ckpt")
    config = load_config(known.config_path, overrides)
    start_device(config, alone=True)
    params = make_encoder(
        config, steps=known.steps, batch=known.batch, lr=known.lr, width=known.width
    )
    write_ckpt(known.output, params)
    logger.info("wrote %s; name it in pcb_modelpath", known.output)
    return 0


if __name__ == "__main__":
    run_main(main)

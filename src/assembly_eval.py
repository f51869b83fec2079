"""What train.py and eval.py share for evaluation: test sets, checkpoints, figures and pictures."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from src import assembly, detecteval
from src.checkpoint import load_training_checkpoint, load_weights, read_manifest
from src.dataset import EvalLoader, build_mindrecord
from src.defrcn.built_datacategory import DatasetInfo, Record
from src.defrcn.de_frcn import DeFRCN
from src.inference import detect
from src.model_utils.config import Config, require_path
from src.model_utils.errors import InputError
from src.network_define import build_eval_step
from src.parameter_rules import FULL
from src.util import write_json
from src.visualize import render_detections

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestSet:
    """A test set that is ready to be evaluated."""

    info: DatasetInfo
    records: list[Record]
    loader: EvalLoader


def open_test_sets(config: Config) -> list[TestSet]:
    """Read every test set, build its MindRecord if needed, and open it."""
    sets = []
    for name in config.data.test:
        info, records = assembly.read_sets(config, (name,))
        folder = Path(config.test_mindrecord_dir)
        if len(config.data.test) > 1:
            folder = folder / name
        build_mindrecord(
            records,
            folder,
            class_names=info.class_names,
            training=False,
            max_image_pixels=config.data.max_image_pixels,
            num_workers=config.data.num_workers,
        )
        loader = EvalLoader(
            folder,
            min_size=config.input.min_size_test,
            max_size=config.input.max_size_test,
            pixel_mean=config.input.pixel_mean,
            pixel_std=config.input.pixel_std,
            input_shapes=config.input.input_shapes,
            num_workers=config.data.num_workers,
            max_image_pixels=config.data.max_image_pixels,
        )
        sets.append(TestSet(info, records, loader))
    return sets


def evaluates(config: Config) -> bool:
    """Whether training evaluates at all."""
    return config.test.eval_at_end or config.test.eval_period > 0


def evaluation_checkpoint(config: Config) -> Path:
    """The path in `eval_checkpoint_path`, a `.ckpt` file or a folder of checkpoints."""
    return require_path(
        "eval_checkpoint_path", config.eval_checkpoint_path, "give a .ckpt file or its folder"
    )


def load_for_evaluation(net: DeFRCN, path: Path, class_names: tuple[str, ...]) -> None:
    """Load a checkpoint file, or the newest one of a folder (or of its `ckpt_0`).

    Raises:
        InputError: it is missing or damaged, or was trained on other classes.
    """
    if path.is_dir():
        inner = path / "ckpt_0"
        checkpoint = load_training_checkpoint(inner if inner.is_dir() else path)
        if checkpoint is None:
            raise InputError(f"eval_checkpoint_path: there is no checkpoint in {path}")
        source, params, trained = checkpoint.manifest, checkpoint.params, checkpoint.class_names
    else:
        source, params, trained = path, load_weights(path), ()
        manifest = path.with_suffix(".json")
        if manifest.exists():
            trained = tuple(read_manifest(manifest)["class_names"])
    if trained and trained != class_names:
        raise InputError(
            f"{source} was trained on {len(trained)} classes ({', '.join(trained[:3])}, …), the "
            f"test set has {len(class_names)} ({', '.join(class_names[:3])}, …); name a test set "
            "with the same classes in data.test"
        )
    assembly.load_into(net, params, str(source), FULL)


def evaluate_sets(
    config: Config, eval_step: Callable, sets: list[TestSet], folder: Path, note: str = ""
) -> tuple[str, dict]:
    """Detect on every test set, judge, draw; write it all below `folder`.

    Returns:
        The report as text and the figures of `metrics.json`.
    """
    texts, figures = [], {}
    for one in sets:
        rows = detect(
            eval_step,
            one.loader,
            one.info.category_ids,
            score_threshold=config.test.score_threshold,
            nms_threshold=config.test.nms_threshold,
            max_detections=config.test.detections_per_image,
            idle_wait=config.device_target == "CPU",
        )
        place = folder / one.info.name if len(sets) > 1 else folder
        detecteval.write_rows(place / "detections.json", rows)
        evaluation = detecteval.evaluate_coco(
            detecteval.dataset_ground_truth(one.info, one.records),
            rows,
            dataset=one.info.name,
            class_names=one.info.class_names,
            category_ids=one.info.category_ids,
            base_classes=one.info.base_classes,
            novel_classes=one.info.novel_classes,
        )
        texts.append(note + detecteval.report(evaluation))
        figures[one.info.name] = evaluation.to_json()
        if config.test.visualize_images:
            render_detections(
                one.records,
                rows,
                place / "pictures",
                class_names=one.info.class_names,
                category_ids=one.info.category_ids,
                num_images=config.test.visualize_images,
            )
            texts.append(f"pictures of detections: {place / 'pictures'}")
    write_json(folder / "metrics.json", figures)
    texts.append(f"figures: {folder / 'metrics.json'}")
    return "\n".join(texts), figures


def make_eval_step(config: Config, net: DeFRCN) -> Callable:
    """Compile inference as the configuration's input shapes want it."""
    return build_eval_step(net, exact=config.input.input_shapes == "exact")

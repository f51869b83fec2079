# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What train.py and eval.py share for evaluation: test sets, checkpoints, figures and pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm  # type: ignore[import-untyped]

from src import detecteval
from src.assembly.calibration import make_calibrator
from src.assembly.data import preprocessing, read_sets
from src.assembly.encoders import check_encoder
from src.assembly.training import load_into, shared_mindrecord
from src.dataset import EvalLoader
from src.defrcn.built_datacategory import DatasetInfo, Record
from src.defrcn.de_frcn import DeFRCN
from src.engine.inference import Detections, Image, OutputsOf, detect, rows_of
from src.engine.network import Network
from src.engine.parallel import ALONE, Group
from src.evaluation.detection_rows import ImageId, Row
from src.evaluation.report.forgotten import Before, read_before
from src.evaluation.report.page import check_free, write_report
from src.evaluation.result_folder import new_results
from src.evaluation.visualize import render_detections
from src.export.results import StoredResults
from src.model_utils.config import Config, require_path
from src.model_utils.errors import InputError
from src.network_define import build_eval_step
from src.util import write_json
from src.weights.note import read_weights
from src.weights.parameter_rules import FULL, SURGERY_REMOVE, detector_rule


@dataclass(frozen=True)
class TestSet:
    """A test set that is ready to be evaluated."""

    info: DatasetInfo
    records: list[Record]
    loader: EvalLoader | StoredResults


def before_of(config: Config, info: DatasetInfo) -> Before | None:
    """The base detector's evaluation that a test set's page shows; None if none is asked for.

    Raises:
        InputError: see `read_before`.
    """
    if not (config.test.report and config.test.report_before):
        return None
    metric = detecteval.metric_of(info.name, config.test.metric)
    return read_before(config.test.report_before, "test.report_before", info, metric)


def open_test_sets(
    config: Config, trained: tuple[str, ...] = (), *, group: Group = ALONE
) -> list[TestSet]:
    """Read every test set, build its MindRecord if needed, and open it.

    Args:
        config: the configuration.
        trained: the classes of the network, in order; empty: those of the first test set.
        group: the processes that share the pictures.

    Raises:
        InputError: a test set has other classes, its files are wrong, or calibration is asked for
            and its weights are missing, or `test.report_before` is not an evaluation of its base
            classes.
    """
    if config.test.pcb.enable:
        check_encoder(config)  # before a training of hours, not after it
    sets: list[TestSet] = []
    for name in config.data.test:
        info, records = read_sets(config, (name,))
        wanted, source = trained, "the training set"
        if sets and not trained:
            wanted, source = sets[0].info.class_names, f"test set {sets[0].info.name}"
        if wanted and info.class_names != wanted:
            raise InputError(
                f"data.test: {name} has {len(info.class_names)} classes "
                f"({', '.join(info.class_names[:3])}, …), {source} has {len(wanted)} "
                f"({', '.join(wanted[:3])}, …); name sets of the same classes"
            )
        before_of(config, info)  # before a training of hours, as above
        folder = Path(config.test_mindrecord_dir)
        if len(config.data.test) > 1:
            folder = folder / name
        shared_mindrecord(config, records, folder, info.class_names, training=False, group=group)
        loader = EvalLoader(
            folder,
            preprocessing(config, config.input.max_size_test),
            rank=group.rank,
            world_size=group.size,
            min_size=config.input.min_size_test,
            num_workers=config.data.num_workers,
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


def load_for_evaluation(
    net: DeFRCN, path: Path, class_names: tuple[str, ...], key: str = "eval_checkpoint_path"
) -> Path:
    """Load a checkpoint file, or the newest one of a folder (or of its `ckpt_0`).

    Args:
        net: the detector.
        path: file or folder.
        class_names: its classes.
        key: the configuration key that named the path.

    Returns:
        The file that was loaded (its manifest, in a folder).

    Raises:
        InputError: it is missing or damaged, or was trained on other classes.
    """
    given = read_weights(path, key)
    source, trained = given.path, given.class_names
    if trained and trained != class_names:
        raise InputError(
            f"{source} was trained on {len(trained)} classes ({', '.join(trained[:3])}, …), the "
            f"test set has {len(class_names)} ({', '.join(class_names[:3])}, …); name a test set "
            "with the same classes in data.test"
        )
    if detector_rule(given.params) is SURGERY_REMOVE:
        raise InputError(
            f"{key}: {source} has no class and box layer; if it comes from model "
            "surgery, fine-tune it first"
        )
    load_into(net, given.params, str(source), FULL)
    return source


def evaluate_sets(
    config: Config,
    outputs_of: OutputsOf,
    sets: list[TestSet],
    folder: Path,
    checkpoint: Path | None = None,
    group: Group = ALONE,
) -> tuple[str, dict]:
    """Detect on every test set, judge, draw; write it all below `folder`.

    Several processes share the pictures; the first of them judges and writes.

    Args:
        config: the configuration.
        outputs_of: see `make_inference`; or stored outputs.
        sets: the test sets.
        folder: where `metrics.json` goes, and all else if there is one test set only; each of
            several has a folder of its name.
        checkpoint: the detector's file, whose support set the calibration block must have; None
            for the network of a training that still runs.
        group: as for `open_test_sets`.

    Returns:
        The report as text and the figures of `metrics.json`; nothing but on the first process.

    Raises:
        InputError: a page is wanted where `report` holds other files, or for it an earlier
            evaluation that cannot be read.
    """
    texts, figures = [], {}
    places = {one.info.name: one.info.name if len(sets) > 1 else "" for one in sets}
    if config.test.report:
        for inner in places.values():
            check_free(folder / inner / "report")
    earlier = {one.info.name: before_of(config, one.info) for one in sets}
    with new_results(folder) as results:
        for one in sets:
            # Before the detections: a missing file is then named at once, not after an hour.
            calibrate = make_calibrator(config, one.info, checkpoint)
            found = detections(config, outputs_of, one.loader, len(one.loader))
            rows = rows_of(found, one.info.category_ids, calibrate)
            rows = gather_rows(group, rows, [record.image_id for record in one.records])
            if not group.leads:
                continue
            inner = places[one.info.name]
            write_json(results.folder / inner / "detections.json", rows, indent=None)
            evaluation, written = _judge(
                config,
                one,
                rows,
                results.folder / inner,
                pcb=calibrate is not None,
                source=checkpoint.name if checkpoint else folder.name,
                before=earlier[one.info.name],
            )
            told = [f"{what}: {folder / inner / part}" for what, part in written]
            texts += [detecteval.report(evaluation), *told]
            figures[one.info.name] = evaluation.to_json()
        if not group.leads:
            return "", {}
        write_json(results.folder / "metrics.json", figures)
        results.publish()
    texts.append(f"figures: {folder / 'metrics.json'}")
    return "\n".join(texts), figures


def gather_rows(group: Group, rows: list[Row], order: list[ImageId]) -> list[Row]:
    """The rows of all processes, in the order that one process alone would give.

    Args:
        group: the processes.
        rows: of this one's pictures.
        order: ids of all pictures, in the test set's order.
    """
    if group.size == 1:
        return rows
    parts = group.gather_bytes(json.dumps(rows).encode("ascii"))
    place = {image_id: number for number, image_id in enumerate(order)}
    # Those of a picture come from one process, in their order, which sorting keeps.
    return sorted(
        (row for part in parts for row in json.loads(part)),
        key=lambda row: place[row["image_id"]],
    )


def _judge(
    config: Config,
    one: TestSet,
    rows: list[Row],
    place: Path,
    *,
    pcb: bool,
    source: str,
    before: Before | None,
) -> tuple[detecteval.Evaluation, list[tuple[str, str]]]:
    """Compute the figures; draw pictures and write the page as configured.

    Args:
        config: the configuration.
        one: the test set.
        rows: its detections.
        place: folder of `pictures` and `report`.
        pcb: whether the scores were calibrated.
        source: where the detections come from, in a few words.
        before: the base detector's evaluation, for the page.

    Returns:
        The figures, and for each thing written what it is and its path within `place`.
    """
    info, records = one.info, one.records
    ground_truth = detecteval.dataset_ground_truth(info, records)
    evaluation = detecteval.evaluate(info, ground_truth, rows, metric=config.test.metric, pcb=pcb)
    written = []
    if config.test.visualize_images:
        render_detections(
            records,
            rows,
            place / "pictures",
            class_names=info.class_names,
            category_ids=info.category_ids,
            num_images=config.test.visualize_images,
            max_pixels=config.data.max_image_pixels,
        )
        written.append(("pictures of detections", "pictures"))
    if config.test.report:
        write_report(
            place / "report",
            evaluation,
            info,
            ground_truth,
            records,
            rows,
            source=source,
            before=before,
            max_pixels=config.data.max_image_pixels,
        )
        written.append(("page with curves, tables and sorted pictures", "report/index.html"))
    return evaluation, written


def make_inference(config: Config, net: DeFRCN) -> OutputsOf:
    """Compile inference as the configuration's input shapes want it."""
    exact = config.input.input_shapes == "exact"
    step = build_eval_step(net, exact=exact, jit_level=config.jit_level)
    return Network(step, idle_wait=config.device_target == "CPU")


def detections(
    config: Config,
    outputs_of: OutputsOf,
    images: Iterable[Image],
    total: int,
    *,
    above: float | None = None,
) -> Iterator[Detections[Image]]:
    """`inference.detect` with the thresholds of the configuration.

    Args:
        config: the configuration.
        outputs_of: see `make_inference`; or stored outputs.
        images: batches of one image.
        total: how many there are.
        above: a score threshold instead of the configuration's.
    """
    test = config.test
    shown = tqdm(images, total=total, unit="image", disable=not sys.stderr.isatty())
    return detect(
        outputs_of,
        shown,
        total,
        score_threshold=test.score_threshold if above is None else above,
        nms_threshold=test.nms_threshold,
        max_detections=test.detections_per_image,
    )

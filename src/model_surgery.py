# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
r"""Make a base detector ready for fine-tuning on few shots: model surgery on its class layers.

    python -m src.model_surgery --dataset=coco --method=remove \
        --src-path=checkpoints/coco/defrcn_det_r101_base
    python -m src.model_surgery --dataset=coco --method=randinit --save-dir=weights \
        --src-path=checkpoints/coco/defrcn_det_r101_base/ckpt_0/defrcn-110000.ckpt

`remove` leaves the class and box layers out: they start anew for the novel classes (fsod).
`randinit` makes them as wide as all classes need; the base classes and the background keep what
they learned, the novel ones get small random weights (gfsod). The result is
TAR_NAME_remove.ckpt or TAR_NAME_surgery.ckpt, for `model_pretrained_path`.

`--dataset` is coco, voc, or the configuration file of one's own data set, whose `data.train` says
which one; `--key=value` flags then change the configuration, such as `--datasets_root`.
"""

from __future__ import annotations

import argparse
import logging
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

if __name__ == "__main__" and not __package__:  # run by path, maybe a copy in another folder
    _places = (*Path(__file__).resolve().parents, Path.cwd(), *Path.cwd().parents)
    sys.path[:0] = [str(p) for p in _places if (p / "src/weights/conversion.py").is_file()][:1]
try:
    from src.model_utils.errors import InputError
except ModuleNotFoundError:
    sys.exit(
        f"error: {__file__} needs the rest of the project: keep the copy somewhere below the "
        "project's folder, run it from there, or name the project's folder in PYTHONPATH"
    )
from src.assembly.data import describe_set
from src.defrcn.built_datacategory import resolve_dataset
from src.defrcn.data_types import DatasetInfo
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.config import Config, load_config
from src.model_utils.set_names import parse_name
from src.util import run_main, set_up_logging, sha256_file, suggestion
from src.weights.ckpt_format import write_ckpt
from src.weights.note import Weights, check_classes, note_path, read_weights, write_note

logger = logging.getLogger(__name__)

PARAM_NAMES = ("roi_heads.box_predictor.cls_score", "roi_heads.box_predictor.bbox_pred")
ENDINGS = {"remove": "remove", "randinit": "surgery"}
STD = 0.01
FLAGS: Flags = {
    "--dataset": dict(required=True, help="coco, voc, or a configuration file"),
    "--method": dict(required=True, choices=tuple(ENDINGS)),
    "--src-path": dict(type=Path, required=True, help="base detector: .ckpt, or a run's folder"),
    "--save-dir": dict(type=Path, help="default: beside the base detector"),
    "--tar-name": dict(default="model_reset", help="start of the result's name"),
    "--param-name": dict(nargs="+", default=list(PARAM_NAMES), help="the class and the box layer"),
    "--split": dict(type=int, choices=(1, 2, 3), help="voc: told by the classes"),
    "--seed": dict(type=int, default=0, help="of the novel classes' weights"),
    "--device-target": dict(
        choices=("Ascend", "GPU", "CPU"), help="taken for habit's sake: surgery needs no device"
    ),
}

Params = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Classes:
    """What surgery has to know of a data set.

    Attributes:
        dataset: its name, for messages.
        positions: for every base class its index among all classes.
        total: number of all classes.
        base_names: in index order; () if not known.
        all_names: likewise.
    """

    dataset: str
    positions: tuple[int, ...]
    total: int
    base_names: tuple[str, ...] = ()
    all_names: tuple[str, ...] = ()


def classes_of(info: DatasetInfo, dataset: str) -> Classes:
    """The classes of a data set, from the description of its `all` set.

    Raises:
        InputError: it has no novel classes, so nothing is to be done.
    """
    if not info.novel_classes:
        raise InputError(
            f"the data set {dataset!r} names no novel classes; list them in novel_classes of "
            "data.custom"
        )
    names = info.class_names
    positions = tuple(names.index(name) for name in info.base_classes)
    return Classes(dataset, positions, len(names), tuple(info.base_classes), names)


def voc_classes(split: int | None, trained: tuple[str, ...]) -> Classes:
    """VOC's classes: base classes first. Without a number the split is told by the base classes.

    A checkpoint that does not tell its classes (a converted one) needs no number: in every split
    the rows go to the same places.
    """
    for number in (split,) if split else (3, 2, 1):
        classes = classes_of(resolve_dataset(f"voc_2007_test_all{number}"), f"voc split {number}")
        if classes.base_names == trained:
            break
    if trained or split:
        return classes
    return Classes("voc", classes.positions, classes.total)


def configured_classes(config: Config, source: str, trained: tuple[str, ...]) -> Classes:
    """The classes of the data set that a configuration trains on.

    Raises:
        InputError: its training set is unknown, or one of its files cannot be read.
    """
    name = config.data.train[0]
    parsed = parse_name(name, config.data.custom)
    if parsed and parsed.own:
        return classes_of(describe_set(config, f"{parsed.family}_train_all"), parsed.family)
    if parsed and parsed.number:
        return voc_classes(parsed.number, trained)
    if parsed:
        return classes_of(resolve_dataset("coco14_test_all"), "coco")
    known = ", ".join(config.data.custom) or "none"
    raise InputError(
        f"{source}: data.train names {name!r}, which belongs to no data set of data.custom "
        f"({known})"
    )


def check_source(source: Weights, classes: Classes) -> None:
    """Check that a detector is one for the base classes.

    Raises:
        InputError: the class layers are missing or contradict each other, or the number or the
            names of the classes are others.
    """
    wanted = [f"{layer}.{part}" for layer in PARAM_NAMES for part in ("weight", "bias")]
    missing = [name for name in wanted if name not in source.params]
    if missing:
        raise InputError(
            f"{source.path} has no {', '.join(missing)}: give a whole detector, as base training "
            "writes it or src/pth2ckpt.py converts it"
        )
    weight, bias, box_weight, box_bias = (source.params[name].shape for name in wanted)
    fits = len(weight) == 2 and bias == weight[:1] and len(box_weight) == 2
    given = weight[0] - 1 if fits else 0
    if not fits or box_weight != (4 * given, weight[1]) or box_bias != box_weight[:1]:
        raise InputError(
            f"{source.path}: the shapes of its class layers, {weight}, {bias}, {box_weight} and "
            f"{box_bias}, do not belong together; make or copy it again"
        )
    expected = len(classes.positions)
    if given != expected:
        hint = "; it has the novel ones already" if given == classes.total else ""
        raise InputError(
            f"{source.path} was trained on {given} classes, but the data set {classes.dataset} has "
            f"{expected} base classes{hint}; give its base detector, or another --dataset"
        )
    if classes.base_names:
        what = f"the data set {classes.dataset}, in its base classes,"
        check_classes(source.class_names, classes.base_names, source.path, what)


def removed(params: Params) -> dict[str, np.ndarray]:
    """All parameters but those of the class and box layers."""
    layers = tuple(f"{layer}." for layer in PARAM_NAMES)
    return {name: array for name, array in params.items() if not name.startswith(layers)}


def enlarged(params: Params, classes: Classes, seed: int) -> dict[str, np.ndarray]:
    """All parameters, class and box layers for all classes.

    Args:
        params: of a detector for the base classes.
        classes: where their rows go.
        seed: of the novel rows: weights normal with std 0.01, biases 0. Each array is drawn from
            the seed and its name.
    """
    result = dict(params)
    total, kept = classes.total, list(classes.positions)
    for layer, (rows, background) in zip(PARAM_NAMES, ((1, 1), (4, 0))):  # of one class, at the end
        for name in (f"{layer}.weight", f"{layer}.bias"):
            old = params[name]
            new = np.zeros((rows * total + background, *old.shape[1:]), old.dtype)
            if name.endswith(".weight"):
                rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
                new[:] = STD * rng.standard_normal(new.shape)
            by_class = new[: rows * total].reshape(total, -1)
            by_class[kept] = old[: rows * len(kept)].reshape(len(kept), -1)
            new[rows * total :] = old[rows * len(kept) :]
            result[name] = new
    return result


def operate(
    source: Weights, classes: Classes, *, method: str, seed: int, folder: Path, name: str
) -> Path:
    """Do surgery and write the result with its note.

    Returns:
        The `.ckpt` file.

    Raises:
        InputError: see `check_source`.
    """
    check_source(source, classes)
    target = folder / f"{name}_{ENDINGS[method]}.ckpt"
    if target.resolve() == source.path.resolve():
        raise InputError(f"--tar-name: the result would replace {source.path}; name another one")
    origin = {
        "method": method,
        "dataset": classes.dataset,
        "seed": seed,
        "source": source.path.name,
        "source_sha256": sha256_file(source.path),
    }
    removes = method == "remove"
    params = removed(source.params) if removes else enlarged(source.params, classes, seed)
    # An old note must not be taken for the new file's.
    note_path(target).unlink(missing_ok=True)
    write_ckpt(target, params)
    write_note(target, () if removes else classes.all_names, origin)
    return target


def _classes(options: argparse.Namespace, flags: list[str], trained: tuple[str, ...]) -> Classes:
    """The classes of `--dataset`."""
    built_in = options.dataset in ("coco", "voc")
    if built_in and flags:
        raise InputError(f"{flags[0]}: unknown flag; --help lists those that there are")
    if options.split and options.dataset != "voc":
        raise InputError("--split goes with --dataset=voc only")
    if options.dataset == "voc":
        return voc_classes(options.split, trained)
    if options.dataset == "coco":
        return classes_of(resolve_dataset("coco14_test_all"), "coco")
    if not Path(options.dataset).is_file():
        hint = suggestion(options.dataset, ("coco", "voc"))
        raise InputError(
            f"--dataset: {options.dataset!r} is neither coco nor voc nor a configuration file{hint}"
        )
    return configured_classes(load_config(options.dataset, flags), options.dataset, trained)


def main(argv: Sequence[str] | None = None) -> int:
    """Read, operate, write."""
    parser = command_parser(FLAGS, program="python -m src.model_surgery", description=__doc__)
    options, flags = parser.parse_known_args(argv)
    set_up_logging()
    if set(options.param_name) != set(PARAM_NAMES):
        raise InputError(
            f"--param-name: the class layer and the box layer belong together, name both: "
            f"{' '.join(PARAM_NAMES)}"
        )
    if options.seed < 0:
        raise InputError(f"--seed: {options.seed} is negative; give 0 or more")
    if not options.tar_name or Path(options.tar_name).name != options.tar_name:
        raise InputError("--tar-name is the start of a file's name; the folder is --save-dir")
    if options.device_target:
        logger.info("--device-target %s: not needed, no device is used", options.device_target)
    if not options.src_path.exists():
        raise InputError(f"--src-path: {options.src_path} does not exist; give a .ckpt or a folder")
    source = read_weights(options.src_path, "--src-path")
    source = replace(source, path=source.path.with_suffix(".ckpt"))
    classes = _classes(options, flags, source.class_names)
    beside = options.src_path if options.src_path.is_dir() else options.src_path.parent
    target = operate(
        source,
        classes,
        method=options.method,
        seed=options.seed,
        folder=options.save_dir or beside,
        name=options.tar_name,
    )
    left = "no class layers" if options.method == "remove" else f"{classes.total} classes"
    logger.info("%s: %d base classes -> %s: %s", source.path, len(classes.positions), target, left)
    if not source.class_names:
        logger.warning("%s does not name its classes: their order is taken on trust", source.path)
    return 0


if __name__ == "__main__":
    run_main(main)

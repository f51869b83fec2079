# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Look at the data that a configuration names before anything is trained: one page of findings.

    python -m src.tools.check_data --config_path=FILE [--result_path=DIR]

Reads the sets of data.train and data.test as training does and writes `index.html`, `check.json`
and sheets of pictures: counts, sizes beside the anchors, boxes that look wrong, pictures that
cannot be used, that are there twice or in training and in test, and what K-shot sets have.

The folder is `result_path`, by default `check_data` in the run's folder (`save_checkpoint_path`).
Exit code 0, also with findings; 1 if one of them is an error, or if the sets cannot be read at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from src.assembly.data import read_sets
from src.dataset import check_together
from src.engine.claims import alone_in
from src.evaluation.report.page import check_free
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.config import Config, load_config
from src.model_utils.errors import InputError
from src.tools.data_check.analysis import Settings, describe, file_lengths, find_duplicates
from src.tools.data_check.boxes import BoxSet, gather
from src.tools.data_check.findings import WEIGHTS, all_findings, count
from src.tools.data_check.page import MARK, chosen_pictures, write_page
from src.tools.data_check.pictures import Seen, look_at_all, spread
from src.tools.data_check.shots import coverage, full_names
from src.util import listing, run_main, set_up_logging

FOLDER = "check_data"
FORMAT_VERSION = 1
FLAGS: Flags = {
    "--config_path": dict(required=True, help="the YAML file"),
    "--max_pictures": dict(
        type=int,
        default=10_000,
        metavar="N",
        help="decoded of each set, evenly spread (10000); files are compared in any case",
    ),
    "--pictures": dict(type=int, default=4, metavar="N", help="drawn of each class (4)"),
}


def settings_of(config: Config) -> Settings:
    """What the configuration says of pictures and anchors."""
    sizes, anchors = config.input, config.model.anchors
    return Settings(
        short_edges={"train": tuple(sizes.min_size_train), "test": (sizes.min_size_test,)},
        max_sizes={"train": sizes.max_size_train, "test": sizes.max_size_test},
        anchor_sizes=tuple(anchors.sizes),
        anchor_ratios=tuple(anchors.aspect_ratios),
        stride=anchors.stride,
        filter_empty=config.data.filter_empty,
        num_classes=config.model.num_classes,
    )


def read_box_sets(config: Config) -> list[BoxSet]:
    """The sets of data.train and data.test.

    Raises:
        InputError: see `read_sets`; or the training sets cannot be trained on together.
    """
    found = []
    for part, names in (("train", config.data.train), ("test", config.data.test)):
        for name in names:
            found.append(gather(part, *read_sets(config, (name,))))
    check_together([one.info for one in found if one.part == "train"])
    return found


def few_shot_coverage(config: Config, shots: BoxSet, settings: Settings) -> dict[str, Any]:
    """A K-shot set beside its full set, where that can be read."""
    full, problem = [], ""
    try:
        for name in full_names(shots.info.name):
            full.append(gather("train", *read_sets(config, (name,))))
    except InputError as error:
        full, problem = [], str(error)
    edges, max_size = settings.short_edges["train"], settings.max_sizes["train"]
    return coverage(shots, full, edges, max_size, problem)


def look(
    config: Config,
    sets: Sequence[BoxSet],
    chosen: Sequence[Sequence[Sequence[int]]],
    unreadable: dict[str, str],
    most: int,
) -> dict[str, Seen]:
    """Read up to `most` pictures of each set, and those that are to be drawn, each file once."""
    sizes: dict[str, tuple[int, int]] = {}
    for one, drawn in zip(sets, chosen):
        wanted = {*spread(len(one.files), most), *chain.from_iterable(drawn)}
        for place in sorted(wanted):
            height, width = one.sizes[place].tolist()
            if one.files[place] not in unreadable:
                sizes.setdefault(one.files[place], (height, width))
    return look_at_all(sizes, config.data.max_image_pixels, config.data.num_workers)


def run(config: Config, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Check everything and write the page; return what check.json holds."""
    settings = settings_of(config)
    sets = read_box_sets(config)
    chosen = [chosen_pictures(one, options.pictures) for one in sets]
    lengths, problems = file_lengths(sets)
    seen = look(config, sets, chosen, problems, options.max_pictures)
    problems |= {path: one.problem for path, one in seen.items() if one.problem}
    check: dict[str, Any] = {
        "version": FORMAT_VERSION,
        "config": str(options.config_path),
        "sets": [describe(one, settings, seen, problems) for one in sets],
        "duplicates": find_duplicates(sets, lengths, seen),
        "few_shot": [
            few_shot_coverage(config, one, settings)
            for one in sets
            if one.info.few_shot is not None
        ],
    }
    check["findings"] = all_findings(check, settings)
    drawn = [
        [[place for place in places if one.files[place] not in problems] for places in classes]
        for one, classes in zip(sets, chosen)
    ]
    write_page(folder, check, sets, drawn, config.data.max_image_pixels)
    return check


def summary(check: dict[str, Any]) -> str:
    """Sets and findings for the terminal, a line each; a finding's first files below it."""
    lines = [
        f"{one['part']} {one['name']}: {count(one['pictures'], 'picture')}, "
        f"{count(one['boxes'], 'box', 'boxes')} of {count(len(one['classes']), 'class', 'classes')}"
        for one in check["sets"]
    ]
    for one in check["findings"]:
        text = one["text"] if one["text"].isprintable() else ascii(one["text"])
        lines.append(f"{one['weight']}: {text}")
        if one["items"]:
            lines.append(f"    {listing(one['items'], 3, '; ')}")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Check the data, write the page, print what was found."""
    parser = command_parser(
        FLAGS,
        program="python -m src.tools.check_data",
        description="Check the data sets of a configuration and write a page of what was found.",
        epilog="Every key of the configuration is a flag too: --result_path=DIR "
        "--data.train=[mine_train_base]\nExit code 1 if a finding is an error.",
    )
    options, overrides = parser.parse_known_args(argv)
    set_up_logging()
    for flag in ("max_pictures", "pictures"):
        if getattr(options, flag) < 0:
            raise InputError(f"--{flag} {getattr(options, flag)} must be 0 or more")
    config = load_config(options.config_path, overrides)
    folder = Path(config.result_path or Path(config.save_checkpoint_path) / FOLDER)
    check_free(folder, MARK, "the page")
    with alone_in(folder, "src.tools.check_data", "result_path"):
        check = run(config, options, folder)
    sys.stdout.write(f"{summary(check)}\npage: {folder / 'index.html'}\n")
    return int(any(one["weight"] == WEIGHTS[0] for one in check["findings"]))


if __name__ == "__main__":
    run_main(main)

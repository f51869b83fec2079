# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Choose the calibration block's alpha, and the scores it changes, by base classes only.

    python -m src.tools.choose_alpha --config_path=FILE --eval_checkpoint_path=CKPT

FILE names a base set in `data.train` and the block's encoder. K boxes of each base class are drawn
from it, several times; prototypes of these calibrate the detections of other pictures, and each
setting of the grid is judged by the AP of the base classes. By default these are pictures of the
training set that no box was drawn from: the detector was trained on them. --on=NAME judges another
set, such as the base classes of the test set, whose novel labels are not looked at either.

Writes alpha.json in `result_path`, by default `choose_alpha` in `save_checkpoint_path`.
"""

from __future__ import annotations

import argparse
import itertools
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats  # type: ignore[import-untyped]

from src import detecteval
from src.assembly.base_draws import BaseDraws, Found, Judge, draw_base, look
from src.assembly.device import start_device
from src.assembly.encoder_files import encoder_identity, encoder_key, encoder_path
from src.assembly.evaluation import evaluation_checkpoint
from src.engine.claims import alone_in
from src.model_utils.command_line import Flags, command_parser
from src.model_utils.config import Config, load_config
from src.model_utils.errors import InputError
from src.util import pipe_table, run_main, set_up_logging, write_json

logger = logging.getLogger(__name__)

FILE_NAME = "alpha.json"
FLAGS: Flags = {
    "--config_path": dict(required=True, help="YAML file, see configs/"),
    "--on": dict(default="", metavar="NAME", help="data set to judge; default: data.train's rest"),
    "--pictures": dict(type=int, default=500, help="judged, at most (%(default)s)"),
    "--shots": dict(type=int, default=10, metavar="K", help="boxes a class (%(default)s)"),
    "--draws": dict(type=int, default=5, help="how often they are drawn (%(default)s)"),
    "--alphas": dict(
        type=float, nargs="+", default=[n / 10 for n in range(10)], help="default: 0, 0.1, ... 0.9"
    ),
    "--lowers": dict(
        type=float, nargs="+", default=[0.05, 0.1, 0.2, 0.4], help="default: 0.05 0.1 0.2 0.4"
    ),
    "--uppers": dict(type=float, nargs="+", default=[1.0], help="default: 1"),
}
SHOWN = 8  # best settings in the table
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Setting:
    """alpha score + (1 - alpha) cosine for scores in (lower, upper]."""

    alpha: float
    lower: float
    upper: float


@dataclass(frozen=True)
class Tried:
    """A setting with its figures, percent, a value a draw."""

    setting: Setting
    figures: dict[str, list[float]]

    def to_json(self, judged_by: str) -> dict[str, Any]:
        """Plain values, with mean and half width of the 95 % interval."""
        mean, half = interval(self.figures[judged_by])
        return {**vars(self.setting), **self.figures, "mean": mean, "half_width": half}


def interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean, and half width of its 95 % t interval; None of a single value."""
    count = len(values)
    if count < 2:
        return float(np.mean(values)), None
    quantile = float(stats.t.ppf((1 + _CONFIDENCE) / 2, count - 1))
    return float(np.mean(values)), quantile * float(np.std(values, ddof=1)) / math.sqrt(count)


def grid(options: argparse.Namespace, configured: Setting) -> list[Setting]:
    """Every setting to try, the configured one among them."""
    combined = itertools.product(options.alphas, options.lowers, options.uppers)
    asked = [Setting(*values) for values in combined]
    return list(dict.fromkeys([*(one for one in asked if one.lower < one.upper), configured]))


def judge_all(
    judge: Judge, found: Sequence[Found], settings: Sequence[Setting], draws: int
) -> Iterator[Tried]:
    """Recombine and judge the scores, setting by setting."""
    for number, setting in enumerate(settings, start=1):
        each = [
            judge(found, [one.calibrated(draw, **vars(setting)) for one in found])
            for draw in range(draws)
        ]
        if number % 10 == 0:
            logger.info("setting %d/%d", number, len(settings))
        yield Tried(setting, {name: [one[name] for one in each] for name in each[0]})


def choose(tried: Sequence[Tried], figure: str) -> Tried:
    """The setting with the highest mean; of equal ones that which changes least."""
    return max(tried, key=lambda one: (float(np.mean(one.figures[figure])), one.setting.alpha))


def text(
    base: BaseDraws, figure: str, plain: dict[str, float], tried: Sequence[Tried], now: Tried
) -> str:
    """The table, the choice, and the lines to paste; `now` is the configured setting."""
    best = choose(tried, figure)
    ranked = sorted(tried, key=lambda one: -float(np.mean(one.figures[figure])))
    rows = [["uncalibrated", "", "", f"{plain['AP']:.2f}", f"{plain['AP50']:.2f}", ""]]
    rows.append(_row("configured", now, figure, plain))
    rows += [_row(f"{n}.", one, figure, plain) for n, one in enumerate(ranked[:SHOWN], start=1)]
    heads = ["", "alpha", "scores in", "AP", "AP50", f"{figure} more than uncalibrated"]
    where = f"{len(base.judged)} pictures of {base.info.name}"
    if base.own:
        where += " that no box was drawn from (the detector was trained on them, so its scores"
        where += " are better than on new pictures; --on=NAME judges another set)"
    gain = [a - b for a, b in zip(best.figures[figure], now.figures[figure])]
    none = ""
    if float(np.mean(best.figures[figure])) <= plain[figure]:
        none = (
            "\nno setting is better than this detector's own scores, which those of novel classes, "
            "learnt from few boxes, are not as good as: judge a detector fine-tuned on few boxes "
            "of base classes (docs/encoders.md)"
        )
    return "\n".join(
        [
            f"AP of {len(base.info.class_names)} base classes, percent, on {where};",
            f"mean and 95 % t interval over {len(base.draws)} draws of the prototypes' boxes:",
            pipe_table(rows, heads),
            f"chosen: alpha {best.setting.alpha:g} for scores in ({best.setting.lower:g}, "
            f"{best.setting.upper:g}]; {figure} {_more(gain)} against the configured setting{none}",
            "",
            "test:",
            f"  pcb: {{alpha: {best.setting.alpha:g}, lower: {best.setting.lower:g}, "
            f"upper: {best.setting.upper:g}}}",
        ]
    )


def _row(head: str, one: Tried, figure: str, plain: dict[str, float]) -> list[str]:
    setting = one.setting
    figures = [_plus_minus(*interval(one.figures[name])) for name in ("AP", "AP50")]
    gain = [value - plain[figure] for value in one.figures[figure]]
    scores = f"({setting.lower:g}, {setting.upper:g}]"
    return [head, f"{setting.alpha:g}", scores, *figures, _more(gain)]


def _more(values: Sequence[float]) -> str:
    mean, half = interval(values)
    return f"{'+' if mean >= 0 else ''}{_plus_minus(mean, half)}"


def _plus_minus(mean: float, half: float | None) -> str:
    return f"{mean:.2f}" if half is None else f"{mean:.2f} ± {half:.2f}"


def described(base: BaseDraws) -> dict[str, Any]:
    """Which pictures are judged, and which boxes each draw has."""
    names = base.info.class_names
    return {
        "set": base.info.name,
        "trained_on": base.own,
        "pictures": [record.file_name for record in base.judged],
        "draws": [
            [
                {
                    "file_name": record.file_name,
                    "boxes": [
                        {
                            "class": names[item.category_id],
                            "bbox": item.bbox,
                            "mode": item.bbox_mode,
                        }
                        for item in record.annotations
                    ],
                }
                for record in draw
            ]
            for draw in base.draws
        ],
    }


def parse(argv: Sequence[str] | None) -> tuple[argparse.Namespace, Config]:
    """Read the command line.

    Raises:
        InputError: a number is out of its range.
    """
    parser = command_parser(
        FLAGS,
        program="python -m src.tools.choose_alpha",
        description=__doc__,
        epilog="Every key of the configuration is a flag too: --test.pcb.encoder=clip.yaml",
    )
    options, overrides = parser.parse_known_args(argv)
    for name in ("pictures", "shots", "draws"):
        if getattr(options, name) < 1:
            raise InputError(f"--{name} {getattr(options, name)} must be 1 or more")
    for name in ("alphas", "lowers", "uppers"):
        wrong = [value for value in getattr(options, name) if not 0 <= value <= 1]
        if wrong:
            raise InputError(f"--{name}: {wrong[0]:g} must lie within 0 and 1")
    if min(options.lowers) >= max(options.uppers):
        raise InputError("--lowers and --uppers leave no scores between them; give lower lowers")
    return options, load_config(options.config_path, overrides)


def main(argv: Sequence[str] | None = None) -> int:
    """Detect, judge the grid, print the table, write the JSON file."""
    options, config = parse(argv)
    set_up_logging()
    logging.getLogger(detecteval.__name__).setLevel(logging.WARNING)  # a line a setting and draw
    start_device(config, alone=True)
    folder = Path(config.result_path or Path(config.save_checkpoint_path) / "choose_alpha")
    with alone_in(folder, "src.tools.choose_alpha", "result_path"):
        pcb, path = config.test.pcb, evaluation_checkpoint(config)
        key = encoder_key(config)
        identity = encoder_identity(encoder_path(config), key)
        base = draw_base(
            config,
            options.on,
            pictures=options.pictures,
            shots=options.shots,
            draws=options.draws,
        )
        found, judge = look(config, base, folder), Judge(config, base)
        plain = judge(found, [one.scores for one in found])
        configured = Setting(pcb.alpha, pcb.lower, pcb.upper)
        settings = grid(options, configured)
        tried = list(judge_all(judge, found, settings, options.draws))
        now = next(one for one in tried if one.setting == configured)
        content = {
            "checkpoint": str(path),
            "encoder": {"key": key, "sha256": identity},
            "seed": config.seed,
            "shots": options.shots,
            "judged": described(base),
            "figure": judge.figure,
            "uncalibrated": plain,
            "configured": now.to_json(judge.figure),
            "chosen": choose(tried, judge.figure).to_json(judge.figure),
            "grid": [one.to_json(judge.figure) for one in tried],
        }
        write_json(folder / FILE_NAME, content)
    sys.stdout.write(f"{text(base, judge.figure, plain, tried, now)}\n")
    sys.stdout.write(f"all figures: {folder / FILE_NAME}\n")
    return 0


if __name__ == "__main__":
    run_main(main)

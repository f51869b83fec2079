# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Command lines: every program's flags are a table, and all are read in the same way."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Any

Flags = Mapping[str, Mapping[str, Any]]


def command_parser(
    flags: Flags,
    *,
    description: str | None,
    program: str | None = None,
    epilog: str | None = None,
) -> argparse.ArgumentParser:
    """A parser whose help keeps the lines of its texts, and that takes no shortened flags.

    Args:
        flags: name of each flag, and the settings of `ArgumentParser.add_argument`.
        description: start of `--help`.
        program: how it is called, such as "python -m src.sweep"; None: the file's name.
        epilog: end of `--help`.
    """
    parser = argparse.ArgumentParser(
        prog=program,
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for flag, settings in flags.items():
        parser.add_argument(flag, **settings)
    return parser

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The one exception type that an entry point turns into a sentence and a non-zero exit."""

from __future__ import annotations


class InputError(Exception):
    """Something the user gave is wrong: a file, a key, a value or a path.

    The message is one sentence that names the thing (file, key) and says what to do.
    """

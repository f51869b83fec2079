# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Small programs, run as python -m src.tools.NAME."""

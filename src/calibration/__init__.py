# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The calibration block's pictures, support set and stored prototypes."""

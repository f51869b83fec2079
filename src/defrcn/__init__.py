# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The detector: box maths, assignment, network parts and their composition."""

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The detector once more, with torch and torchvision: what `benchmarks/compare.py` measures against.

Written for this purpose, with operators that every PyTorch user has, in the way that the official
code uses them. Nothing of the project imports it, and it has an environment of its own
(`benchmarks/requirements-torch.txt`).

Letters: N images, G ground-truth boxes, A anchors, P proposals, S samples, R boxes, K classes.
"""

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""The few-shot benchmark on real photographs: what is run, and what is made of its figures."""

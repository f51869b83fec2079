# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Shots times seeds, one run after the other, and the table of them."""

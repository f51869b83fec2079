# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""From the configuration to data, network and runs: what the entry points share."""

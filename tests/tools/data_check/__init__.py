# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.

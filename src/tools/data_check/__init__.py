# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""What `src.tools.check_data` finds out about data sets, and its page."""

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Generated pictures for the demo: shapes (`shapes`) placed in scenes (`scenes`)."""

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Milliseconds of a 3x3 convolution, whose speed differs most between MindSpore's versions.

python -m benchmarks.convolution
"""

import sys
import time

import mindspore as ms
import numpy as np
from mindspore import Tensor, ops


def main() -> int:
    """Time 256 channels on 50 x 68 cells, the best of five."""
    ms.set_device("CPU")
    rng = np.random.default_rng(0)
    image = Tensor(rng.normal(size=(1, 256, 50, 68)).astype(np.float32))
    weight = Tensor(rng.normal(size=(256, 256, 3, 3)).astype(np.float32))

    @ms.jit(fullgraph=True)
    def run(x: Tensor, w: Tensor) -> Tensor:
        return ops.conv2d(x, w, pad_mode="pad", padding=1)

    run(image, weight).asnumpy()
    times = []
    for _ in range(5):
        started = time.perf_counter()
        run(image, weight).asnumpy()
        times.append(time.perf_counter() - started)
    sys.stdout.write(f"{1000 * min(times):.0f} ms\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

# Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
"""Running the calibration block's ResNet on pictures of any size.

The network itself is in `pcb_resnet.py`. Pictures are (H, W, 3) uint8 BGR as OpenCV reads them,
at their original size; feature maps come to the host as (H / 32, W / 32, C) float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import mindspore as ms
import numpy as np
from mindspore import Tensor

from src.defrcn.kernel_blocks import KernelEncoder
from src.defrcn.pcb_pooling import MapEncoder
from src.defrcn.pcb_resnet import ResNet, layout_of
from src.util import idle_thread
from src.weights.mindcv import is_mindcv, torchvision_names
from src.weights.parameter_rules import shapes_of

STRIDE = 32
# ImageNet's mean and standard deviation of R, G, B, of values in 0..1.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalised(pixels: np.ndarray) -> np.ndarray:
    """(..., H, W, 3) uint8 BGR -> (..., 3, H, W) float32 RGB / 255, ImageNet's mean and std."""
    rgb = pixels[..., ::-1].astype(np.float32) / np.float32(255)
    rgb = (rgb - np.array(IMAGENET_MEAN, np.float32)) / np.array(IMAGENET_STD, np.float32)
    return np.ascontiguousarray(np.moveaxis(rgb, -1, -3))


def tiles(height: int, width: int, reach: int, max_pixels: int) -> Iterator[tuple[slice, ...]]:
    """Cut a picture so that no piece with all that its cells see has more than `max_pixels`.

    Args:
        height: pixels.
        width: pixels.
        reach: see `EncoderLayout.reach`.
        max_pixels: limit for a piece; a picture within it stays whole. Pieces are never smaller
            than one cell and its surroundings.

    Yields:
        Rows and columns of pixels to look at, the map's rows and columns to fill, and those rows
        and columns of the piece's own map that fill them.
    """
    margin = -(-reach // STRIDE)
    side = max(math.isqrt(max_pixels), STRIDE)
    if height * width <= max_pixels:
        parts = (height, width)
    else:
        rows = height if height <= side else max(side, max_pixels // width)
        parts = (rows, max(max_pixels // rows, STRIDE))
    for row in _pieces(height, parts[0], margin):
        for column in _pieces(width, parts[1], margin):
            yield row[0], column[0], row[1], column[1], row[2], column[2]


def _pieces(length: int, part: int, margin: int) -> list[tuple[slice, slice, slice]]:
    """Along one axis: pixels to look at, cells to fill, and where these are in the piece."""
    cells = -(-length // STRIDE)
    core = cells if length <= part else max(part // STRIDE - 2 * margin, 1)
    found = []
    for start in range(0, cells, core):
        stop = min(start + core, cells)
        first = max(start - margin, 0)
        pixels = slice(first * STRIDE, min((stop + margin) * STRIDE, length))
        found.append((pixels, slice(start, stop), slice(start - first, stop - first)))
    return found


def loaded_resnet(
    params: Mapping[str, np.ndarray], source: object, *, masked: bool = False
) -> ResNet:
    """The network with a file's arrays, which are not trained.

    Args:
        params: torchvision's names or MindCV's.
        source: the file, for messages.
        masked: see `ResNet`.

    Raises:
        InputError: the parameters are not those of such a network.
    """
    mindcv = is_mindcv(params)
    if mindcv:
        params = torchvision_names(params)
    net = ResNet(layout_of(shapes_of(params), source), masked=masked, mindcv=mindcv)
    for parameter in net.get_parameters():
        parameter.requires_grad = False
        parameter.set_data(Tensor(np.asarray(params[parameter.name], np.float32)))
    return net


class ResNetEncoder(MapEncoder):
    """Pictures to feature maps, pooled features to vectors.

    Args:
        params: a file's arrays, torchvision's names or MindCV's.
        identity: what tells these weights from others, such as the file's SHA-256.
        source: the file, for messages.
        max_pixels: larger pictures go through in overlapping pieces, with the same result.
        shape_step: 0 compiles once for pictures of all sizes. A number pads height and width to
            its multiples (with masks, so features are the same) and compiles once for each such
            shape: for accelerators that want fixed shapes.
        idle_wait: see `util.idle_thread`, for the CPU.
        library: path of the kernels in C++ to use where `shape_step` is 0; "" for none.

    Raises:
        InputError: the parameters are not those of such a network.
    """

    stride = STRIDE

    def __init__(
        self,
        params: Mapping[str, np.ndarray],
        *,
        identity: str,
        source: object,
        max_pixels: int,
        shape_step: int = 0,
        idle_wait: bool = False,
        library: str = "",
    ) -> None:
        net = loaded_resnet(params, source, masked=shape_step > 0)
        self.layout, self.mindcv = net.layout, net.mindcv
        self.identity = identity
        self.max_pixels = max_pixels
        self.shape_step = shape_step
        self.idle_wait = idle_wait
        self._fc = (net.fc.weight.asnumpy(), net.fc.bias.asnumpy())
        self._calls = 0
        self._step = self._compile(net, library)

    def _compile(self, net: ResNet, library: str) -> Callable:
        if library and not self.shape_step:
            by_kernels = KernelEncoder(net, library)

            @ms.jit(fullgraph=True)
            def encode(images: Tensor, size: Tensor, odd: Tensor) -> Tensor:
                return by_kernels(images, odd)

        else:

            @ms.jit(fullgraph=True)
            def encode(images: Tensor, size: Tensor, odd: Tensor) -> Tensor:
                return net(images, size, odd).transpose(0, 2, 3, 1)

        if self.shape_step:
            return encode
        return ms.enable_dynamic(images=Tensor(shape=[1, 3, None, None], dtype=ms.float32))(encode)

    def feature_map(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 BGR -> (H / 32, W / 32, C) float32, sizes rounded up."""
        height, width = pixels.shape[:2]
        channels = self.layout.out_channels[-1]
        shape = (-(-height // STRIDE), -(-width // STRIDE), channels)
        result = np.empty(shape, np.float32)
        # After the stem, of the whole picture: a piece begins at an even cell.
        odd = np.array([-(-side // 2) % 2 for side in (height, width)], np.float32)
        # MindCV's pooling may look one cell of the stem further.
        reach = self.layout.reach() + 2 * self.mindcv
        for piece in tiles(height, width, reach, self.max_pixels):
            rows, columns, to_rows, to_columns, from_rows, from_columns = piece
            found = self._encode(normalised(pixels[rows, columns]), odd)
            result[to_rows, to_columns] = found[from_rows, from_columns]
        return result

    def project(self, pooled: np.ndarray) -> np.ndarray:
        """The last layer: (R, C) -> (R, D) float32."""
        weight, bias = self._fc
        return np.asarray(pooled @ weight.T + bias, np.float32)

    def _encode(self, image: np.ndarray, odd: np.ndarray) -> np.ndarray:
        height, width = image.shape[1:]
        if self.shape_step:
            sides = (-height % self.shape_step, -width % self.shape_step)
            image = np.pad(image, ((0, 0), (0, sides[0]), (0, sides[1])))
        size = Tensor(np.array([height, width], np.int32))
        # The first call compiles, which is this thread's own work.
        with idle_thread(self.idle_wait and self._calls > 0):
            found = self._step(Tensor(image[None]), size, Tensor(odd)).asnumpy()[0]
        self._calls += 1
        return found

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Pixels of a picture, and how they are turned and resized.
#ifndef DEFRCN_PICTURE_H_
#define DEFRCN_PICTURE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "file_io.h"

namespace defrcn {

struct Size {
  int height = 0;
  int width = 0;
};

inline bool operator==(const Size &first, const Size &second) {
  return first.height == second.height && first.width == second.width;
}

// "640 x 480" (width x height)
std::string Describe(const Size &size);

// Rows from the top, pixels from the left, red first.
struct Picture {
  Size size;
  Buffer rgb;  // height * width * 3

  Picture() = default;
  explicit Picture(Size of)
      : size(of),
        rgb(static_cast<std::size_t>(of.height) * static_cast<std::size_t>(of.width) * 3) {}

  std::uint8_t *At(int row, int column) {
    return rgb.data() + (static_cast<std::size_t>(row) * static_cast<std::size_t>(size.width) +
                         static_cast<std::size_t>(column)) *
                            3;
  }
  const std::uint8_t *At(int row, int column) const {
    return const_cast<Picture *>(this)->At(row, column);
  }
};

// The picture as EXIF's orientation (1 to 8) wants it to be seen; others leave it as it is.
Picture Oriented(Picture picture, int orientation);

// The size in the model frame: the short edge becomes `min_size`, unless the long one would exceed
// `max_size`, which it then becomes. Arithmetic and rounding are those of `resized_shape` in
// src/data/transforms.py.
Size ResizedSize(Size size, int min_size, int max_size);

// Bilinear with smoothing where a side shrinks: byte for byte what `resize` in
// src/data/transforms.py makes with Pillow.
Picture Resized(const Picture &picture, Size size);

}  // namespace defrcn

#endif  // DEFRCN_PICTURE_H_

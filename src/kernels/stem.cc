// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// `resnet.Stem` with a frozen norm, without gradient: 7x7 convolution of stride 2, ReLU, 3x3 max
// pooling of stride 2, from images (N, 3, H, W) to maps with channels last.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#include "parallel.h"
#include "processors.h"
#include "products.h"

namespace {

using Shapes = std::vector<std::vector<int64_t>>;

constexpr int64_t kSide = 7, kLinesAtATime = 8;

int64_t Half(int64_t size) { return size < 0 ? -1 : (size + 1) / 2; }

struct Stem {
  int64_t planes, height, width, channels;  // of the images, and of the output
  const float *weight;                      // (D, planes * 49), the norm inside
  const float *shift;

  int64_t taps() const { return planes * kSide * kSide; }

  // Line y of the convolution: (W / 2, D). `patches`: room for (W / 2, taps).
  void Line(const float *image, int64_t y, float *patches, float *to) const {
    const int64_t columns = Half(width);
    for (int64_t x = 0; x < columns; ++x) {
      float *own = patches + x * taps();
      for (int64_t plane = 0; plane < planes; ++plane) {
        for (int64_t i = 0; i < kSide; ++i, own += kSide) {
          const int64_t row = 2 * y + i - 3;
          if (row < 0 || row >= height) {
            std::fill(own, own + kSide, 0.0f);
            continue;
          }
          const float *line = image + (plane * height + row) * width;
          for (int64_t j = 0; j < kSide; ++j) {
            const int64_t column = 2 * x + j - 3;
            own[j] = column < 0 || column >= width ? 0.0f : line[column];
          }
        }
      }
    }
    ProductHere({patches, taps(), false}, {weight, taps(), true}, columns, channels, taps(), 0.0f,
                to, channels);
    for (int64_t i = 0; i < columns * channels; ++i) {
      const float value = to[i] + shift[i % channels];
      to[i] = value < 0.0f ? 0.0f : value;
    }
  }
};

FOR_EACH_PROCESSOR void KeepLarger(const float *from, int64_t count, float *to) {
  for (int64_t i = 0; i < count; ++i)
    to[i] = to[i] < from[i] || from[i] != from[i] ? from[i] : to[i];
}

void Run(void **params, int64_t **shapes) {
  const int64_t images = shapes[0][0], channels = shapes[1][0];
  const float *norm[4];
  for (int i = 0; i < 4; ++i) norm[i] = static_cast<const float *>(params[2 + i]);
  const float eps = static_cast<float>(static_cast<const double *>(params[6])[0]);
  float *out = static_cast<float *>(params[7]);
  Stem stem{shapes[0][1], shapes[0][2], shapes[0][3], channels, nullptr, nullptr};
  const Scratch weight(channels * stem.taps());
  std::vector<float> shift(channels);
  for (int64_t d = 0; d < channels; ++d) {
    const float scale = norm[0][d] / std::sqrt(norm[3][d] + eps);
    shift[d] = norm[1][d] - norm[2][d] * scale;
    for (int64_t i = d * stem.taps(); i < (d + 1) * stem.taps(); ++i) {
      weight.data()[i] = static_cast<const float *>(params[1])[i] * scale;
    }
  }
  stem.weight = weight.data();
  stem.shift = shift.data();
  const int64_t lines = Half(stem.height), columns = Half(stem.width);
  const int64_t rows = Half(lines), cells = Half(columns);
  const int64_t parts = (rows + kLinesAtATime - 1) / kLinesAtATime;
  InParallel(images * parts, 1, [&](int64_t begin, int64_t end) {
    const Scratch patches(columns * stem.taps()), line(columns * channels);
    for (int64_t part = begin; part < end; ++part) {
      const float *image = static_cast<const float *>(params[0]) +
                           part / parts * stem.planes * stem.height * stem.width;
      const int64_t first = part % parts * kLinesAtATime;
      const int64_t last = std::min(rows, first + kLinesAtATime);
      float *maps = out + part / parts * rows * cells * channels;
      // Nothing is below 0 after the ReLU.
      std::fill(maps + first * cells * channels, maps + last * cells * channels, 0.0f);
      for (int64_t y = std::max<int64_t>(0, 2 * first - 1); y < std::min(lines, 2 * last); ++y) {
        stem.Line(image, y, patches.data(), line.data());
        for (int64_t row = y / 2; row <= (y + 1) / 2; ++row) {
          if (row < first || row >= last) continue;
          for (int64_t x = 0; x < columns; ++x) {
            for (int64_t cell = x / 2; cell <= std::min((x + 1) / 2, cells - 1); ++cell) {
              KeepLarger(line.at(x * channels), channels, maps + (row * cells + cell) * channels);
            }
          }
        }
      }
    }
  });
}

}  // namespace

// In: images (N, 3, H, W); weight (D, 3, 7, 7), gamma, beta, mean, variance; settings (1,) float64:
// eps. Out: (N, H / 4, W / 4, D), rounded up.
extern "C" int FrozenStem(int, void **params, int *, int64_t **shapes, const char **, void *,
                          void *) {
  try {
    Run(params, shapes);
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

extern "C" Shapes FrozenStemInferShape(int *, int64_t **shapes, void *) {
  return {{shapes[0][0], Half(Half(shapes[0][2])), Half(Half(shapes[0][3])), shapes[1][0]}};
}

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// `roi_align.ROIAlign` and its gradient, cell by cell: most cells of a map give nothing to a box.
//
// Letters: N images, R boxes an image, B bins an axis that are kept, H x W cells, C channels.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#include "parallel.h"
#include "processors.h"

namespace {

using Shapes = std::vector<std::vector<int64_t>>;

// What cells from `first` on give to a bin of one axis; as `roi_align.axis_weights`.
struct Share {
  int64_t first = 0;
  std::vector<float> weights;
};

struct Pooling {
  Pooling(const float *valid_size, const double *settings, int64_t kept)
      : rows(valid_size[0]),
        columns(valid_size[1]),
        scale(static_cast<float>(settings[0])),
        bins(static_cast<float>(settings[1])),
        step(static_cast<int64_t>(settings[2])),
        kept(kept) {}

  float rows, columns, scale, bins;
  int64_t step, kept;
};

Share ShareOf(float start, float bin_size, int64_t bin, float size, int64_t length) {
  Share share;
  const float count = std::ceil(bin_size), safe = std::max(count, 1.0f);
  const float low = start + static_cast<float>(bin) * bin_size, each = bin_size / safe;
  if (!(count > 0.0f) || !std::isfinite(low) || !std::isfinite(count)) return share;
  for (float sample = 0; sample < count; ++sample) {
    float point = low + (sample + 0.5f) * each;
    if (point < -1.0f) continue;
    if (point > size) break;
    point = std::min(std::max(point, 0.0f), size - 1.0f);
    const float cell = std::floor(point), rest = point - cell;
    const int64_t place = static_cast<int64_t>(cell);
    if (share.weights.empty()) share.first = place;
    const size_t own = place - share.first;
    if (share.weights.size() < own + 2) share.weights.resize(own + 2, 0.0f);
    share.weights[own] += (1.0f - rest) / safe;
    share.weights[own + 1] += rest / safe;
  }
  const int64_t most = length - share.first;
  if (static_cast<int64_t>(share.weights.size()) > most) share.weights.resize(most);
  return share;
}

// Shares of a box's bins, by rows and by columns.
struct Box {
  Box(const float *box, const Pooling &pooling, int64_t height, int64_t width) {
    float edges[4];
    for (int i = 0; i < 4; ++i) edges[i] = box[i] * pooling.scale - 0.5f;
    const float bin_width = (edges[2] - edges[0]) / pooling.bins;
    const float bin_height = (edges[3] - edges[1]) / pooling.bins;
    for (int64_t bin = 0; bin < pooling.kept; ++bin) {
      const int64_t place = bin * pooling.step;
      by_row.push_back(ShareOf(edges[1], bin_height, place, pooling.rows, height));
      by_column.push_back(ShareOf(edges[0], bin_width, place, pooling.columns, width));
    }
  }

  // Calls at(bin, cell, weight) for all that counts.
  template <typename At>
  void Each(int64_t width, const At &at) const {
    const int64_t kept = static_cast<int64_t>(by_row.size());
    for (int64_t y = 0; y < kept; ++y) {
      for (int64_t x = 0; x < kept; ++x) {
        for (size_t i = 0; i < by_row[y].weights.size(); ++i) {
          for (size_t j = 0; j < by_column[x].weights.size(); ++j) {
            const float weight = by_row[y].weights[i] * by_column[x].weights[j];
            const int64_t cell = (by_row[y].first + i) * width + by_column[x].first + j;
            if (weight != 0.0f) at(y * kept + x, cell, weight);
          }
        }
      }
    }
  }

  std::vector<Share> by_row, by_column;
};

FOR_EACH_PROCESSOR void AddScaled(const float *from, float weight, int64_t count, float *to) {
  for (int64_t i = 0; i < count; ++i) to[i] += weight * from[i];
}

void Pool(const float *features, const float *boxes, const Pooling &pooling, const int64_t *shape,
          int64_t count, float *out) {
  const int64_t height = shape[1], width = shape[2], channels = shape[3];
  const int64_t bins = pooling.kept * pooling.kept;
  InParallel(shape[0] * count, std::max<int64_t>(1, 4096 / channels),
             [&](int64_t begin, int64_t end) {
               for (int64_t i = begin; i < end; ++i) {
                 const float *map = features + i / count * height * width * channels;
                 float *own = out + i * bins * channels;
                 std::fill(own, own + bins * channels, 0.0f);
                 Box(boxes + 4 * i, pooling, height, width)
                     .Each(width, [&](int64_t bin, int64_t cell, float weight) {
                       AddScaled(map + cell * channels, weight, channels, own + bin * channels);
                     });
               }
             });
}

// Threads share the channels: sums have one order, however many there are.
void Spread(const float *gradient, const float *boxes, const Pooling &pooling, const int64_t *shape,
            int64_t count, float *out) {
  const int64_t height = shape[1], width = shape[2], channels = shape[3];
  const int64_t bins = pooling.kept * pooling.kept, size = height * width * channels;
  std::vector<Box> all;
  for (int64_t i = 0; i < shape[0] * count; ++i)
    all.emplace_back(boxes + 4 * i, pooling, height, width);
  InParallel(channels, 64, [&](int64_t begin, int64_t end) {
    for (int64_t cell = 0; cell < shape[0] * height * width; ++cell) {
      std::fill(out + cell * channels + begin, out + cell * channels + end, 0.0f);
    }
    for (size_t i = 0; i < all.size(); ++i) {
      float *map = out + static_cast<int64_t>(i) / count * size + begin;
      const float *own = gradient + i * bins * channels + begin;
      all[i].Each(width, [&](int64_t bin, int64_t cell, float weight) {
        AddScaled(own + bin * channels, weight, end - begin, map + cell * channels);
      });
    }
  });
}

}  // namespace

// In: features (N, H, W, C), boxes (N, R, 4), valid_size (2,), settings (3,) float64: cells a
// pixel, bins an axis, step of bins; and something of shape (B,). Out: (N * R, B, B, C).
extern "C" int ROIAlign(int, void **params, int *, int64_t **shapes, const char **, void *,
                        void *) {
  try {
    const Pooling pooling(static_cast<float *>(params[2]), static_cast<double *>(params[3]),
                          shapes[4][0]);
    Pool(static_cast<float *>(params[0]), static_cast<float *>(params[1]), pooling, shapes[0],
         shapes[1][1], static_cast<float *>(params[5]));
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

extern "C" Shapes ROIAlignInferShape(int *, int64_t **shapes, void *) {
  const int64_t boxes = shapes[1][1] < 0 ? -1 : shapes[0][0] * shapes[1][1];
  return {{boxes, shapes[4][0], shapes[4][0], shapes[0][3]}};
}

// In: the same, then the gradient (N * R, B, B, C). Out: that of the features.
extern "C" int ROIAlignGrad(int, void **params, int *, int64_t **shapes, const char **, void *,
                            void *) {
  try {
    const Pooling pooling(static_cast<float *>(params[2]), static_cast<double *>(params[3]),
                          shapes[4][0]);
    Spread(static_cast<float *>(params[5]), static_cast<float *>(params[1]), pooling, shapes[0],
           shapes[1][1], static_cast<float *>(params[6]));
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

extern "C" Shapes ROIAlignGradInferShape(int *, int64_t **shapes, void *) {
  return {{shapes[0][0], shapes[0][1], shapes[0][2], shapes[0][3]}};
}

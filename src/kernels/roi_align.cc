// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.

#include "roi_align.h"

#include <algorithm>
#include <cmath>
#include <new>
#include <vector>

#include "parallel.h"
#include "processors.h"

namespace {

// What cells from `first` on give to a bin of one axis; as `roi_align.axis_weights`.
struct Share {
  int64_t first = 0;
  std::vector<float> weights;
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

  // Calls at(cell, weight) for all that counts in a bin.
  template <typename At>
  void Each(int64_t bin, int64_t width, const At &at) const {
    const int64_t kept = static_cast<int64_t>(by_row.size());
    const Share &row = by_row[bin / kept], &column = by_column[bin % kept];
    for (size_t i = 0; i < row.weights.size(); ++i) {
      for (size_t j = 0; j < column.weights.size(); ++j) {
        const float weight = row.weights[i] * column.weights[j];
        if (weight != 0.0f) at((row.first + i) * width + column.first + j, weight);
      }
    }
  }

  std::vector<Share> by_row, by_column;
};

FOR_EACH_PROCESSOR void AddScaled(const float *from, float weight, int64_t count, float *to) {
  for (int64_t i = 0; i < count; ++i) to[i] += weight * from[i];
}

}  // namespace

void PoolBins(const Boxes &boxes, const Pooling &pooling, const float *features, const Map &map,
              int64_t first, int64_t count, float *out) {
  const int64_t bins = pooling.kept * pooling.kept, channels = map.channels;
  for (int64_t place = first; place < first + count;) {
    const int64_t i = place / bins;
    const int64_t end = std::min((i + 1) * bins, first + count);
    const Box box(boxes.data + 4 * i, pooling, map.height, map.width);
    const float *own = features + i / boxes.each * map.height * map.width * channels;
    for (; place < end; ++place, out += channels) {
      std::fill(out, out + channels, 0.0f);
      box.Each(place % bins, map.width, [&](int64_t cell, float weight) {
        AddScaled(own + cell * channels, weight, channels, out);
      });
    }
  }
}

void SpreadBins(const Boxes &boxes, const Pooling &pooling, const float *gradient, const Map &map,
                float *out) {
  const int64_t bins = pooling.kept * pooling.kept, channels = map.channels;
  std::vector<Box> all;
  for (int64_t i = 0; i < map.images * boxes.each; ++i)
    all.emplace_back(boxes.data + 4 * i, pooling, map.height, map.width);
  // Threads share the channels: sums have one order, however many there are.
  InParallel(channels, 64, [&](int64_t begin, int64_t end) {
    for (int64_t cell = 0; cell < map.rows(); ++cell) {
      std::fill(out + cell * channels + begin, out + cell * channels + end, 0.0f);
    }
    const float *from = gradient + begin;
    for (size_t i = 0; i < all.size(); ++i) {
      const int64_t image = static_cast<int64_t>(i) / boxes.each;
      float *own = out + image * map.height * map.width * channels + begin;
      for (int64_t bin = 0; bin < bins; ++bin, from += channels) {
        all[i].Each(bin, map.width, [&](int64_t cell, float weight) {
          AddScaled(from, weight, end - begin, own + cell * channels);
        });
      }
    }
  });
}

namespace {

using Shapes = std::vector<std::vector<int64_t>>;

struct Inputs {
  Inputs(void **params, int64_t **shapes)
      : map{shapes[0][0], shapes[0][1], shapes[0][2], shapes[0][3]},
        boxes{static_cast<const float *>(params[1]), shapes[1][1]},
        pooling(static_cast<const float *>(params[2]), static_cast<const double *>(params[3]),
                shapes[4][0]) {}

  Map map;
  Boxes boxes;
  Pooling pooling;
};

void Pool(void **params, int64_t **shapes) {
  const Inputs in(params, shapes);
  const float *features = static_cast<const float *>(params[0]);
  float *out = static_cast<float *>(params[5]);
  const int64_t bins = in.pooling.kept * in.pooling.kept;
  InParallel(in.map.images * in.boxes.each, std::max<int64_t>(1, 4096 / in.map.channels),
             [&](int64_t begin, int64_t end) {
               PoolBins(in.boxes, in.pooling, features, in.map, begin * bins, (end - begin) * bins,
                        out + begin * bins * in.map.channels);
             });
}

void Spread(void **params, int64_t **shapes) {
  const Inputs in(params, shapes);
  SpreadBins(in.boxes, in.pooling, static_cast<const float *>(params[5]), in.map,
             static_cast<float *>(params[6]));
}

int Guarded(void (*run)(void **, int64_t **), void **params, int64_t **shapes) {
  try {
    run(params, shapes);
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

}  // namespace

// In: features (N, H, W, C), boxes (N, R, 4), valid_size (2,), settings (3,) float64: cells a
// pixel, bins an axis, step of bins; and something of shape (B,). Out: (N * R, B, B, C).
extern "C" int ROIAlign(int, void **params, int *, int64_t **shapes, const char **, void *,
                        void *) {
  return Guarded(Pool, params, shapes);
}

extern "C" Shapes ROIAlignInferShape(int *, int64_t **shapes, void *) {
  const int64_t boxes = shapes[1][1] < 0 ? -1 : shapes[0][0] * shapes[1][1];
  return {{boxes, shapes[4][0], shapes[4][0], shapes[0][3]}};
}

// In: the same, then the gradient (N * R, B, B, C). Out: that of the features.
extern "C" int ROIAlignGrad(int, void **params, int *, int64_t **shapes, const char **, void *,
                            void *) {
  return Guarded(Spread, params, shapes);
}

extern "C" Shapes ROIAlignGradInferShape(int *, int64_t **shapes, void *) {
  return {{shapes[0][0], shapes[0][1], shapes[0][2], shapes[0][3]}};
}

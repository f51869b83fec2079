// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.

#include "layers.h"

#include <algorithm>
#include <cmath>

#include "parallel.h"
#include "processors.h"

namespace {

// A whole number of parts that ProductHere multiplies at a time.
constexpr int64_t kRowsAtATime = 384;

FOR_EACH_PROCESSOR void ScaleRow(const float *from, float scale, int64_t count, float *to) {
  for (int64_t i = 0; i < count; ++i) to[i] = from[i] * scale;
}

FOR_EACH_PROCESSOR void Masked(const float *from, const float *mask, int64_t count, float *to) {
  for (int64_t i = 0; i < count; ++i) to[i] = mask[i] > 0.0f ? from[i] : 0.0f;
}

constexpr int64_t kTaps = 9;

// The 3x3 cells around some cells of `kept`, which has every `stride`-th one of the map: rows of
// (9, C).
void GatherPatches(const float *in, const Map &map, int64_t stride, const Map &kept, int64_t first,
                   int64_t count, float *to) {
  const int64_t channels = map.channels;
  for (int64_t place = first; place < first + count; ++place) {
    const int64_t x = place % kept.width * stride, y = place / kept.width % kept.height * stride;
    const int64_t cell = (place / (kept.width * kept.height) * map.height + y) * map.width + x;
    for (int64_t i = -1; i <= 1; ++i) {
      for (int64_t j = -1; j <= 1; ++j, to += channels) {
        const bool inside = y + i >= 0 && y + i < map.height && x + j >= 0 && x + j < map.width;
        const float *from = in + (cell + i * map.width + j) * channels;
        if (inside) {
          std::copy(from, from + channels, to);
        } else {
          std::fill(to, to + channels, 0.0f);
        }
      }
    }
  }
}

// (C, 9) -> (9, C), scaled.
void TapsFirst(const float *from, float scale, int64_t channels, float *to) {
  for (int64_t t = 0; t < kTaps; ++t) {
    for (int64_t c = 0; c < channels; ++c) to[t * channels + c] = from[c * kTaps + t] * scale;
  }
}

// Parts of `count` rows of which every thread has as many.
int64_t FairGrain(int64_t count) {
  const int64_t turns = (count + kRowsAtATime * NumThreads() - 1) / (kRowsAtATime * NumThreads());
  const int64_t parts = std::max<int64_t>(1, turns * NumThreads());
  return std::max<int64_t>(24, ((count + parts - 1) / parts + 23) / 24 * 24);
}

}  // namespace

int64_t RowGrain(int64_t channels) { return std::max<int64_t>(1, 16384 / channels); }

Folded::Folded(const ConvNorm &layer, float eps) : scale(layer.out), shift(layer.out) {
  for (int64_t d = 0; d < layer.out; ++d) {
    scale[d] = layer.gamma[d] / std::sqrt(layer.variance[d] + eps);
    shift[d] = layer.beta[d] - layer.mean[d] * scale[d];
  }
}

void ScaleRows(const float *from, const float *scale, int64_t rows, int64_t columns, float *to) {
  InParallel(rows, RowGrain(columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      ScaleRow(from + i * columns, scale[i], columns, to + i * columns);
    }
  });
}

FOR_EACH_PROCESSOR void ShiftAndClip(float *rows, const float *shift, int64_t count,
                                     int64_t channels) {
  for (int64_t i = 0; i < count; ++i, rows += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const float value = rows[c] + shift[c];
      rows[c] = value < 0.0f ? 0.0f : value;  // what is no number stays
    }
  }
}

void MaskedByAll(const float *from, const float *mask, int64_t count, float *to) {
  InParallel(count, 16384, [&](int64_t begin, int64_t end) {
    Masked(from + begin, mask + begin, end - begin, to + begin);
  });
}

void PointwiseAndClip(const float *rows, const float *weight, int64_t count, int64_t in,
                      int64_t out, const float *shift, const Begin &begin, float *to) {
  const int64_t part = kRowsAtATime;
  const int64_t grain = count * in * out < (1 << 17) ? count : FairGrain(count);
  InParallel(count, grain, [&](int64_t from, int64_t end) {
    for (int64_t row = from; row < end; row += part) {
      const int64_t size = std::min(part, end - row);
      float *own = to + row * out;
      if (begin) begin(row, size, own);
      ProductHere({rows + row * in, in, false}, {weight, in, true}, size, out, in,
                  begin ? 1.0f : 0.0f, own, out);
      ShiftAndClip(own, shift, size, out);
    }
  });
}

void ConvolveStridedAndClip(const float *in, const Map &map, int64_t stride, const ConvNorm &layer,
                            const Folded &fold, float *to) {
  const int64_t length = kTaps * layer.in;
  const Map kept = Kept(map, stride);
  const Scratch weight(layer.out * length);
  InParallel(layer.out, RowGrain(length), [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) {
      TapsFirst(layer.weight + d * length, fold.scale[d], layer.in, weight.at(d * length));
    }
  });
  InParallel(kept.rows(), FairGrain(kept.rows()), [&](int64_t begin, int64_t end) {
    const Scratch patches(std::min(kRowsAtATime, end - begin) * length);
    for (int64_t row = begin; row < end; row += kRowsAtATime) {
      const int64_t size = std::min(kRowsAtATime, end - row);
      float *own = to + row * layer.out;
      GatherPatches(in, map, stride, kept, row, size, patches.data());
      ProductHere({patches.data(), length, false}, {weight.data(), length, true}, size, layer.out,
                  length, 0.0f, own, layer.out);
      ShiftAndClip(own, fold.shift.data(), size, layer.out);
    }
  });
}

void PointwiseWeightGradient(const float *out_gradient, const float *rows, int64_t count,
                             const ConvNorm &layer, const float *scale, float *gradient) {
  Product({out_gradient, layer.out, true}, {rows, layer.in, false}, layer.out, layer.in, count,
          0.0f, gradient, layer.in);
  if (scale != nullptr) ScaleRows(gradient, scale, layer.out, layer.in, gradient);
}

void BackToFirst(const Inner &inner, const ConvNorm &two, const ConvNorm &three, float eps,
                 const float *y_gradient, float *last, float *first, float *weight_gradient2,
                 float *weight_gradient3) {
  const int64_t rows = inner.map.rows();
  const Folded fold2(two, eps), fold3(three, eps);
  const Scratch second(rows * two.out), weight(three.out * three.in);
  MaskedByAll(y_gradient, inner.y, rows * three.out, last);
  ScaleRows(three.weight, fold3.scale.data(), three.out, three.in, weight.data());
  Product({last, three.out, false}, {weight.data(), three.in, false}, rows, three.in, three.out,
          0.0f, second.data(), three.in);
  MaskedByAll(second.data(), inner.h2, rows * two.out, second.data());
  Finish finish;
  finish.mask = inner.h1;
  Convolve3x3InputGradient(second.data(), inner.map, two.weight, fold2.scale.data(), two.out,
                           finish, first);
  if (weight_gradient2 == nullptr) return;
  PointwiseWeightGradient(last, inner.h2, rows, three, fold3.scale.data(), weight_gradient3);
  Convolve3x3WeightGradient(inner.h1, inner.map, second.data(), fold2.scale.data(), two.out,
                            weight_gradient2);
}

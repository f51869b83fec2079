// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// `fast.SampledRPNHead`: the head on all cells, without gradient, and at the sampled anchors, with.
//
// Letters: N images, H x W cells, C channels, B anchors a cell, A = H * W * B anchors, S samples of
// an image, M = N * S of all.

#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

#include "parallel.h"
#include "processors.h"
#include "products.h"

namespace {

using Shapes = std::vector<std::vector<int64_t>>;

constexpr int64_t kTaps = 9, kBox = 4;

// The inputs that both have: features, then weight and bias of each layer.
struct Head {
  Head(void **params, int64_t **shapes)
      : map{shapes[0][0], shapes[0][1], shapes[0][2], shapes[0][3]},
        anchors(shapes[3][0]),
        features(static_cast<const float *>(params[0])) {
    const float **places[] = {&conv, &conv_bias, &logits, &logits_bias, &deltas, &deltas_bias};
    for (int i = 0; i < 6; ++i) *places[i] = static_cast<const float *>(params[1 + i]);
  }

  Map map;
  int64_t anchors;
  const float *features;
  const float *conv, *conv_bias, *logits, *logits_bias, *deltas, *deltas_bias;
};

FOR_EACH_PROCESSOR void AddBias(const float *bias, int64_t rows, int64_t columns, float *to) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) to[i * columns + j] += bias[j];
  }
}

void Linear(const float *rows, int64_t count, int64_t in, const float *weight, const float *bias,
            int64_t out, float *to) {
  Product({rows, in, false}, {weight, in, true}, count, out, in, 0.0f, to, out);
  AddBias(bias, count, out, to);
}

void Dense(const Head &head, float *logits, float *deltas) {
  const int64_t channels = head.map.channels, rows = head.map.rows();
  const Scratch hidden(rows * channels);
  Finish finish;
  finish.shift = head.conv_bias;
  finish.relu = true;
  Convolve3x3(head.features, head.map, head.conv, nullptr, channels, finish, hidden.data());
  Linear(hidden.data(), rows, channels, head.logits, head.logits_bias, head.anchors, logits);
  Linear(hidden.data(), rows, channels, head.deltas, head.deltas_bias, kBox * head.anchors, deltas);
}

// The 3x3 cells around the cell of each sample. Rows are (C, 9), as the weight's.
class Patches {
 public:
  Patches(const Head &head, const int32_t *index, int64_t samples)
      : map_(head.map), anchors_(head.anchors), index_(index), samples_(samples) {}

  int64_t count() const { return map_.images * samples_; }
  int64_t anchor(int64_t sample) const { return index_[sample] % anchors_; }

  void Gather(const float *features, float *to) const {
    InParallel(count(), std::max<int64_t>(1, 1024 / map_.channels),
               [&](int64_t begin, int64_t end) {
                 for (int64_t i = begin; i < end; ++i) {
                   float *own = to + i * map_.channels * kTaps;
                   Each(i, [&](int64_t tap, int64_t cell) {
                     const float *from = features + cell * map_.channels;
                     for (int64_t c = 0; c < map_.channels; ++c) {
                       own[c * kTaps + tap] = cell < 0 ? 0.0f : from[c];
                     }
                   });
                 }
               });
  }

  // Adds the patches' gradients to those of the cells. Threads share the channels, so that sums
  // have one order.
  void Spread(const float *patches, float *to) const {
    InParallel(map_.channels, 64, [&](int64_t begin, int64_t end) {
      for (int64_t cell = 0; cell < map_.rows(); ++cell) {
        std::fill(to + cell * map_.channels + begin, to + cell * map_.channels + end, 0.0f);
      }
      for (int64_t i = 0; i < count(); ++i) {
        const float *own = patches + i * map_.channels * kTaps;
        Each(i, [&](int64_t tap, int64_t cell) {
          if (cell < 0) return;
          float *at = to + cell * map_.channels;
          for (int64_t c = begin; c < end; ++c) at[c] += own[c * kTaps + tap];
        });
      }
    });
  }

 private:
  // Calls at(tap, cell) for the taps of a sample; the cell is -1 outside of the map.
  template <typename At>
  void Each(int64_t sample, const At &at) const {
    const int64_t image = sample / samples_, place = index_[sample] / anchors_;
    const int64_t row = place / map_.width, column = place % map_.width;
    for (int64_t tap = 0; tap < kTaps; ++tap) {
      const int64_t y = row + tap / 3 - 1, x = column + tap % 3 - 1;
      const bool inside = y >= 0 && y < map_.height && x >= 0 && x < map_.width;
      at(tap, inside ? (image * map_.height + y) * map_.width + x : -1);
    }
  }

  Map map_;
  int64_t anchors_;
  const int32_t *index_;
  int64_t samples_;
};

FOR_EACH_PROCESSOR float Dot(const float *a, const float *b, int64_t count) {
  constexpr int64_t kLanes = 16;  // one sum would have to be taken number by number
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int64_t l = 0; l < kLanes; ++l) sums[l] += a[i + l] * b[i + l];
  }
  float total = 0.0f;
  for (; i < count; ++i) total += a[i] * b[i];
  for (const float sum : sums) total += sum;
  return total;
}

FOR_EACH_PROCESSOR void AddScaled(const float *from, float factor, int64_t count, float *to) {
  for (int64_t i = 0; i < count; ++i) to[i] += factor * from[i];
}

void AtAnchors(const Head &head, const Patches &patches, float *logits, float *deltas,
               float *hidden) {
  const int64_t channels = head.map.channels, count = patches.count();
  const Scratch rows(count * channels * kTaps);
  patches.Gather(head.features, rows.data());
  Linear(rows.data(), count, channels * kTaps, head.conv, head.conv_bias, channels, hidden);
  for (int64_t i = 0; i < count; ++i) {
    float *own = hidden + i * channels;
    for (int64_t c = 0; c < channels; ++c) own[c] = own[c] < 0.0f ? 0.0f : own[c];
    const int64_t anchor = patches.anchor(i);
    logits[i] = Dot(own, head.logits + anchor * channels, channels) + head.logits_bias[anchor];
    for (int64_t j = 0; j < kBox; ++j) {
      const int64_t place = kBox * anchor + j;
      deltas[kBox * i + j] =
          Dot(own, head.deltas + place * channels, channels) + head.deltas_bias[place];
    }
  }
}

struct HeadGradients {
  float *features, *conv, *conv_bias, *logits, *logits_bias, *deltas, *deltas_bias;
};

void AtAnchorsGradient(const Head &head, const Patches &patches, const float *hidden,
                       const float *logits_gradient, const float *deltas_gradient,
                       const HeadGradients &to) {
  const int64_t channels = head.map.channels, count = patches.count(), inputs = channels * kTaps;
  std::fill(to.logits, to.logits + head.anchors * channels, 0.0f);
  std::fill(to.logits_bias, to.logits_bias + head.anchors, 0.0f);
  std::fill(to.deltas, to.deltas + kBox * head.anchors * channels, 0.0f);
  std::fill(to.deltas_bias, to.deltas_bias + kBox * head.anchors, 0.0f);
  std::fill(to.conv_bias, to.conv_bias + channels, 0.0f);
  const Scratch of_hidden(count * channels), rows(count * inputs);
  for (int64_t i = 0; i < count; ++i) {
    const float *own = hidden + i * channels;
    float *gradient = of_hidden.at(i * channels);
    std::fill(gradient, gradient + channels, 0.0f);
    const int64_t anchor = patches.anchor(i);
    const float factor = logits_gradient[i];
    AddScaled(head.logits + anchor * channels, factor, channels, gradient);
    AddScaled(own, factor, channels, to.logits + anchor * channels);
    to.logits_bias[anchor] += factor;
    for (int64_t j = 0; j < kBox; ++j) {
      const int64_t place = kBox * anchor + j;
      const float more = deltas_gradient[kBox * i + j];
      AddScaled(head.deltas + place * channels, more, channels, gradient);
      AddScaled(own, more, channels, to.deltas + place * channels);
      to.deltas_bias[place] += more;
    }
    for (int64_t c = 0; c < channels; ++c) gradient[c] = own[c] > 0.0f ? gradient[c] : 0.0f;
    AddScaled(gradient, 1.0f, channels, to.conv_bias);
  }
  patches.Gather(head.features, rows.data());
  Product({of_hidden.data(), channels, true}, {rows.data(), inputs, false}, channels, inputs, count,
          0.0f, to.conv, inputs);
  Product({of_hidden.data(), channels, false}, {head.conv, inputs, false}, count, inputs, channels,
          0.0f, rows.data(), inputs);
  patches.Spread(rows.data(), to.features);
}

template <typename T>
T *At(void **params, int64_t place) {
  return static_cast<T *>(params[place]);
}

}  // namespace

// In: features (N, H, W, C); weight and bias of the convolution (C, C, 3, 3), of the logits (B, C,
// 1, 1), of the deltas (4B, C, 1, 1). Out: logits (N, A), deltas (N, A, 4).
extern "C" int RPNHead(int, void **params, int *, int64_t **shapes, const char **, void *, void *) {
  try {
    Dense(Head(params, shapes), At<float>(params, 7), At<float>(params, 8));
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

extern "C" Shapes RPNHeadInferShape(int *, int64_t **shapes, void *) {
  const bool known = shapes[0][1] >= 0 && shapes[0][2] >= 0;
  const int64_t anchors = known ? shapes[0][1] * shapes[0][2] * shapes[3][0] : -1;
  return {{shapes[0][0], anchors}, {shapes[0][0], anchors, kBox}};
}

// In: the same, then index (N, S) int32 of anchors of each image. Out: logits (M,), deltas (M, 4),
// and for the backward pass the cells after the convolution (M, C).
extern "C" int RPNAtAnchors(int, void **params, int *, int64_t **shapes, const char **, void *,
                            void *) {
  try {
    const Head head(params, shapes);
    AtAnchors(head, Patches(head, At<int32_t>(params, 7), shapes[7][1]), At<float>(params, 8),
              At<float>(params, 9), At<float>(params, 10));
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

extern "C" Shapes RPNAtAnchorsInferShape(int *, int64_t **shapes, void *) {
  const int64_t count = shapes[7][0] * shapes[7][1];
  return {{count}, {count, kBox}, {count, shapes[0][3]}};
}

// In: the same, then those cells and the gradients of logits and deltas. Out: the gradients of the
// first seven inputs.
extern "C" int RPNAtAnchorsGrad(int, void **params, int *, int64_t **shapes, const char **, void *,
                                void *) {
  try {
    const Head head(params, shapes);
    const HeadGradients to{At<float>(params, 11), At<float>(params, 12), At<float>(params, 13),
                           At<float>(params, 14), At<float>(params, 15), At<float>(params, 16),
                           At<float>(params, 17)};
    AtAnchorsGradient(head, Patches(head, At<int32_t>(params, 7), shapes[7][1]),
                      At<float>(params, 8), At<float>(params, 9), At<float>(params, 10), to);
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

extern "C" Shapes RPNAtAnchorsGradInferShape(int *, int64_t **shapes, void *) {
  const int axes[] = {4, 4, 1, 4, 1, 4, 1};
  Shapes found;
  for (int i = 0; i < 7; ++i) found.emplace_back(shapes[i], shapes[i] + axes[i]);
  return found;
}

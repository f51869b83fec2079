// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// `gdl.GradientDecoupledLayer` as one operator, on maps with channels last.

#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

#include "batch_norm.h"
#include "layers.h"
#include "parallel.h"
#include "processors.h"

namespace {

using Shapes = std::vector<std::vector<int64_t>>;

struct Layer {
  Layer(void **params, int64_t **shapes)
      : x(static_cast<const float *>(params[0])),
        weight(static_cast<const float *>(params[1])),
        bias(static_cast<const float *>(params[2])),
        lambda(static_cast<float>(static_cast<const double *>(params[3])[0])),
        rows(shapes[0][0] * shapes[0][1] * shapes[0][2]),
        channels(shapes[0][3]) {}

  const float *x, *weight, *bias;
  float lambda;
  int64_t rows, channels;
};

FOR_EACH_PROCESSOR void Affine(const float *rows, const float *weight, const float *bias,
                               int64_t count, int64_t channels, float *to) {
  for (int64_t i = 0; i < count; ++i, rows += channels, to += channels) {
    for (int64_t c = 0; c < channels; ++c) to[c] = rows[c] * weight[c] + bias[c];
  }
}

FOR_EACH_PROCESSOR void Decouple(const float *rows, const float *weight, float lambda,
                                 int64_t count, int64_t channels, float *to) {
  for (int64_t i = 0; i < count; ++i, rows += channels, to += channels) {
    for (int64_t c = 0; c < channels; ++c) to[c] = rows[c] * weight[c] * lambda;
  }
}

}  // namespace

// In: x (N, H, W, C), weight and bias (1, C, 1, 1), settings (1,) float64: lambda. Out: y as x.
extern "C" int Decoupled(int, void **params, int *, int64_t **shapes, const char **, void *,
                         void *) {
  const Layer layer(params, shapes);
  float *y = static_cast<float *>(params[4]);
  InParallel(layer.rows, RowGrain(layer.channels), [&](int64_t begin, int64_t end) {
    const int64_t at = begin * layer.channels;
    Affine(layer.x + at, layer.weight, layer.bias, end - begin, layer.channels, y + at);
  });
  return 0;
}

extern "C" Shapes DecoupledInferShape(int *, int64_t **shapes, void *) {
  return {{shapes[0], shapes[0] + 4}};
}

// In: the same, the gradient of y. Out: those of x, weight and bias.
extern "C" int DecoupledGrad(int, void **params, int *, int64_t **shapes, const char **, void *,
                             void *) {
  try {
    const Layer layer(params, shapes);
    const float *dy = static_cast<const float *>(params[4]);
    float *dx = static_cast<float *>(params[5]);
    InParallel(layer.rows, RowGrain(layer.channels), [&](int64_t begin, int64_t end) {
      const int64_t at = begin * layer.channels;
      Decouple(dy + at, layer.weight, layer.lambda, end - begin, layer.channels, dx + at);
    });
    const auto products = ProductSums(layer.x, nullptr, dy, layer.rows, layer.channels);
    const auto sums = RowSums(dy, layer.rows, layer.channels);
    std::copy(products.begin(), products.end(), static_cast<float *>(params[6]));
    std::copy(sums.begin(), sums.end(), static_cast<float *>(params[7]));
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

extern "C" Shapes DecoupledGradInferShape(int *, int64_t **shapes, void *) {
  return {{shapes[0], shapes[0] + 4}, {shapes[1], shapes[1] + 4}, {shapes[2], shapes[2] + 4}};
}

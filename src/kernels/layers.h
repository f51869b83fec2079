// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// What residual blocks with frozen norms are made of, on maps with channels last.
//
// Letters: R rows, one a cell; C channels in, D out.

#ifndef SRC_KERNELS_LAYERS_H_
#define SRC_KERNELS_LAYERS_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "products.h"

// Rows of so many channels that are worth a thread.
int64_t RowGrain(int64_t channels);

// One convolution's parameters, as five inputs in a row.
struct ConvNorm {
  ConvNorm(void **params, int64_t **shapes, int64_t first)
      : out(shapes[first][0]),
        in(shapes[first][1]),
        weight(static_cast<const float *>(params[first])),
        gamma(static_cast<const float *>(params[first + 1])),
        beta(static_cast<const float *>(params[first + 2])),
        mean(static_cast<const float *>(params[first + 3])),
        variance(static_cast<const float *>(params[first + 4])) {}

  int64_t out, in;
  const float *weight, *gamma, *beta, *mean, *variance;
};

constexpr int64_t kInputsEach = 5;

// A convolution with its frozen norm inside, as `resnet.FrozenBatchNorm` folds it.
struct Folded {
  Folded(const ConvNorm &layer, float eps);

  std::vector<float> scale, shift;
};

// Rows (D, C) each by its own scale.
void ScaleRows(const float *from, const float *scale, int64_t rows, int64_t columns, float *to);

// rows (R, C) + shift, at least 0; by one thread.
void ShiftAndClip(float *rows, const float *shift, int64_t count, int64_t channels);

// to = from where mask is positive, else 0.
void MaskedByAll(const float *from, const float *mask, int64_t count, float *to);

// rows (R, C) times weight (D, C) transposed, then shift and ReLU. `begin` writes what is added
// before that to `count` rows from `row` on; without it nothing is.
using Begin = std::function<void(int64_t row, int64_t count, float *to)>;
void PointwiseAndClip(const float *rows, const float *weight, int64_t count, int64_t in,
                      int64_t out, const float *shift, const Begin &begin, float *to);

// 3x3 convolution of every `stride`-th cell, padding 1, its weight (D, C, 3, 3) with its norm
// inside, then ReLU. Tiles would compute all cells.
void ConvolveStridedAndClip(const float *in, const Map &map, int64_t stride, const ConvNorm &layer,
                            const Folded &fold, float *to);

// The gradient (D, C) of a weight from that of its output (R, D) and its input (R, C); `scale`,
// if there is one, is that of the weight's rows.
void PointwiseWeightGradient(const float *out_gradient, const float *rows, int64_t count,
                             const ConvNorm &layer, const float *scale, float *gradient);

// The way back from a block's output to its first convolution, which gives `first`, the gradient
// of its output before the ReLU, and `last`, that of the block's.
struct Inner {
  const float *h1, *h2, *y;  // what the block's ReLUs gave
  Map map;                   // of h1
};
void BackToFirst(const Inner &inner, const ConvNorm &two, const ConvNorm &three, float eps,
                 const float *y_gradient, float *last, float *first, float *weight_gradient2,
                 float *weight_gradient3);

#endif  // SRC_KERNELS_LAYERS_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// Normalisation by a batch's own statistics, of rows (R, D), one a cell.

#ifndef SRC_KERNELS_BATCH_NORM_H_
#define SRC_KERNELS_BATCH_NORM_H_

#include <cstdint>
#include <vector>

#include "layers.h"

// Sums over rows by channel; of rows - mean (0 without one) times gradient. They do not depend on
// the number of threads.
std::vector<float> RowSums(const float *rows, int64_t count, int64_t channels);
std::vector<float> ProductSums(const float *rows, const float *mean, const float *gradient,
                               int64_t count, int64_t channels);

// The norm of a batch: mean and 1 / deviation of each channel of `rows`, and what makes of a row
// its normalised one.
class BatchNorm {
 public:
  // Measures.
  BatchNorm(const float *rows, int64_t count, const ConvNorm &layer, float eps);

  // Takes what was measured.
  BatchNorm(const float *stored, int64_t count, const ConvNorm &layer);

  // Writes mean and 1 / deviation, 2 * D numbers.
  void Store(float *to) const;

  // Mean and variance as they are gathered for inference.
  void Gather(const ConvNorm &layer, float momentum, float *new_mean, float *new_variance) const;

  // Rows normalised, then at least 0 if `clip`.
  void Apply(const float *rows, bool clip, float *to) const;

  // From the gradient of the output, (R, D), those of rows, gamma and beta; in place if wanted.
  void Gradient(const float *gradient, const float *rows, float *to, float *gamma_gradient,
                float *beta_gradient) const;

  int64_t channels() const { return channels_; }

 private:
  void Fold(const ConvNorm &layer);

  int64_t count_, channels_;
  std::vector<float> mean_, variance_, inverse_, scale_, shift_;
};

#endif  // SRC_KERNELS_BATCH_NORM_H_

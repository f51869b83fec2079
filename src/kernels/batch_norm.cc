// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.

#include "batch_norm.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "parallel.h"
#include "processors.h"

namespace {

// Rows whose sums are taken together, however many threads there are.
constexpr int64_t kBlockRows = 1024;

FOR_EACH_PROCESSOR void AddRows(const float *rows, int64_t count, int64_t channels, float *sums) {
  for (int64_t i = 0; i < count; ++i, rows += channels) {
    for (int64_t c = 0; c < channels; ++c) sums[c] += rows[c];
  }
}

FOR_EACH_PROCESSOR void AddSquares(const float *rows, const float *mean, int64_t count,
                                   int64_t channels, float *sums) {
  for (int64_t i = 0; i < count; ++i, rows += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const float distance = rows[c] - mean[c];
      sums[c] += distance * distance;
    }
  }
}

FOR_EACH_PROCESSOR void AddProducts(const float *rows, const float *gradient, const float *mean,
                                    int64_t count, int64_t channels, float *sums) {
  for (int64_t i = 0; i < count; ++i, rows += channels, gradient += channels) {
    for (int64_t c = 0; c < channels; ++c) sums[c] += (rows[c] - mean[c]) * gradient[c];
  }
}

// Sums over rows by channel; add(begin, count, sums) adds those of some rows.
template <typename Add>
std::vector<float> Total(int64_t rows, int64_t channels, const Add &add) {
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  const Scratch parts(blocks * channels);
  InParallel(blocks, std::max<int64_t>(1, 16384 / (kBlockRows * channels)),
             [&](int64_t begin, int64_t end) {
               for (int64_t i = begin; i < end; ++i) {
                 float *own = parts.at(i * channels);
                 std::fill(own, own + channels, 0.0f);
                 add(i * kBlockRows, std::min(kBlockRows, rows - i * kBlockRows), own);
               }
             });
  std::vector<double> sums(channels, 0.0);
  for (int64_t i = 0; i < blocks; ++i) {
    for (int64_t c = 0; c < channels; ++c) sums[c] += parts.data()[i * channels + c];
  }
  return {sums.begin(), sums.end()};
}

FOR_EACH_PROCESSOR void ScaleAndShift(const float *rows, const float *scale, const float *shift,
                                      int64_t count, int64_t channels, bool clip, float *to) {
  for (int64_t i = 0; i < count; ++i, rows += channels, to += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const float value = rows[c] * scale[c] + shift[c];
      to[c] = clip && value < 0.0f ? 0.0f : value;
    }
  }
}

FOR_EACH_PROCESSOR void NormGradientRows(const float *gradient, const float *rows,
                                         const float *scale, const float *slope, const float *shift,
                                         int64_t count, int64_t channels, float *to) {
  for (int64_t i = 0; i < count; ++i, rows += channels, gradient += channels, to += channels) {
    for (int64_t c = 0; c < channels; ++c) {
      to[c] = scale[c] * gradient[c] + (slope[c] * rows[c] + shift[c]);
    }
  }
}

}  // namespace

std::vector<float> RowSums(const float *rows, int64_t count, int64_t channels) {
  return Total(count, channels, [=](int64_t begin, int64_t size, float *sums) {
    AddRows(rows + begin * channels, size, channels, sums);
  });
}

std::vector<float> ProductSums(const float *rows, const float *mean, const float *gradient,
                               int64_t count, int64_t channels) {
  const std::vector<float> none(mean ? 0 : channels, 0.0f);
  const float *from = mean ? mean : none.data();
  return Total(count, channels, [=](int64_t begin, int64_t size, float *sums) {
    AddProducts(rows + begin * channels, gradient + begin * channels, from, size, channels, sums);
  });
}

BatchNorm::BatchNorm(const float *rows, int64_t count, const ConvNorm &layer, float eps)
    : count_(count), channels_(layer.out), mean_(layer.out), inverse_(layer.out) {
  mean_ = RowSums(rows, count_, channels_);
  for (float &value : mean_) value /= static_cast<float>(count_);
  variance_ = Total(count_, channels_, [&](int64_t begin, int64_t size, float *sums) {
    AddSquares(rows + begin * channels_, mean_.data(), size, channels_, sums);
  });
  for (int64_t c = 0; c < channels_; ++c) {
    variance_[c] /= static_cast<float>(count_);
    inverse_[c] = 1.0f / std::sqrt(variance_[c] + eps);
  }
  Fold(layer);
}

BatchNorm::BatchNorm(const float *stored, int64_t count, const ConvNorm &layer)
    : count_(count),
      channels_(layer.out),
      mean_(stored, stored + layer.out),
      inverse_(stored + layer.out, stored + 2 * layer.out) {
  Fold(layer);
}

void BatchNorm::Store(float *to) const {
  std::copy(mean_.begin(), mean_.end(), to);
  std::copy(inverse_.begin(), inverse_.end(), to + channels_);
}

void BatchNorm::Gather(const ConvNorm &layer, float momentum, float *new_mean,
                       float *new_variance) const {
  const float unbiased = count_ > 1 ? static_cast<float>(count_) / (count_ - 1) : 1.0f;
  for (int64_t c = 0; c < channels_; ++c) {
    new_mean[c] = (1.0f - momentum) * layer.mean[c] + momentum * mean_[c];
    new_variance[c] = (1.0f - momentum) * layer.variance[c] + momentum * (variance_[c] * unbiased);
  }
}

void BatchNorm::Apply(const float *rows, bool clip, float *to) const {
  InParallel(count_, RowGrain(channels_), [&](int64_t begin, int64_t end) {
    ScaleAndShift(rows + begin * channels_, scale_.data(), shift_.data(), end - begin, channels_,
                  clip, to + begin * channels_);
  });
}

void BatchNorm::Gradient(const float *gradient, const float *rows, float *to, float *gamma_gradient,
                         float *beta_gradient) const {
  const auto sums = RowSums(gradient, count_, channels_);
  const auto products = ProductSums(rows, mean_.data(), gradient, count_, channels_);
  std::vector<float> slope(channels_), rest(channels_);
  for (int64_t c = 0; c < channels_; ++c) {
    gamma_gradient[c] = products[c] * inverse_[c];
    beta_gradient[c] = sums[c];
    slope[c] = -scale_[c] * inverse_[c] * gamma_gradient[c] / static_cast<float>(count_);
    rest[c] = -scale_[c] * sums[c] / static_cast<float>(count_) - slope[c] * mean_[c];
  }
  InParallel(count_, RowGrain(channels_), [&](int64_t begin, int64_t end) {
    NormGradientRows(gradient + begin * channels_, rows + begin * channels_, scale_.data(),
                     slope.data(), rest.data(), end - begin, channels_, to + begin * channels_);
  });
}

void BatchNorm::Fold(const ConvNorm &layer) {
  scale_.resize(channels_);
  shift_.resize(channels_);
  for (int64_t c = 0; c < channels_; ++c) {
    scale_[c] = layer.gamma[c] * inverse_[c];
    shift_[c] = layer.beta[c] - mean_[c] * scale_[c];
  }
}

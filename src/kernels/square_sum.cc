// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// The sum of the squares of many tensors: whether all gradients are finite, in one number.

#include <cstdint>
#include <vector>

#include "processors.h"

namespace {

FOR_EACH_PROCESSOR double SquareSumOf(const float *values, int64_t count) {
  constexpr int64_t kLanes = 16, kBlock = 4096;
  double total = 0.0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t size = count - begin < kBlock ? count - begin : kBlock;
    float sums[kLanes] = {};
    int64_t i = 0;
    for (; i + kLanes <= size; i += kLanes) {
      for (int64_t l = 0; l < kLanes; ++l) {
        sums[l] += values[begin + i + l] * values[begin + i + l];
      }
    }
    for (; i < size; ++i) sums[0] += values[begin + i] * values[begin + i];
    for (const float sum : sums) total += sum;
  }
  return total;
}

}  // namespace

// In: tensors of float32. Out: (1,).
extern "C" int SquareSum(int count, void **params, int *axes, int64_t **shapes, const char **,
                         void *, void *) {
  double total = 0.0;
  for (int i = 0; i + 1 < count; ++i) {
    int64_t size = 1;
    for (int axis = 0; axis < axes[i]; ++axis) size *= shapes[i][axis];
    total += SquareSumOf(static_cast<const float *>(params[i]), size);
  }
  *static_cast<float *>(params[count - 1]) = static_cast<float>(total);
  return 0;
}

extern "C" std::vector<std::vector<int64_t>> SquareSumInferShape(int *, int64_t **, void *) {
  return {{1}};
}

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// Matrix products and 3x3 convolutions of maps with channels last.

#ifndef SRC_KERNELS_PRODUCTS_H_
#define SRC_KERNELS_PRODUCTS_H_

#include <cstdint>

// Whether products are those of oneDNN, which MindSpore brings along; without it they are plain
// loops, right and slow.
extern "C" int HasFastProducts();

// C (m, n) = A (m, k) B (k, n) + `beta` C, by one thread. Matrices lie row by row; one that is
// `transposed` lies column by column. The last number of each is the length of what lies together.
struct Matrix {
  const float *data;
  int64_t stride;
  bool transposed;
};
void ProductHere(const Matrix &a, const Matrix &b, int64_t m, int64_t n, int64_t k, float beta,
                 float *c, int64_t stride);

// The same by all threads.
void Product(const Matrix &a, const Matrix &b, int64_t m, int64_t n, int64_t k, float beta,
             float *c, int64_t stride);

// N maps of H x W cells, each of `channels` numbers.
struct Map {
  int64_t images, height, width, channels;

  int64_t rows() const { return images * height * width; }
  int64_t size() const { return rows() * channels; }
};

// What is left of one where every `stride`-th cell is kept.
inline Map Kept(const Map &map, int64_t stride) {
  return {map.images, (map.height + stride - 1) / stride, (map.width + stride - 1) / stride,
          map.channels};
}

// What is done to each number of a convolution's output.
struct Finish {
  const float *shift = nullptr;  // (D,) is added
  bool relu = false;             // then what is negative becomes 0
  const float *mask = nullptr;   // or: 0 where this, as large as the output, is not positive
};

// 3x3 convolution, padding 1, by Winograd's F(4x4, 3x3) (Lavin & Gray 2016, sec. 4.3), as
// src/defrcn/winograd.py has it. `weight` is (D, C, 3, 3), its row d multiplied by scale[d] if
// there is one.
void Convolve3x3(const float *in, const Map &map, const float *weight, const float *scale,
                 int64_t out_channels, const Finish &finish, float *out);

// Its gradients: of the input, from that of the output (N, H, W, D); and of the weight.
void Convolve3x3InputGradient(const float *out_gradient, const Map &map, const float *weight,
                              const float *scale, int64_t out_channels, const Finish &finish,
                              float *in_gradient);
void Convolve3x3WeightGradient(const float *in, const Map &map, const float *out_gradient,
                               const float *scale, int64_t out_channels, float *weight_gradient);

#endif  // SRC_KERNELS_PRODUCTS_H_

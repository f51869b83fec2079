// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.

#include "products.h"

#include <dlfcn.h>

#include <algorithm>
#include <vector>

#include "parallel.h"
#include "processors.h"

namespace {

// oneDNN's own product, rows first; 0 is success.
using SGemm = int (*)(char, char, int64_t, int64_t, int64_t, float, const float *, int64_t,
                      const float *, int64_t, float, float *, int64_t);

SGemm FindProduct() {
  // MindSpore has loaded it already; the name is that of all its versions since 2.0.
  for (const char *name : {"libdnnl.so.2", "libdnnl.so.3", "libdnnl.so"}) {
    void *library = dlopen(name, RTLD_NOW | RTLD_NOLOAD);
    if (library == nullptr) continue;
    if (void *found = dlsym(library, "dnnl_sgemm")) return reinterpret_cast<SGemm>(found);
  }
  return nullptr;
}

SGemm TheProduct() {
  static const SGemm product = FindProduct();
  return product;
}

void PlainProduct(const Matrix &a, const Matrix &b, int64_t m, int64_t n, int64_t k, float beta,
                  float *c, int64_t stride) {
  for (int64_t i = 0; i < m; ++i) {
    float *row = c + i * stride;
    for (int64_t j = 0; j < n; ++j) row[j] = beta == 0.0f ? 0.0f : beta * row[j];
    for (int64_t p = 0; p < k; ++p) {
      const float factor = a.transposed ? a.data[p * a.stride + i] : a.data[i * a.stride + p];
      const float *line = b.data + (b.transposed ? p : p * b.stride);
      const int64_t step = b.transposed ? b.stride : 1;
      for (int64_t j = 0; j < n; ++j) row[j] += factor * line[j * step];
    }
  }
}

}  // namespace

// Whether blocks are worth exchanging in this process.
extern "C" int HasFastProducts() { return TheProduct() != nullptr; }

namespace {

// Rows that are multiplied at a time. oneDNN adds up a row in an order that depends on how many
// rows there are, but for such numbers: so a row's product is the same whatever is beside it.
constexpr int64_t kMostRows = 384, kFewestRows = 24;

void AnyProduct(const Matrix &a, const Matrix &b, int64_t m, int64_t n, int64_t k, float beta,
                float *c, int64_t stride) {
  const SGemm product = TheProduct();
  if (product == nullptr ||
      product(a.transposed ? 'T' : 'N', b.transposed ? 'T' : 'N', m, n, k, 1.0f, a.data, a.stride,
              b.data, b.stride, beta, c, stride) != 0) {
    PlainProduct(a, b, m, n, k, beta, c, stride);
  }
}

// A few rows among others that are 0.
void FewRows(const float *a, int64_t a_stride, const Matrix &b, int64_t m, int64_t n, int64_t k,
             float beta, float *c, int64_t stride) {
  const Scratch in(kFewestRows * k), out(kFewestRows * n);
  std::fill(in.data(), in.at(kFewestRows * k), 0.0f);
  std::fill(out.data(), out.at(kFewestRows * n), 0.0f);
  for (int64_t i = 0; i < m; ++i) {
    std::copy(a + i * a_stride, a + i * a_stride + k, in.at(i * k));
    if (beta != 0.0f) std::copy(c + i * stride, c + i * stride + n, out.at(i * n));
  }
  AnyProduct({in.data(), k, false}, b, kFewestRows, n, k, beta, out.data(), n);
  for (int64_t i = 0; i < m; ++i) std::copy(out.at(i * n), out.at(i * n) + n, c + i * stride);
}

}  // namespace

void ProductHere(const Matrix &a, const Matrix &b, int64_t m, int64_t n, int64_t k, float beta,
                 float *c, int64_t stride) {
  if (m == 0 || n == 0) return;
  if (a.transposed) {
    AnyProduct(a, b, m, n, k, beta, c, stride);
    return;
  }
  int64_t begin = 0;
  while (m - begin >= kFewestRows) {
    const int64_t count = std::min(kMostRows, (m - begin) / kFewestRows * kFewestRows);
    AnyProduct({a.data + begin * a.stride, a.stride, false}, b, count, n, k, beta,
               c + begin * stride, stride);
    begin += count;
  }
  if (begin < m) {
    FewRows(a.data + begin * a.stride, a.stride, b, m - begin, n, k, beta, c + begin * stride,
            stride);
  }
}

void Product(const Matrix &a, const Matrix &b, int64_t m, int64_t n, int64_t k, float beta,
             float *c, int64_t stride) {
  constexpr int64_t kEnough = 1 << 17;  // multiplications that are worth a thread
  const int64_t longer = std::max(m, n);
  const int64_t fair = (longer + NumThreads() - 1) / NumThreads();
  const int64_t grain = (std::max(fair, kEnough / (k * std::min(m, n) + 1)) + 47) / 48 * 48;
  if (m >= n) {
    InParallel(m, grain, [&](int64_t begin, int64_t end) {
      const Matrix part{a.data + (a.transposed ? begin : begin * a.stride), a.stride, a.transposed};
      ProductHere(part, b, end - begin, n, k, beta, c + begin * stride, stride);
    });
  } else {
    InParallel(n, grain, [&](int64_t begin, int64_t end) {
      const Matrix part{b.data + (b.transposed ? begin * b.stride : begin), b.stride, b.transposed};
      ProductHere(a, part, m, end - begin, k, beta, c + begin, stride);
    });
  }
}

namespace {

constexpr int64_t kSide = 4, kTile = 6, kProducts = kTile * kTile, kTaps = 9;

// One-dimensional transforms of `L` numbers at a time, each from `step` to `step`.

template <int L>
WITHIN void InputLine(const float (*from)[L], int step, float (*to)[L]) {
  for (int l = 0; l < L; ++l) {
    const float d0 = from[0][l], d1 = from[step][l], d2 = from[2 * step][l];
    const float d3 = from[3 * step][l], d4 = from[4 * step][l], d5 = from[5 * step][l];
    const float even = d4 - 4.0f * d2, odd = d3 - 4.0f * d1;
    const float far = d4 - d2, near = 2.0f * (d3 - d1);
    to[0][l] = 4.0f * d0 - 5.0f * d2 + d4;
    to[1 * step][l] = even + odd;
    to[2 * step][l] = even - odd;
    to[3 * step][l] = far + near;
    to[4 * step][l] = far - near;
    to[5 * step][l] = 4.0f * d1 - 5.0f * d3 + d5;
  }
}

template <int L>
WITHIN void OutputLine(const float (*from)[L], int step, float (*to)[L], int to_step) {
  for (int l = 0; l < L; ++l) {
    const float sum1 = from[step][l] + from[2 * step][l];
    const float difference1 = from[step][l] - from[2 * step][l];
    const float sum2 = from[3 * step][l] + from[4 * step][l];
    const float difference2 = from[3 * step][l] - from[4 * step][l];
    to[0][l] = from[0][l] + sum1 + sum2;
    to[1 * to_step][l] = difference1 + 2.0f * difference2;
    to[2 * to_step][l] = sum1 + 4.0f * sum2;
    to[3 * to_step][l] = difference1 + 8.0f * difference2 + from[5 * step][l];
  }
}

// The transposed of OutputLine.
template <int L>
WITHIN void GradientLine(const float (*from)[L], int step, float (*to)[L], int to_step) {
  for (int l = 0; l < L; ++l) {
    const float y0 = from[0][l], y1 = from[step][l], y2 = from[2 * step][l], y3 = from[3 * step][l];
    const float near = y0 + y2, near_odd = y1 + y3;
    const float far = y0 + 4.0f * y2, far_odd = 2.0f * y1 + 8.0f * y3;
    to[0][l] = y0;
    to[1 * to_step][l] = near + near_odd;
    to[2 * to_step][l] = near - near_odd;
    to[3 * to_step][l] = far + far_odd;
    to[4 * to_step][l] = far - far_odd;
    to[5 * to_step][l] = y3;
  }
}

template <int L>
WITHIN void KernelLine(const float (*from)[L], int step, float (*to)[L], int to_step) {
  for (int l = 0; l < L; ++l) {
    const float g0 = from[0][l], g1 = from[step][l], g2 = from[2 * step][l];
    const float near = (g0 + g2) * (-1.0f / 6.0f), far = g0 * (1.0f / 24.0f) + g2 * (1.0f / 6.0f);
    to[0][l] = g0 * 0.25f;
    to[1 * to_step][l] = near - g1 * (1.0f / 6.0f);
    to[2 * to_step][l] = near + g1 * (1.0f / 6.0f);
    to[3 * to_step][l] = far + g1 * (1.0f / 12.0f);
    to[4 * to_step][l] = far - g1 * (1.0f / 12.0f);
    to[5 * to_step][l] = g2;
  }
}

// The transposed of KernelLine.
template <int L>
WITHIN void TapLine(const float (*from)[L], int step, float (*to)[L], int to_step) {
  for (int l = 0; l < L; ++l) {
    const float near = from[step][l] + from[2 * step][l];
    const float near_odd = from[2 * step][l] - from[step][l];
    const float far = from[3 * step][l] + from[4 * step][l];
    const float far_odd = from[3 * step][l] - from[4 * step][l];
    to[0][l] = from[0][l] * 0.25f - near * (1.0f / 6.0f) + far * (1.0f / 24.0f);
    to[1 * to_step][l] = near_odd * (1.0f / 6.0f) + far_odd * (1.0f / 12.0f);
    to[2 * to_step][l] = far * (1.0f / 6.0f) - near * (1.0f / 6.0f) + from[5 * step][l];
  }
}

template <int L>
WITHIN void Load(const float *from, float *to) {
  for (int l = 0; l < L; ++l) to[l] = from[l];
}

// `cells`: the tile's 36 cells, row by row. Product p of channel c goes to out[p * stride + c].
template <int L>
WITHIN void InputChannels(const float *const *cells, int64_t c, float *out, int64_t stride) {
  float cell[kProducts][L], half[kProducts][L];
  for (int i = 0; i < kProducts; ++i) Load<L>(cells[i] + c, cell[i]);
  for (int i = 0; i < kTile; ++i) InputLine<L>(cell + i, kTile, half + i);
  for (int i = 0; i < kTile; ++i) InputLine<L>(half + i * kTile, 1, cell + i * kTile);
  for (int i = 0; i < kProducts; ++i) Load<L>(cell[i], out + i * stride + c);
}

FOR_EACH_PROCESSOR void InputTile(const float *const *cells, int64_t channels, float *out,
                                  int64_t stride) {
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) InputChannels<16>(cells, c, out, stride);
  for (; c + 8 <= channels; c += 8) InputChannels<8>(cells, c, out, stride);
  for (; c < channels; ++c) InputChannels<1>(cells, c, out, stride);
}

// `cells`: the 16 cells of an output's gradient.
template <int L>
WITHIN void GradientChannels(const float *const *cells, int64_t c, float *out, int64_t stride) {
  float cell[kSide * kSide][L], half[kTile * kSide][L], product[kProducts][L];
  for (int i = 0; i < kSide * kSide; ++i) Load<L>(cells[i] + c, cell[i]);
  for (int i = 0; i < kSide; ++i) GradientLine<L>(cell + i, kSide, half + i, kSide);
  for (int i = 0; i < kTile; ++i) GradientLine<L>(half + i * kSide, 1, product + i * kTile, 1);
  for (int i = 0; i < kProducts; ++i) Load<L>(product[i], out + i * stride + c);
}

FOR_EACH_PROCESSOR void GradientTile(const float *const *cells, int64_t channels, float *out,
                                     int64_t stride) {
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) GradientChannels<16>(cells, c, out, stride);
  for (; c + 8 <= channels; c += 8) GradientChannels<8>(cells, c, out, stride);
  for (; c < channels; ++c) GradientChannels<1>(cells, c, out, stride);
}

// To the 16 cells of the output; those beyond the map are null.
template <int L>
WITHIN void OutputChannels(const float *products, int64_t stride, int64_t c, const Finish &finish,
                           const int64_t *offsets, float *out) {
  float product[kProducts][L], half[kSide * kTile][L], cell[kSide * kSide][L];
  for (int i = 0; i < kProducts; ++i) Load<L>(products + i * stride + c, product[i]);
  for (int i = 0; i < kTile; ++i) OutputLine<L>(product + i, kTile, half + i, kTile);
  for (int i = 0; i < kSide; ++i) OutputLine<L>(half + i * kTile, 1, cell + i * kSide, 1);
  for (int i = 0; i < kSide * kSide; ++i) {
    if (offsets[i] < 0) continue;
    float *to = out + offsets[i] + c;
    if (finish.shift != nullptr) {
      for (int l = 0; l < L; ++l) cell[i][l] += finish.shift[c + l];
    }
    if (finish.relu) {
      for (int l = 0; l < L; ++l) cell[i][l] = cell[i][l] < 0.0f ? 0.0f : cell[i][l];
    }
    if (finish.mask != nullptr) {
      const float *mask = finish.mask + offsets[i] + c;
      for (int l = 0; l < L; ++l) cell[i][l] = mask[l] > 0.0f ? cell[i][l] : 0.0f;
    }
    Load<L>(cell[i], to);
  }
}

FOR_EACH_PROCESSOR void OutputTile(const float *products, int64_t stride, int64_t channels,
                                   const Finish &finish, const int64_t *offsets, float *out) {
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) OutputChannels<16>(products, stride, c, finish, offsets, out);
  for (; c + 8 <= channels; c += 8) OutputChannels<8>(products, stride, c, finish, offsets, out);
  for (; c < channels; ++c) OutputChannels<1>(products, stride, c, finish, offsets, out);
}

// Weight row (C, 9) -> products[p * stride + c], taps in reverse order if `turned`.
template <int L>
WITHIN void KernelChannels(const float *weight, int64_t c, float scale, bool turned, float *out,
                           int64_t stride) {
  float tap[kTaps][L], half[kTile * 3][L], product[kProducts][L];
  for (int i = 0; i < kTaps; ++i) {
    const float *from = weight + c * kTaps + (turned ? kTaps - 1 - i : i);
    for (int l = 0; l < L; ++l) tap[i][l] = from[l * kTaps] * scale;
  }
  for (int i = 0; i < 3; ++i) KernelLine<L>(tap + i, 3, half + i, 3);
  for (int i = 0; i < kTile; ++i) KernelLine<L>(half + i * 3, 1, product + i * kTile, 1);
  for (int i = 0; i < kProducts; ++i) Load<L>(product[i], out + i * stride + c);
}

FOR_EACH_PROCESSOR void KernelRow(const float *weight, int64_t channels, float scale, bool turned,
                                  float *out, int64_t stride) {
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) KernelChannels<16>(weight, c, scale, turned, out, stride);
  for (; c < channels; ++c) KernelChannels<1>(weight, c, scale, turned, out, stride);
}

template <int L>
WITHIN void TapChannels(const float *products, int64_t stride, int64_t c, float scale, float *out) {
  float product[kProducts][L], half[3 * kTile][L], tap[kTaps][L];
  for (int i = 0; i < kProducts; ++i) Load<L>(products + i * stride + c, product[i]);
  for (int i = 0; i < kTile; ++i) TapLine<L>(product + i, kTile, half + i, kTile);
  for (int i = 0; i < 3; ++i) TapLine<L>(half + i * kTile, 1, tap + i * 3, 1);
  for (int i = 0; i < kTaps; ++i) {
    for (int l = 0; l < L; ++l) out[(c + l) * kTaps + i] = tap[i][l] * scale;
  }
}

FOR_EACH_PROCESSOR void TapRow(const float *products, int64_t stride, int64_t channels, float scale,
                               float *out) {
  int64_t c = 0;
  for (; c + 16 <= channels; c += 16) TapChannels<16>(products, stride, c, scale, out);
  for (; c < channels; ++c) TapChannels<1>(products, stride, c, scale, out);
}

// The tiles of a map: 4x4 cells each, and one around them.
struct Tiles {
  explicit Tiles(const Map &of)
      : map(of), rows((of.height + kSide - 1) / kSide), columns((of.width + kSide - 1) / kSide) {}

  int64_t count() const { return map.images * rows * columns; }

  // Calls at(i, offset) for the `side` x `side` cells from `border` before the tile on; the offset
  // is -1 outside of the map.
  template <typename At>
  void Cells(int64_t tile, int64_t channels, int64_t side, int64_t border, const At &at) const {
    const int64_t image = tile / (rows * columns), place = tile % (rows * columns);
    const int64_t top = place / columns * kSide - border, left = place % columns * kSide - border;
    for (int64_t y = 0; y < side; ++y) {
      for (int64_t x = 0; x < side; ++x) {
        const int64_t row = top + y, column = left + x;
        const bool inside = row >= 0 && row < map.height && column >= 0 && column < map.width;
        const int64_t cell = (image * map.height + row) * map.width + column;
        at(y * side + x, inside ? cell * channels : -1);
      }
    }
  }

  Map map;
  int64_t rows, columns;
};

// Tiles that are transformed, multiplied and transformed back at a time: a large cache holds them,
// and none of their products has a few rows left over.
int64_t TilesAtATime(int64_t channels, int64_t out_channels) {
  constexpr int64_t kFloats = 8 << 20;
  const int64_t fit = kFloats / (kProducts * (channels + out_channels));
  return std::max(3 * kFewestRows, std::min<int64_t>(fit, 1024) / kFewestRows * kFewestRows);
}

void TransformInput(const float *in, const Tiles &tiles, int64_t channels, int64_t first,
                    int64_t count, float *out) {
  const std::vector<float> nothing(channels, 0.0f);
  InParallel(count, std::max<int64_t>(1, 2048 / channels), [&](int64_t begin, int64_t end) {
    const float *cells[kProducts];
    for (int64_t t = begin; t < end; ++t) {
      tiles.Cells(first + t, channels, kTile, 1, [&](int64_t i, int64_t offset) {
        cells[i] = offset < 0 ? nothing.data() : in + offset;
      });
      InputTile(cells, channels, out + t * channels, count * channels);
    }
  });
}

void TransformWeight(const float *weight, const float *scale, int64_t out_channels,
                     int64_t in_channels, bool turned, float *out) {
  InParallel(out_channels, std::max<int64_t>(1, 2048 / in_channels),
             [&](int64_t begin, int64_t end) {
               for (int64_t d = begin; d < end; ++d) {
                 KernelRow(weight + d * in_channels * kTaps, in_channels,
                           scale == nullptr ? 1.0f : scale[d], turned, out + d * in_channels,
                           out_channels * in_channels);
               }
             });
}

// From maps of `from` channels to maps of `to`; `kernels`: 36 matrices.
void ConvolveTiles(const float *in, const Map &map, int64_t from, int64_t to, const float *kernels,
                   bool transposed, const Finish &finish, float *out) {
  const Tiles tiles(map);
  const int64_t most = std::min(TilesAtATime(from, to), tiles.count());
  const Scratch inputs(kProducts * most * from), outputs(kProducts * most * to);
  for (int64_t first = 0; first < tiles.count(); first += most) {
    const int64_t count = std::min(most, tiles.count() - first);
    TransformInput(in, tiles, from, first, count, inputs.data());
    InParallel(kProducts, std::max<int64_t>(1, (1 << 17) / (count * from * to + 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t p = begin; p < end; ++p) {
                   const Matrix a{inputs.at(p * count * from), from, false};
                   const Matrix b{kernels + p * from * to, transposed ? from : to, transposed};
                   ProductHere(a, b, count, to, from, 0.0f, outputs.at(p * count * to), to);
                 }
               });
    InParallel(count, std::max<int64_t>(1, 2048 / to), [&](int64_t begin, int64_t end) {
      int64_t offsets[kSide * kSide];
      for (int64_t t = begin; t < end; ++t) {
        tiles.Cells(first + t, to, kSide, 0,
                    [&](int64_t i, int64_t offset) { offsets[i] = offset; });
        OutputTile(outputs.at(t * to), count * to, to, finish, offsets, out);
      }
    });
  }
}

}  // namespace

void Convolve3x3(const float *in, const Map &map, const float *weight, const float *scale,
                 int64_t out_channels, const Finish &finish, float *out) {
  const Scratch kernels(kProducts * map.channels * out_channels);
  TransformWeight(weight, scale, out_channels, map.channels, false, kernels.data());
  ConvolveTiles(in, map, map.channels, out_channels, kernels.data(), true, finish, out);
}

void Convolve3x3InputGradient(const float *out_gradient, const Map &map, const float *weight,
                              const float *scale, int64_t out_channels, const Finish &finish,
                              float *in_gradient) {
  const Scratch kernels(kProducts * map.channels * out_channels);
  TransformWeight(weight, scale, out_channels, map.channels, true, kernels.data());
  ConvolveTiles(out_gradient, map, out_channels, map.channels, kernels.data(), false, finish,
                in_gradient);
}

void Convolve3x3WeightGradient(const float *in, const Map &map, const float *out_gradient,
                               const float *scale, int64_t out_channels, float *weight_gradient) {
  const Tiles tiles(map);
  const int64_t channels = map.channels;
  const int64_t most = std::min(TilesAtATime(channels, out_channels), tiles.count());
  const Scratch inputs(kProducts * most * channels), outputs(kProducts * most * out_channels);
  const Scratch kernels(kProducts * channels * out_channels);
  const std::vector<float> nothing(out_channels, 0.0f);
  for (int64_t first = 0; first < tiles.count(); first += most) {
    const int64_t count = std::min(most, tiles.count() - first);
    TransformInput(in, tiles, channels, first, count, inputs.data());
    InParallel(count, std::max<int64_t>(1, 2048 / out_channels), [&](int64_t begin, int64_t end) {
      const float *cells[kSide * kSide];
      for (int64_t t = begin; t < end; ++t) {
        tiles.Cells(first + t, out_channels, kSide, 0, [&](int64_t i, int64_t offset) {
          cells[i] = offset < 0 ? nothing.data() : out_gradient + offset;
        });
        GradientTile(cells, out_channels, outputs.at(t * out_channels), count * out_channels);
      }
    });
    InParallel(kProducts, std::max<int64_t>(1, (1 << 17) / (count * channels * out_channels + 1)),
               [&](int64_t begin, int64_t end) {
                 for (int64_t p = begin; p < end; ++p) {
                   const Matrix a{outputs.at(p * count * out_channels), out_channels, true};
                   const Matrix b{inputs.at(p * count * channels), channels, false};
                   ProductHere(a, b, out_channels, channels, count, first == 0 ? 0.0f : 1.0f,
                               kernels.at(p * out_channels * channels), channels);
                 }
               });
  }
  InParallel(out_channels, std::max<int64_t>(1, 2048 / channels), [&](int64_t begin, int64_t end) {
    for (int64_t d = begin; d < end; ++d) {
      TapRow(kernels.at(d * channels), out_channels * channels, channels,
             scale == nullptr ? 1.0f : scale[d], weight_gradient + d * channels * kTaps);
    }
  });
}

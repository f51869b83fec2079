// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// `resnet.Stem` as one operator: 7x7 convolution of stride 2, norm, ReLU, 3x3 max pooling of stride
// 2, from images (N, 3, H, W) to maps with channels last. One that is frozen keeps nothing between
// its lines; one that trains keeps what the convolution gave.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <new>
#include <vector>

#include "batch_norm.h"
#include "layers.h"
#include "parallel.h"
#include "processors.h"
#include "products.h"

namespace {

using Shapes = std::vector<std::vector<int64_t>>;

constexpr int64_t kSide = 7, kLinesAtATime = 8;
constexpr int64_t kNextInput = 1 + kInputsEach;
constexpr int64_t kChannelsAtATime = 16;

int64_t Half(int64_t size) { return size < 0 ? -1 : (size + 1) / 2; }

// The convolution, from the operators' first inputs.
struct Stem {
  Stem(void **params, int64_t **shapes)
      : layer(params, shapes, 1),
        images(static_cast<const float *>(params[0])),
        count(shapes[0][0]),
        planes(shapes[0][1]),
        height(shapes[0][2]),
        width(shapes[0][3]) {}

  int64_t taps() const { return planes * kSide * kSide; }
  int64_t parts() const { return (Half(height) + kLinesAtATime - 1) / kLinesAtATime; }
  Map map() const { return {count, Half(height), Half(width), layer.out}; }
  Map pooled() const { return {count, Half(Half(height)), Half(Half(width)), layer.out}; }

  // What line y of an image's convolution looks at: (W / 2, taps).
  void Patches(int64_t number, int64_t y, float *to) const {
    const float *image = images + number * planes * height * width;
    for (int64_t x = 0; x < Half(width); ++x) {
      for (int64_t plane = 0; plane < planes; ++plane) {
        for (int64_t i = 0; i < kSide; ++i, to += kSide) {
          const int64_t row = 2 * y + i - 3;
          if (row < 0 || row >= height) {
            std::fill(to, to + kSide, 0.0f);
            continue;
          }
          const float *line = image + (plane * height + row) * width;
          for (int64_t j = 0; j < kSide; ++j) {
            const int64_t column = 2 * x + j - 3;
            to[j] = column < 0 || column >= width ? 0.0f : line[column];
          }
        }
      }
    }
  }

  // Line y of an image's convolution: (W / 2, D). `patches`: room for what it looks at.
  void Line(int64_t number, int64_t y, const float *weight, float *patches, float *to) const {
    Patches(number, y, patches);
    ProductHere({patches, taps(), false}, {weight, taps(), true}, Half(width), layer.out, taps(),
                0.0f, to, layer.out);
  }

  ConvNorm layer;
  const float *images;
  int64_t count, planes, height, width;
};

// Does line(number, y) for all lines of all images' convolutions.
template <typename Work>
void AllLines(const Stem &stem, const Work &work) {
  const int64_t lines = Half(stem.height);
  InParallel(stem.count * stem.parts(), 1, [&](int64_t begin, int64_t end) {
    const Scratch patches(Half(stem.width) * stem.taps());
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = part % stem.parts() * kLinesAtATime;
      for (int64_t y = first; y < std::min(lines, first + kLinesAtATime); ++y)
        work(part / stem.parts(), y, patches.data());
    }
  });
}

FOR_EACH_PROCESSOR void KeepLarger(const float *from, int64_t count, float *to) {
  for (int64_t i = 0; i < count; ++i)
    to[i] = to[i] < from[i] || from[i] != from[i] ? from[i] : to[i];
}

// The rows of pooled maps that look at line y; the first and what follows the last.
int64_t FirstRow(int64_t y) { return y / 2; }
int64_t AfterRow(int64_t y, int64_t rows) { return std::min((y + 1) / 2 + 1, rows); }

// Has the cells of a pooled row know a line (W, D) of what is pooled.
void PoolLine(const float *line, int64_t columns, int64_t cells, int64_t channels, float *row) {
  for (int64_t x = 0; x < columns; ++x) {
    for (int64_t cell = FirstRow(x); cell < AfterRow(x, cells); ++cell)
      KeepLarger(line + x * channels, channels, row + cell * channels);
  }
}

// Maps of what is not negative, pooled.
void Pool(const float *maps, const Map &map, float *to) {
  const Map out = Kept(map, 2);
  InParallel(out.images * out.height, 4, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      float *row = to + i * out.width * out.channels;
      std::fill(row, row + out.width * out.channels, 0.0f);
      const int64_t middle = 2 * (i % out.height);
      const float *image = maps + i / out.height * map.height * map.width * map.channels;
      for (int64_t y = std::max<int64_t>(0, middle - 1); y < std::min(map.height, middle + 2);
           ++y) {
        PoolLine(image + y * map.width * map.channels, map.width, out.width, map.channels, row);
      }
    }
  });
}

// Gives the gradient of a pooled cell to the first of those that were the largest, and has none
// for those that the ReLU made 0. `left` is what nobody has taken yet.
FOR_EACH_PROCESSOR void GiveToEqual(const float *from, const float *largest, int64_t count,
                                    float *left, float *to) {
  for (int64_t c = 0; c < count; ++c) {
    const float taken = from[c] == largest[c] && largest[c] > 0.0f ? left[c] : 0.0f;
    to[c] += taken;
    left[c] -= taken;
  }
}

void PoolGradient(const float *maps, const Map &map, const float *pooled, const float *gradient,
                  float *to) {
  const Map out = Kept(map, 2);
  const int64_t channels = map.channels;
  const int64_t groups = (channels + kChannelsAtATime - 1) / kChannelsAtATime;
  InParallel(map.images * groups, 1, [&](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = part % groups * kChannelsAtATime;
      const int64_t size = std::min(kChannelsAtATime, channels - first);
      const int64_t image = part / groups * map.height * map.width * channels + first;
      for (int64_t i = 0; i < map.height * map.width; ++i)
        std::fill_n(to + image + i * channels, size, 0.0f);
      for (int64_t cell = 0; cell < out.height * out.width; ++cell) {
        const int64_t at = part / groups * out.height * out.width + cell;
        float left[kChannelsAtATime];
        std::copy_n(gradient + at * channels + first, size, left);
        const int64_t row = 2 * (cell / out.width), column = 2 * (cell % out.width);
        for (int64_t y = std::max<int64_t>(0, row - 1); y < std::min(map.height, row + 2); ++y) {
          for (int64_t x = std::max<int64_t>(0, column - 1); x < std::min(map.width, column + 2);
               ++x) {
            const int64_t place = image + (y * map.width + x) * channels;
            GiveToEqual(maps + place, pooled + at * channels + first, size, left, to + place);
          }
        }
      }
    }
  });
}

// The gradient of the weight from that of the convolution's output, (N, H / 2, W / 2, D); `scale`,
// if there is one, is that of the weight's rows. Parts are added in their order.
void WeightGradient(const Stem &stem, const float *gradient, const float *scale, float *to) {
  const int64_t size = stem.layer.out * stem.taps(), columns = Half(stem.width);
  const int64_t lines = Half(stem.height), all = stem.count * stem.parts();
  const Scratch sums(all * size);
  std::fill_n(sums.data(), all * size, 0.0f);
  AllLines(stem, [&](int64_t number, int64_t y, float *patches) {
    stem.Patches(number, y, patches);
    const float *line = gradient + (number * lines + y) * columns * stem.layer.out;
    ProductHere({line, stem.layer.out, true}, {patches, stem.taps(), false}, stem.layer.out,
                stem.taps(), columns, 1.0f,
                sums.at((number * stem.parts() + y / kLinesAtATime) * size), stem.taps());
  });
  for (int64_t i = 0; i < size; ++i) {
    double sum = 0.0;
    for (int64_t part = 0; part < all; ++part) sum += sums.data()[part * size + i];
    to[i] = static_cast<float>(sum) * (scale ? scale[i / stem.taps()] : 1.0f);
  }
}

const double *Settings(void **params) { return static_cast<const double *>(params[kNextInput]); }
float Epsilon(void **params) { return static_cast<float>(Settings(params)[0]); }
float *Given(void **params, int64_t place) {
  return static_cast<float *>(params[kNextInput + 1 + place]);
}

// Nothing is kept but the line at work.
void Frozen(void **params, int64_t **shapes) {
  const Stem stem(params, shapes);
  const Folded fold(stem.layer, Epsilon(params));
  const Map map = stem.map(), out = stem.pooled();
  const Scratch weight(map.channels * stem.taps());
  ScaleRows(stem.layer.weight, fold.scale.data(), map.channels, stem.taps(), weight.data());
  const int64_t parts = (out.height + kLinesAtATime - 1) / kLinesAtATime;
  const int64_t row_size = out.width * out.channels;
  InParallel(out.images * parts, 1, [&](int64_t begin, int64_t end) {
    const Scratch patches(map.width * stem.taps()), line(map.width * map.channels);
    for (int64_t part = begin; part < end; ++part) {
      const int64_t first = part % parts * kLinesAtATime;
      const int64_t last = std::min(out.height, first + kLinesAtATime);
      float *maps = Given(params, 0) + part / parts * out.height * row_size;
      // Nothing is below 0 after the ReLU.
      std::fill(maps + first * row_size, maps + last * row_size, 0.0f);
      for (int64_t y = std::max<int64_t>(0, 2 * first - 1); y < std::min(map.height, 2 * last);
           ++y) {
        stem.Line(part / parts, y, weight.data(), patches.data(), line.data());
        ShiftAndClip(line.data(), fold.shift.data(), map.width, map.channels);
        for (int64_t row = std::max(first, FirstRow(y)); row < AfterRow(y, last); ++row)
          PoolLine(line.data(), map.width, out.width, map.channels, maps + row * row_size);
      }
    }
  });
}

// Out: what is pooled, and the convolution's output after the ReLU.
void Trained(void **params, int64_t **shapes) {
  const Stem stem(params, shapes);
  const Folded fold(stem.layer, Epsilon(params));
  const Map map = stem.map();
  const Scratch weight(map.channels * stem.taps());
  ScaleRows(stem.layer.weight, fold.scale.data(), map.channels, stem.taps(), weight.data());
  float *maps = Given(params, 1);
  AllLines(stem, [&](int64_t number, int64_t y, float *patches) {
    float *line = maps + (number * map.height + y) * map.width * map.channels;
    stem.Line(number, y, weight.data(), patches, line);
    ShiftAndClip(line, fold.shift.data(), map.width, map.channels);
  });
  Pool(maps, map, Given(params, 0));
}

void TrainedGradient(void **params, int64_t **shapes) {
  const Stem stem(params, shapes);
  const Folded fold(stem.layer, Epsilon(params));
  const Scratch gradient(stem.map().size());
  PoolGradient(Given(params, 1), stem.map(), Given(params, 0), Given(params, 2), gradient.data());
  WeightGradient(stem, gradient.data(), fold.scale.data(), Given(params, 3));
}

// Out: what is pooled, the convolution's output, what was measured, running mean and variance.
void OfBatch(void **params, int64_t **shapes) {
  const Stem stem(params, shapes);
  const Map map = stem.map();
  float *rows = Given(params, 1);
  AllLines(stem, [&](int64_t number, int64_t y, float *patches) {
    stem.Line(number, y, stem.layer.weight, patches,
              rows + (number * map.height + y) * map.width * map.channels);
  });
  const BatchNorm norm(rows, map.rows(), stem.layer, Epsilon(params));
  norm.Store(Given(params, 2));
  norm.Gather(stem.layer, static_cast<float>(Settings(params)[1]), Given(params, 3),
              Given(params, 4));
  const Scratch maps(map.size());
  norm.Apply(rows, true, maps.data());
  Pool(maps.data(), map, Given(params, 0));
}

void OfBatchGradient(void **params, int64_t **shapes) {
  const Stem stem(params, shapes);
  const Map map = stem.map();
  const float *rows = Given(params, 1);
  const BatchNorm norm(Given(params, 2), map.rows(), stem.layer);
  const Scratch maps(map.size()), gradient(map.size());
  norm.Apply(rows, true, maps.data());
  PoolGradient(maps.data(), map, Given(params, 0), Given(params, 3), gradient.data());
  norm.Gradient(gradient.data(), rows, gradient.data(), Given(params, 5), Given(params, 6));
  WeightGradient(stem, gradient.data(), nullptr, Given(params, 4));
}

int Guarded(void (*run)(void **, int64_t **), void **params, int64_t **shapes) {
  try {
    run(params, shapes);
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

std::vector<int64_t> MapShape(int64_t **shapes, int64_t times) {
  int64_t height = shapes[0][2], width = shapes[0][3];
  for (int64_t i = 0; i < times; ++i) height = Half(height), width = Half(width);
  return {shapes[0][0], height, width, shapes[1][0]};
}

}  // namespace

// In: images (N, 3, H, W); weight (D, 3, 7, 7), gamma, beta, mean, variance; settings (2,) float64:
// eps, momentum. Out: y (N, H / 4, W / 4, D), rounded up.
extern "C" int FrozenStem(int, void **params, int *, int64_t **shapes, const char **, void *,
                          void *) {
  return Guarded(Frozen, params, shapes);
}

extern "C" Shapes FrozenStemInferShape(int *, int64_t **shapes, void *) {
  return {MapShape(shapes, 2)};
}

// In: the same. Out: y, and what the convolution, its frozen norm and ReLU give.
extern "C" int TrainedStem(int, void **params, int *, int64_t **shapes, const char **, void *,
                           void *) {
  return Guarded(Trained, params, shapes);
}

extern "C" Shapes TrainedStemInferShape(int *, int64_t **shapes, void *) {
  return {MapShape(shapes, 2), MapShape(shapes, 1)};
}

// In: the same, both outputs, the gradient of y. Out: that of the weight.
extern "C" int TrainedStemGrad(int, void **params, int *, int64_t **shapes, const char **, void *,
                               void *) {
  return Guarded(TrainedGradient, params, shapes);
}

extern "C" Shapes TrainedStemGradInferShape(int *, int64_t **shapes, void *) {
  return {{shapes[1], shapes[1] + 4}};
}

// With the norm of the batch. In: the same. Out: y; what the convolution gives; mean and 1 /
// deviation; the new running mean and variance.
extern "C" int BatchStem(int, void **params, int *, int64_t **shapes, const char **, void *,
                         void *) {
  return Guarded(OfBatch, params, shapes);
}

extern "C" Shapes BatchStemInferShape(int *, int64_t **shapes, void *) {
  const int64_t channels = shapes[1][0];
  return {MapShape(shapes, 2), MapShape(shapes, 1), {2 * channels}, {channels}, {channels}};
}

// In: the same, the first three outputs, the gradient of y. Out: those of weight, gamma, beta.
extern "C" int BatchStemGrad(int, void **params, int *, int64_t **shapes, const char **, void *,
                             void *) {
  return Guarded(OfBatchGradient, params, shapes);
}

extern "C" Shapes BatchStemGradInferShape(int *, int64_t **shapes, void *) {
  return {{shapes[1], shapes[1] + 4}, {shapes[1][0]}, {shapes[1][0]}};
}

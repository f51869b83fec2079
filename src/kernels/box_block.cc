// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// Pooling and the first block of res5, frozen norms, as one operator, forward and backward. Both
// of the block's 1x1 convolutions that read pooled boxes are linear, as the pooling is: they are
// taken on the map, which has fewer cells than all boxes together, and what they give is pooled.
//
// Letters: N images, R boxes an image, B bins an axis, H x W cells, C channels in, D out, M inside.

#include <algorithm>
#include <cstdint>
#include <new>
#include <vector>

#include "layers.h"
#include "parallel.h"
#include "products.h"
#include "roi_align.h"

namespace {

using Shapes = std::vector<std::vector<int64_t>>;

constexpr int64_t kLayers = 3;  // where the first one's parameters stand
constexpr int64_t kSettings = kLayers + 4 * kInputsEach, kKept = kSettings + 1;

// What both operators have among their inputs.
struct Inputs {
  Inputs(void **params, int64_t **shapes)
      : map{shapes[0][0], shapes[0][1], shapes[0][2], shapes[0][3]},
        features(static_cast<const float *>(params[0])),
        boxes{static_cast<const float *>(params[1]), shapes[1][1]},
        one(params, shapes, kLayers),
        two(params, shapes, kLayers + kInputsEach),
        three(params, shapes, kLayers + 2 * kInputsEach),
        side(params, shapes, kLayers + 3 * kInputsEach),
        settings(static_cast<const double *>(params[kSettings])),
        pooling(static_cast<const float *>(params[2]), settings + 2, shapes[kKept][0]),
        pooled{map.images * boxes.each, pooling.kept, pooling.kept, one.out},
        eps(static_cast<float>(settings[0])) {}

  bool wants_weights() const { return settings[1] != 0; }

  Map map;
  const float *features;
  Boxes boxes;
  ConvNorm one, two, three, side;
  const double *settings;
  Pooling pooling;
  Map pooled;  // inside the block
  float eps;
};

// A layer that is linear before its shift, on all cells of the map: (N * H * W, D).
void OnMap(const Inputs &block, const ConvNorm &layer, const Folded &fold, float *to) {
  const Scratch weight(layer.out * layer.in);
  ScaleRows(layer.weight, fold.scale.data(), layer.out, layer.in, weight.data());
  Product({block.features, layer.in, false}, {weight.data(), layer.in, true}, block.map.rows(),
          layer.out, layer.in, 0.0f, to, layer.out);
}

Map With(Map map, int64_t channels) {
  map.channels = channels;
  return map;
}

void Forward(void **params, int64_t **shapes) {
  const Inputs block(params, shapes);
  const ConvNorm &one = block.one, &two = block.two, &three = block.three, &side = block.side;
  float *y = static_cast<float *>(params[kKept + 1]);
  float *h1 = static_cast<float *>(params[kKept + 2]);
  float *h2 = static_cast<float *>(params[kKept + 3]);
  const int64_t rows = block.pooled.rows(), cells = block.map.rows();
  const Folded fold1(one, block.eps), fold2(two, block.eps), fold3(three, block.eps);
  const Folded fold(side, block.eps);
  const Scratch first(cells * one.out), last(cells * side.out), weight(three.out * three.in);
  OnMap(block, one, fold1, first.data());
  OnMap(block, side, fold, last.data());
  InParallel(rows, RowGrain(one.out), [&](int64_t begin, int64_t end) {
    float *own = h1 + begin * one.out;
    PoolBins(block.boxes, block.pooling, first.data(), With(block.map, one.out), begin, end - begin,
             own);
    ShiftAndClip(own, fold1.shift.data(), end - begin, one.out);
  });
  Finish finish;
  finish.shift = fold2.shift.data();
  finish.relu = true;
  Convolve3x3(h1, block.pooled, two.weight, fold2.scale.data(), two.out, finish, h2);
  std::vector<float> shift = fold3.shift;
  for (int64_t d = 0; d < side.out; ++d) shift[d] += fold.shift[d];
  ScaleRows(three.weight, fold3.scale.data(), three.out, three.in, weight.data());
  const Begin pool = [&](int64_t row, int64_t count, float *to) {
    PoolBins(block.boxes, block.pooling, last.data(), With(block.map, side.out), row, count, to);
  };
  PointwiseAndClip(h2, weight.data(), rows, three.in, three.out, shift.data(), pool, y);
}

// What a layer of the map gets of the gradient of what was pooled of it: its weight's gradient,
// and its share of the features', which is added to that with `beta` 1.
void BackOnMap(const Inputs &block, const ConvNorm &layer, const float *pooled_gradient, float beta,
               float *features_gradient, float *weight_gradient) {
  const int64_t cells = block.map.rows();
  const Folded fold(layer, block.eps);
  const Scratch spread(cells * layer.out), weight(layer.out * layer.in);
  SpreadBins(block.boxes, block.pooling, pooled_gradient, With(block.map, layer.out),
             spread.data());
  if (block.wants_weights()) {
    PointwiseWeightGradient(spread.data(), block.features, cells, layer, fold.scale.data(),
                            weight_gradient);
  }
  ScaleRows(layer.weight, fold.scale.data(), layer.out, layer.in, weight.data());
  Product({spread.data(), layer.out, false}, {weight.data(), layer.in, false}, cells, layer.in,
          layer.out, beta, features_gradient, layer.in);
}

void Backward(void **params, int64_t **shapes) {
  const Inputs block(params, shapes);
  const auto at = [params](int64_t i) { return static_cast<float *>(params[kKept + 1 + i]); };
  const float *h1 = at(0), *h2 = at(1), *y = at(2), *y_gradient = at(3);
  float *features_gradient = at(4), *weights[] = {at(5), at(6), at(7), at(8)};
  const int64_t rows = block.pooled.rows();
  const Scratch last(rows * block.three.out), first(rows * block.one.out);
  BackToFirst({h1, h2, y, block.pooled}, block.two, block.three, block.eps, y_gradient, last.data(),
              first.data(), block.wants_weights() ? weights[1] : nullptr, weights[2]);
  BackOnMap(block, block.side, last.data(), 0.0f, features_gradient, weights[3]);
  BackOnMap(block, block.one, first.data(), 1.0f, features_gradient, weights[0]);
}

int Guarded(void (*run)(void **, int64_t **), void **params, int64_t **shapes) {
  try {
    run(params, shapes);
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

}  // namespace

// In: features (N, H, W, C), boxes (N, R, 4), valid_size (2,); weight, gamma, beta, mean, variance
// of each convolution and of the shortcut; settings (5,) float64: eps, whether gradients of weights
// are wanted, and ROIAlign's three; and something of shape (B,). Out: y (N * R, B, B, D), and both
// inner maps (N * R, B, B, M) after their ReLU.
extern "C" int BoxBlock(int, void **params, int *, int64_t **shapes, const char **, void *,
                        void *) {
  return Guarded(Forward, params, shapes);
}

extern "C" Shapes BoxBlockInferShape(int *, int64_t **shapes, void *) {
  const int64_t boxes = shapes[1][1] < 0 ? -1 : shapes[0][0] * shapes[1][1];
  const auto of = [&](int64_t layer) {
    const int64_t bins = shapes[kKept][0], channels = shapes[kLayers + layer * kInputsEach][0];
    return std::vector<int64_t>{boxes, bins, bins, channels};
  };
  return {of(2), of(0), of(1)};
}

// In: the same, then both inner maps, y and its gradient. Out: gradients of the features and of
// the weights.
extern "C" int BoxBlockGrad(int, void **params, int *, int64_t **shapes, const char **, void *,
                            void *) {
  return Guarded(Backward, params, shapes);
}

extern "C" Shapes BoxBlockGradInferShape(int *, int64_t **shapes, void *) {
  Shapes found{{shapes[0], shapes[0] + 4}};
  for (int64_t i = 0; i < 4; ++i) {
    const int64_t *weight = shapes[kLayers + i * kInputsEach];
    found.push_back({weight, weight + 4});
  }
  return found;
}

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// `resnet.Bottleneck` as one operator, forward and backward, on maps with channels last: with
// frozen norms, and with those of the batch.
//
// Letters: N images, H x W cells, R = N * H * W rows after the stride, C channels in, D out, S the
// stride.

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

// The input at every `stride`-th cell; the input itself for 1.
class Strided {
 public:
  Strided(const float *in, const Map &map, int64_t stride)
      : map_(map),
        stride_(stride),
        out_(Kept(map, stride)),
        own_(stride == 1 ? 0 : out_.size()),
        data_(in) {
    if (stride == 1) return;
    Rows([&](int64_t row, int64_t cell) {
      const float *from = in + cell * map_.channels;
      std::copy(from, from + map_.channels, own_.at(row * map_.channels));
    });
    data_ = own_.data();
  }

  const Map &map() const { return out_; }
  const float *data() const { return data_; }

  // The gradient of the input from that of the rows.
  void Spread(const float *rows, float *to) const {
    InParallel(map_.size(), 65536,
               [&](int64_t begin, int64_t end) { std::fill(to + begin, to + end, 0.0f); });
    Rows([&](int64_t row, int64_t cell) {
      const float *from = rows + row * map_.channels;
      std::copy(from, from + map_.channels, to + cell * map_.channels);
    });
  }

 private:
  template <typename At>
  void Rows(const At &at) const {
    InParallel(
        out_.images * out_.height, std::max<int64_t>(1, RowGrain(out_.width * out_.channels)),
        [&](int64_t begin, int64_t end) {
          for (int64_t line = begin; line < end; ++line) {
            const int64_t image = line / out_.height, y = line % out_.height * stride_;
            for (int64_t x = 0; x < out_.width; ++x) {
              at(line * out_.width + x, (image * map_.height + y) * map_.width + x * stride_);
            }
          }
        });
  }

  Map map_;
  int64_t stride_;
  Map out_;
  Scratch own_;
  const float *data_;
};

// What all operators of this file have among their inputs.
struct Block {
  Block(void **params, int64_t **shapes, bool projected)
      : first(params, shapes, 1),
        second(params, shapes, 1 + kInputsEach),
        third(params, shapes, 1 + 2 * kInputsEach),
        shortcut(params, shapes, projected ? 1 + 3 * kInputsEach : 1),
        next(1 + (projected ? 4 : 3) * kInputsEach),
        in{shapes[0][0], shapes[0][1], shapes[0][2], shapes[0][3]},
        x(static_cast<const float *>(params[0])),
        settings(static_cast<const double *>(params[next])),
        stride(shapes[next + 1][0]) {}

  float eps() const { return static_cast<float>(settings[0]); }
  bool wants_weights() const { return settings[1] != 0; }
  bool wants_input() const { return settings[2] != 0; }
  float momentum() const { return static_cast<float>(settings[3]); }

  ConvNorm first, second, third, shortcut;
  int64_t next;  // settings and rows stand here
  Map in;
  const float *x;
  const double *settings;
  int64_t stride;
};

float *Out(void **params, int64_t place) { return static_cast<float *>(params[place]); }

// y, and both inner maps. The stride sits in the first convolution, or with `late` in the second:
// h1 has all cells then.
void Frozen(const Block &block, bool projected, bool late, float *y, float *h1, float *h2) {
  const ConvNorm &one = block.first, &two = block.second, &three = block.third;
  const Strided input(block.x, block.in, block.stride);
  const int64_t rows = input.map().rows();
  const Map map = late ? block.in : input.map();
  const Folded fold1(one, block.eps()), fold2(two, block.eps()), fold3(three, block.eps());
  const Scratch weight1(one.out * one.in), weight3(three.out * three.in);
  ScaleRows(one.weight, fold1.scale.data(), one.out, one.in, weight1.data());
  ScaleRows(three.weight, fold3.scale.data(), three.out, three.in, weight3.data());
  PointwiseAndClip(late ? block.x : input.data(), weight1.data(), map.rows(), one.in, one.out,
                   fold1.shift.data(), nullptr, h1);
  const Map inside{map.images, map.height, map.width, two.in};
  if (late && block.stride != 1) {
    ConvolveStridedAndClip(h1, inside, block.stride, two, fold2, h2);
  } else {
    Finish finish;
    finish.shift = fold2.shift.data();
    finish.relu = true;
    Convolve3x3(h1, inside, two.weight, fold2.scale.data(), two.out, finish, h2);
  }
  std::vector<float> shift = fold3.shift;
  const Scratch weight_s(projected ? block.shortcut.out * block.shortcut.in : 0);
  Begin begin = [&](int64_t row, int64_t count, float *to) {
    const float *from = input.data() + row * three.out;
    std::copy(from, from + count * three.out, to);
  };
  if (projected) {
    const ConvNorm &side = block.shortcut;
    const Folded fold(side, block.eps());
    ScaleRows(side.weight, fold.scale.data(), side.out, side.in, weight_s.data());
    for (int64_t d = 0; d < side.out; ++d) shift[d] += fold.shift[d];
    begin = [&](int64_t row, int64_t count, float *to) {
      ProductHere({input.data() + row * side.in, side.in, false}, {weight_s.data(), side.in, true},
                  count, side.out, side.in, 0.0f, to, side.out);
    };
  }
  PointwiseAndClip(h2, weight3.data(), rows, three.in, three.out, shift.data(), begin, y);
}

void FrozenForward(void **params, int64_t **shapes, bool projected) {
  const Block block(params, shapes, projected);
  Frozen(block, projected, false, Out(params, block.next + 2), Out(params, block.next + 3),
         Out(params, block.next + 4));
}

void EncoderForward(void **params, int64_t **shapes, bool projected) {
  const Block block(params, shapes, projected);
  const Scratch h1(block.in.rows() * block.first.out), h2(block.in.rows() * block.second.out);
  Frozen(block, projected, true, Out(params, block.next + 2), h1.data(), h2.data());
}

void FrozenBackward(void **params, int64_t **shapes, bool projected) {
  const Block block(params, shapes, projected);
  const ConvNorm &one = block.first, &two = block.second, &three = block.third;
  const float *h1 = Out(params, block.next + 2), *h2 = Out(params, block.next + 3);
  const float *y = Out(params, block.next + 4), *dy = Out(params, block.next + 5);
  float *dx = Out(params, block.next + 6), *dw1 = Out(params, block.next + 7);
  float *dw2 = Out(params, block.next + 8), *dw3 = Out(params, block.next + 9);
  const Strided input(block.x, block.in, block.stride);
  const Map map{input.map().images, input.map().height, input.map().width, two.in};
  const int64_t rows = map.rows();
  const bool weights = block.wants_weights(), wants_input = block.wants_input();
  const Folded fold1(one, block.eps());
  const Scratch g(rows * three.out), g1(rows * one.out);
  BackToFirst({h1, h2, y, map}, two, three, block.eps(), dy, g.data(), g1.data(),
              weights ? dw2 : nullptr, dw3);
  if (weights) {
    PointwiseWeightGradient(g1.data(), input.data(), rows, one, fold1.scale.data(), dw1);
  }
  const Scratch spread(block.stride == 1 || !wants_input ? 0 : rows * one.in);
  float *at_rows = block.stride == 1 ? dx : spread.data();
  if (projected) {
    const ConvNorm &side = block.shortcut;
    const Folded fold(side, block.eps());
    if (weights) {
      PointwiseWeightGradient(g.data(), input.data(), rows, side, fold.scale.data(),
                              Out(params, block.next + 10));
    }
    if (wants_input) {
      const Scratch folded(side.out * side.in);
      ScaleRows(side.weight, fold.scale.data(), side.out, side.in, folded.data());
      Product({g.data(), side.out, false}, {folded.data(), side.in, false}, rows, side.in, side.out,
              0.0f, at_rows, side.in);
    }
  } else if (wants_input) {
    InParallel(rows * one.in, 65536, [&](int64_t begin, int64_t end) {
      std::copy(g.data() + begin, g.data() + end, at_rows + begin);
    });
  }
  if (!wants_input) return;
  const Scratch weight(one.out * one.in);
  ScaleRows(one.weight, fold1.scale.data(), one.out, one.in, weight.data());
  Product({g1.data(), one.out, false}, {weight.data(), one.in, false}, rows, one.in, one.out, 1.0f,
          at_rows, one.in);
  if (block.stride != 1) input.Spread(at_rows, dx);
}

// ---- norms of the batch

FOR_EACH_PROCESSOR void AddAndClip(const float *rows, int64_t count, float *to) {
  for (int64_t i = 0; i < count; ++i) {
    const float value = to[i] + rows[i];
    to[i] = value < 0.0f ? 0.0f : value;
  }
}

void Pointwise(const float *rows, int64_t count, const ConvNorm &layer, float *to) {
  Product({rows, layer.in, false}, {layer.weight, layer.in, true}, count, layer.out, layer.in, 0.0f,
          to, layer.out);
}

void BatchForward(void **params, int64_t **shapes, bool projected) {
  const Block block(params, shapes, projected);
  const ConvNorm &one = block.first, &two = block.second, &three = block.third;
  int64_t place = block.next + 2;
  float *y = Out(params, place++), *c1 = Out(params, place++), *c2 = Out(params, place++);
  float *c3 = Out(params, place++), *cs = projected ? Out(params, place++) : nullptr;
  float *stored = Out(params, place++);
  const Strided input(block.x, block.in, block.stride);
  const Map map{input.map().images, input.map().height, input.map().width, two.in};
  const int64_t rows = map.rows();
  const auto keep = [&](const BatchNorm &norm, const ConvNorm &layer) {
    norm.Store(stored);
    stored += 2 * norm.channels();
    norm.Gather(layer, block.momentum(), Out(params, place), Out(params, place + 1));
    place += 2;
  };
  const Scratch inner(rows * std::max(one.out, two.out));
  Pointwise(input.data(), rows, one, c1);
  const BatchNorm norm1(c1, rows, one, block.eps());
  keep(norm1, one);
  norm1.Apply(c1, true, inner.data());
  Convolve3x3(inner.data(), map, two.weight, nullptr, two.out, {}, c2);
  const BatchNorm norm2(c2, rows, two, block.eps());
  keep(norm2, two);
  norm2.Apply(c2, true, inner.data());
  Pointwise(inner.data(), rows, three, c3);
  const BatchNorm norm3(c3, rows, three, block.eps());
  keep(norm3, three);
  norm3.Apply(c3, false, y);
  const Scratch side(projected ? rows * three.out : 0);
  const float *more = input.data();
  if (projected) {
    Pointwise(input.data(), rows, block.shortcut, cs);
    const BatchNorm norm(cs, rows, block.shortcut, block.eps());
    keep(norm, block.shortcut);
    norm.Apply(cs, false, side.data());
    more = side.data();
  }
  InParallel(rows * three.out, 16384,
             [&](int64_t begin, int64_t end) { AddAndClip(more + begin, end - begin, y + begin); });
}

void BatchBackward(void **params, int64_t **shapes, bool projected) {
  const Block block(params, shapes, projected);
  const ConvNorm &one = block.first, &two = block.second, &three = block.third;
  int64_t place = block.next + 2;
  const float *y = Out(params, place++), *c1 = Out(params, place++), *c2 = Out(params, place++);
  const float *c3 = Out(params, place++), *cs = projected ? Out(params, place++) : nullptr;
  const float *stored = Out(params, place++), *dy = Out(params, place++);
  float *dx = Out(params, place++);
  float *gradients[12];  // of weight, gamma and beta of each
  for (int i = 0; i < (projected ? 12 : 9); ++i) gradients[i] = Out(params, place++);
  const Strided input(block.x, block.in, block.stride);
  const Map map{input.map().images, input.map().height, input.map().width, two.in};
  const int64_t rows = map.rows();
  const BatchNorm norm1(stored, rows, one), norm2(stored + 2 * one.out, rows, two);
  const BatchNorm norm3(stored + 2 * (one.out + two.out), rows, three);
  const bool wants_input = block.wants_input();

  const Scratch g(rows * three.out), outer(rows * three.out);
  const Scratch h1(rows * one.out), h2(rows * two.out), g1(rows * one.out), g2(rows * two.out);
  MaskedByAll(dy, y, rows * three.out, g.data());
  norm1.Apply(c1, true, h1.data());
  norm2.Apply(c2, true, h2.data());
  norm3.Gradient(g.data(), c3, outer.data(), gradients[7], gradients[8]);
  PointwiseWeightGradient(outer.data(), h2.data(), rows, three, nullptr, gradients[6]);
  Product({outer.data(), three.out, false}, {three.weight, three.in, false}, rows, three.in,
          three.out, 0.0f, g2.data(), three.in);
  MaskedByAll(g2.data(), h2.data(), rows * two.out, g2.data());
  norm2.Gradient(g2.data(), c2, g2.data(), gradients[4], gradients[5]);
  Convolve3x3WeightGradient(h1.data(), map, g2.data(), nullptr, two.out, gradients[3]);
  Finish finish;
  finish.mask = h1.data();
  Convolve3x3InputGradient(g2.data(), map, two.weight, nullptr, two.out, finish, g1.data());
  norm1.Gradient(g1.data(), c1, g1.data(), gradients[1], gradients[2]);
  PointwiseWeightGradient(g1.data(), input.data(), rows, one, nullptr, gradients[0]);

  const Scratch spread(block.stride == 1 || !wants_input ? 0 : rows * one.in);
  float *at_rows = block.stride == 1 ? dx : spread.data();
  if (projected) {
    const ConvNorm &side = block.shortcut;
    const BatchNorm norm(stored + 2 * (one.out + two.out + three.out), rows, side);
    norm.Gradient(g.data(), cs, outer.data(), gradients[10], gradients[11]);
    PointwiseWeightGradient(outer.data(), input.data(), rows, side, nullptr, gradients[9]);
    if (wants_input) {
      Product({outer.data(), side.out, false}, {side.weight, side.in, false}, rows, side.in,
              side.out, 0.0f, at_rows, side.in);
    }
  } else if (wants_input) {
    InParallel(rows * one.in, 65536, [&](int64_t begin, int64_t end) {
      std::copy(g.data() + begin, g.data() + end, at_rows + begin);
    });
  }
  if (!wants_input) return;
  Product({g1.data(), one.out, false}, {one.weight, one.in, false}, rows, one.in, one.out, 1.0f,
          at_rows, one.in);
  if (block.stride != 1) input.Spread(at_rows, dx);
}

int Guarded(void (*run)(void **, int64_t **, bool), void **params, int64_t **shapes,
            bool projected) {
  try {
    run(params, shapes, projected);
    return 0;
  } catch (const std::bad_alloc &) {
    return 1;
  }
}

std::vector<int64_t> ShapeOf(const int64_t *shape, int64_t axes) { return {shape, shape + axes}; }

// Of the maps inside a block: `channels` for each cell that the stride leaves.
std::vector<int64_t> Inside(int64_t **shapes, bool projected, int64_t channels) {
  const int64_t stride = shapes[2 + (projected ? 4 : 3) * kInputsEach][0];
  // While a graph is compiled for all sizes, these are -1.
  const auto left = [stride](int64_t size) { return size < 0 ? -1 : (size + stride - 1) / stride; };
  return {shapes[0][0], left(shapes[0][1]), left(shapes[0][2]), channels};
}

Shapes ForwardShapes(int64_t **shapes, bool projected) {
  return {Inside(shapes, projected, shapes[1 + 2 * kInputsEach][0]),
          Inside(shapes, projected, shapes[1][0]),
          Inside(shapes, projected, shapes[1 + kInputsEach][0])};
}

Shapes BackwardShapes(int64_t **shapes, bool projected) {
  Shapes found{ShapeOf(shapes[0], 4)};
  for (int64_t i = 0; i < (projected ? 4 : 3); ++i) {
    found.push_back(ShapeOf(shapes[1 + i * kInputsEach], 4));
  }
  return found;
}

// y, what each convolution gives, and of their norms what was measured and what is gathered.
Shapes BatchForwardShapes(int64_t **shapes, bool projected) {
  const std::vector<int64_t> order =
      projected ? std::vector<int64_t>{0, 1, 2, 3} : std::vector<int64_t>{0, 1, 2};
  Shapes found{Inside(shapes, projected, shapes[1 + 2 * kInputsEach][0])};
  int64_t stored = 0;
  for (const int64_t i : order) {
    found.push_back(Inside(shapes, projected, shapes[1 + i * kInputsEach][0]));
    stored += 2 * shapes[1 + i * kInputsEach][0];
  }
  found.push_back({stored});
  for (const int64_t i : order) {
    for (int twice = 0; twice < 2; ++twice) found.push_back({shapes[1 + i * kInputsEach][0]});
  }
  return found;
}

Shapes BatchBackwardShapes(int64_t **shapes, bool projected) {
  Shapes found{ShapeOf(shapes[0], 4)};
  for (int64_t i = 0; i < (projected ? 4 : 3); ++i) {
    const int64_t *weight = shapes[1 + i * kInputsEach];
    found.push_back(ShapeOf(weight, 4));
    for (int twice = 0; twice < 2; ++twice) found.push_back({weight[0]});
  }
  return found;
}

}  // namespace

// In: x (N, H, W, C); weight, gamma, beta, mean, variance of each convolution, for a projected
// block also of the shortcut; settings (4,) float64: eps, whether gradients of weights and of x
// are wanted, momentum; and something whose shape (S,) says the stride. Out: y (N, H/S, W/S, D),
// and what the backward pass needs, both inner maps after their ReLU.
extern "C" int FrozenBlock(int, void **params, int *, int64_t **shapes, const char **, void *,
                           void *) {
  return Guarded(FrozenForward, params, shapes, false);
}

extern "C" int FrozenBlockProjected(int, void **params, int *, int64_t **shapes, const char **,
                                    void *, void *) {
  return Guarded(FrozenForward, params, shapes, true);
}

extern "C" Shapes FrozenBlockInferShape(int *, int64_t **shapes, void *) {
  return ForwardShapes(shapes, false);
}

extern "C" Shapes FrozenBlockProjectedInferShape(int *, int64_t **shapes, void *) {
  return ForwardShapes(shapes, true);
}

// In: the same, then both inner maps, y and its gradient. Out: gradients of x and of the weights.
extern "C" int FrozenBlockGrad(int, void **params, int *, int64_t **shapes, const char **, void *,
                               void *) {
  return Guarded(FrozenBackward, params, shapes, false);
}

extern "C" int FrozenBlockProjectedGrad(int, void **params, int *, int64_t **shapes, const char **,
                                        void *, void *) {
  return Guarded(FrozenBackward, params, shapes, true);
}

extern "C" Shapes FrozenBlockGradInferShape(int *, int64_t **shapes, void *) {
  return BackwardShapes(shapes, false);
}

extern "C" Shapes FrozenBlockProjectedGradInferShape(int *, int64_t **shapes, void *) {
  return BackwardShapes(shapes, true);
}

// A block with the stride in its 3x3 convolution, without gradient. In: as FrozenBlock. Out: y.
extern "C" int EncoderBlock(int, void **params, int *, int64_t **shapes, const char **, void *,
                            void *) {
  return Guarded(EncoderForward, params, shapes, false);
}

extern "C" int EncoderBlockProjected(int, void **params, int *, int64_t **shapes, const char **,
                                     void *, void *) {
  return Guarded(EncoderForward, params, shapes, true);
}

extern "C" Shapes EncoderBlockInferShape(int *, int64_t **shapes, void *) {
  return {ForwardShapes(shapes, false)[0]};
}

extern "C" Shapes EncoderBlockProjectedInferShape(int *, int64_t **shapes, void *) {
  return {ForwardShapes(shapes, true)[0]};
}

// With norms of the batch. In: as FrozenBlock. Out: y; the output of each convolution; mean and
// 1 / deviation of each norm, one after the other; and of each norm the new running mean and
// variance.
extern "C" int BatchBlock(int, void **params, int *, int64_t **shapes, const char **, void *,
                          void *) {
  return Guarded(BatchForward, params, shapes, false);
}

extern "C" int BatchBlockProjected(int, void **params, int *, int64_t **shapes, const char **,
                                   void *, void *) {
  return Guarded(BatchForward, params, shapes, true);
}

extern "C" Shapes BatchBlockInferShape(int *, int64_t **shapes, void *) {
  return BatchForwardShapes(shapes, false);
}

extern "C" Shapes BatchBlockProjectedInferShape(int *, int64_t **shapes, void *) {
  return BatchForwardShapes(shapes, true);
}

// In: the same, y, the outputs of the convolutions, what was measured, and the gradient of y.
// Out: gradients of x, and of weight, gamma and beta of each convolution.
extern "C" int BatchBlockGrad(int, void **params, int *, int64_t **shapes, const char **, void *,
                              void *) {
  return Guarded(BatchBackward, params, shapes, false);
}

extern "C" int BatchBlockProjectedGrad(int, void **params, int *, int64_t **shapes, const char **,
                                       void *, void *) {
  return Guarded(BatchBackward, params, shapes, true);
}

extern "C" Shapes BatchBlockGradInferShape(int *, int64_t **shapes, void *) {
  return BatchBackwardShapes(shapes, false);
}

extern "C" Shapes BatchBlockProjectedGradInferShape(int *, int64_t **shapes, void *) {
  return BatchBackwardShapes(shapes, true);
}

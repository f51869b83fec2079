// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// The losses of both stages, each as one operator that also gives their gradients, and what
// multiplies these by the gradient that comes from behind.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace {

using Shapes = std::vector<std::vector<int64_t>>;

template <typename T>
const T *In(void **params, int64_t place) {
  return static_cast<const T *>(params[place]);
}

float *Out(void **params, int64_t place) { return static_cast<float *>(params[place]); }

// What takes `box` to `target`, as `box_ops.encode_boxes`.
void Encode(const float *box, const float *target, const double *weights, float *deltas) {
  for (int axis = 0; axis < 2; ++axis) {
    const float size = box[axis + 2] - box[axis], wanted = target[axis + 2] - target[axis];
    const float centre = box[axis] + 0.5f * size, goal = target[axis] + 0.5f * wanted;
    deltas[axis] = (goal - centre) / size * static_cast<float>(weights[axis]);
    deltas[axis + 2] = std::log(wanted / size) * static_cast<float>(weights[axis + 2]);
  }
}

// Smooth L1 with the switch at beta, L1 for 0, of 4 numbers; its slopes times `factor`.
double SmoothL1(const float *deltas, const float *target, float beta, float factor, float *slopes) {
  double total = 0.0;
  for (int i = 0; i < 4; ++i) {
    const float difference = deltas[i] - target[i], size = std::fabs(difference);
    const float sign = difference > 0.0f ? 1.0f : (difference < 0.0f ? -1.0f : 0.0f);
    const bool near = size < beta;
    total += near ? 0.5f * size * size / beta : size - 0.5f * beta;
    slopes[i] = (near ? difference / beta : difference == difference ? sign : difference) * factor;
  }
  return total;
}

bool HasSize(const float *box) { return box[2] > box[0] && box[3] > box[1]; }

std::vector<int64_t> Like(const int64_t *shape, int64_t axes) { return {shape, shape + axes}; }

}  // namespace

// In: logits (R,), deltas (R, 4) at R = N * S sampled anchors; anchors (A, 4); index (N, S) int32
// into them; matched boxes (N, S, 4); positive, valid (N, S) bool; settings (7,) float64: weights
// of boxes, beta, weights of the losses. Out: class and box loss (1,), gradients of logits and
// deltas.
extern "C" int RPNLosses(int, void **params, int *, int64_t **shapes, const char **, void *,
                         void *) {
  const int64_t rows = shapes[0][0];
  const float *logits = In<float>(params, 0), *deltas = In<float>(params, 1);
  const float *anchors = In<float>(params, 2), *boxes = In<float>(params, 4);
  const int32_t *index = In<int32_t>(params, 3);
  const bool *positive = In<bool>(params, 5), *valid = In<bool>(params, 6);
  const double *settings = In<double>(params, 7);
  const float beta = static_cast<float>(settings[4]);
  const double share = 1.0 / std::max<int64_t>(rows, 1);
  const float by_class = static_cast<float>(settings[5] * share);
  const float by_box = static_cast<float>(settings[6] * share);
  float *d_logits = Out(params, 10), *d_deltas = Out(params, 11);
  double loss_class = 0.0, loss_box = 0.0;
  for (int64_t r = 0; r < rows; ++r, d_deltas += 4) {
    const float x = logits[r], label = positive[r] ? 1.0f : 0.0f, used = valid[r] ? 1.0f : 0.0f;
    const float small = std::exp(-std::fabs(x));  // at most 1: binary cross-entropy, no overflow
    loss_class += (std::log1p(small) + (x < 0.0f ? 0.0f : x) - x * label) * used;
    d_logits[r] = ((x < 0.0f ? small : 1.0f) / (1.0f + small) - label) * used * by_class;
    std::fill(d_deltas, d_deltas + 4, 0.0f);
    if (!positive[r]) continue;
    float target[4];
    Encode(anchors + 4 * index[r], boxes + 4 * r, settings, target);
    loss_box += SmoothL1(deltas + 4 * r, target, beta, by_box, d_deltas);
  }
  *Out(params, 8) = static_cast<float>(loss_class * share * settings[5]);
  *Out(params, 9) = static_cast<float>(loss_box * share * settings[6]);
  return 0;
}

extern "C" Shapes RPNLossesInferShape(int *, int64_t **shapes, void *) {
  return {{1}, {1}, Like(shapes[0], 1), Like(shapes[1], 2)};
}

// In: logits (R, K + 1), deltas (R, 4K); boxes (R, 4), classes (R,) int32, K for background,
// matched boxes (R, 4), valid (R,) bool, of one shape or another; settings (6,) float64: weights of
// boxes, beta, weight of the box loss. Out: class and box loss (1,), gradients of logits and
// deltas.
extern "C" int ROILosses(int, void **params, int *, int64_t **shapes, const char **, void *,
                         void *) {
  const int64_t rows = shapes[0][0], columns = shapes[0][1], background = columns - 1;
  const float *logits = In<float>(params, 0), *deltas = In<float>(params, 1);
  const float *boxes = In<float>(params, 2), *matched = In<float>(params, 4);
  const int32_t *classes = In<int32_t>(params, 3);
  const bool *valid = In<bool>(params, 5);
  const double *settings = In<double>(params, 6);
  const float beta = static_cast<float>(settings[4]);
  const int64_t samples = std::max<int64_t>(1, std::count(valid, valid + rows, true));
  const double share = 1.0 / samples;
  const float by_class = static_cast<float>(share);
  const float by_box = static_cast<float>(share * settings[5]);
  float *d_logits = Out(params, 9), *d_deltas = Out(params, 10);
  std::fill(d_logits, d_logits + rows * columns, 0.0f);
  std::fill(d_deltas, d_deltas + rows * background * 4, 0.0f);
  double loss_class = 0.0, loss_box = 0.0;
  for (int64_t r = 0; r < rows; ++r) {
    const int32_t label = classes[r];
    if (!valid[r] || label < 0 || label > background) continue;
    const float *row = logits + r * columns;
    float *slopes = d_logits + r * columns, top = row[0];
    for (int64_t c = 1; c < columns; ++c) top = row[c] > top ? row[c] : top;
    double total = 0.0;
    for (int64_t c = 0; c < columns; ++c) total += slopes[c] = std::exp(row[c] - top);
    loss_class += std::log(total) - (row[label] - top);
    const float scale = static_cast<float>(by_class / total);
    for (int64_t c = 0; c < columns; ++c) slopes[c] *= scale;
    slopes[label] -= by_class;
    if (label == background) continue;
    const float unit[4] = {0.0f, 0.0f, 1.0f, 1.0f};
    const bool sized = HasSize(boxes + 4 * r);
    float target[4];
    Encode(sized ? boxes + 4 * r : unit, sized ? matched + 4 * r : unit, settings, target);
    const int64_t own = 4 * (r * background + label);
    loss_box += SmoothL1(deltas + own, target, beta, by_box, d_deltas + own);
  }
  *Out(params, 7) = static_cast<float>(loss_class * share);
  *Out(params, 8) = static_cast<float>(loss_box * share * settings[5]);
  return 0;
}

extern "C" Shapes ROILossesInferShape(int *, int64_t **shapes, void *) {
  return {{1}, {1}, Like(shapes[0], 2), Like(shapes[1], 2)};
}

// In: two arrays of up to two axes, a factor (1,) for each. Out: their products.
extern "C" int ScaledPair(int, void **params, int *axes, int64_t **shapes, const char **, void *,
                          void *) {
  for (int i = 0; i < 2; ++i) {
    int64_t count = 1;
    for (int axis = 0; axis < axes[i]; ++axis) count *= shapes[i][axis];
    const float *from = In<float>(params, i), factor = *In<float>(params, 2 + i);
    for (int64_t j = 0; j < count; ++j) Out(params, 4 + i)[j] = from[j] * factor;
  }
  return 0;
}

extern "C" Shapes ScaledPairInferShape(int *axes, int64_t **shapes, void *) {
  return {Like(shapes[0], axes[0]), Like(shapes[1], axes[1])};
}

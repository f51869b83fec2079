// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// A step of an optimizer over all parameters as one operator. Weights and what the optimizer
// keeps of earlier steps are changed in place.

#include <cmath>
#include <cstdint>
#include <vector>

#include "parallel.h"
#include "processors.h"

namespace {

constexpr int64_t kGrain = 16384;

int64_t SizeOf(const int64_t *shape, int axes) {
  int64_t count = 1;
  for (int axis = 0; axis < axes; ++axis) count *= shape[axis];
  return count;
}

float *Floats(void *param) { return static_cast<float *>(param); }

FOR_EACH_PROCESSOR void SGDRange(float *weight, float *velocity, const float *gradient, float rate,
                                 float decay, float momentum, bool nesterov, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float slope = decay > 0.0f ? gradient[i] + decay * weight[i] : gradient[i];
    const float moved = momentum * velocity[i] + slope;
    velocity[i] = moved;
    weight[i] -= rate * (nesterov ? slope + momentum * moved : moved);
  }
}

struct Adam {
  float rate, step, beta1, beta2, eps;
};

FOR_EACH_PROCESSOR void AdamRange(float *weight, float *mean, float *square, const float *gradient,
                                  const Adam &how, float decay, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const float slope = gradient[i];
    const float kept = decay > 0.0f ? weight[i] * (1.0f - decay * how.rate) : weight[i];
    mean[i] += (slope - mean[i]) * (1.0f - how.beta1);
    square[i] += (slope * slope - square[i]) * (1.0f - how.beta2);
    weight[i] = kept - how.step * mean[i] / (std::sqrt(square[i]) + how.eps);
  }
}

}  // namespace

// In: rate (1,); settings float64: momentum, whether Nesterov's, the decay of each of n parameters;
// then n weights, n velocities, n gradients. Out: the rate.
extern "C" int SGDStep(int count, void **params, int *axes, int64_t **shapes, const char **, void *,
                       void *) {
  const int64_t n = (count - 3) / 3;
  const double *settings = static_cast<const double *>(params[1]);
  const float rate = *Floats(params[0]), momentum = static_cast<float>(settings[0]);
  for (int64_t p = 2; p < 2 + n; ++p) {
    const float decay = static_cast<float>(settings[p]);
    float *weight = Floats(params[p]), *velocity = Floats(params[p + n]);
    const float *gradient = Floats(params[p + 2 * n]);
    InParallel(SizeOf(shapes[p], axes[p]), kGrain, [&](int64_t begin, int64_t end) {
      SGDRange(weight + begin, velocity + begin, gradient + begin, rate, decay, momentum,
               settings[1] != 0, end - begin);
    });
  }
  *Floats(params[count - 1]) = rate;
  return 0;
}

extern "C" std::vector<std::vector<int64_t>> SGDStepInferShape(int *, int64_t **, void *) {
  return {{1}};
}

// In: rate (1,); settings float64: both betas, eps, the decay of each of n parameters; the number
// of steps so far (1,), which grows by one; then n weights, n means, n means of squares, n
// gradients. Out: the rate.
extern "C" int AdamWStep(int count, void **params, int *axes, int64_t **shapes, const char **,
                         void *, void *) {
  const int64_t n = (count - 4) / 4;
  const double *settings = static_cast<const double *>(params[1]);
  const float rate = *Floats(params[0]);
  float *steps = Floats(params[2]);
  *steps += 1.0f;
  // Both means start at zero; these factors undo the bias towards it (Adam, sec. 3).
  const double mean_share = 1.0 - std::pow(settings[0], *steps);
  const double root_share = std::sqrt(1.0 - std::pow(settings[1], *steps));
  const Adam how{rate, static_cast<float>(rate * root_share / mean_share),
                 static_cast<float>(settings[0]), static_cast<float>(settings[1]),
                 static_cast<float>(settings[2] * root_share)};
  for (int64_t p = 3; p < 3 + n; ++p) {
    const float decay = static_cast<float>(settings[p]);
    float *weight = Floats(params[p]), *mean = Floats(params[p + n]);
    float *square = Floats(params[p + 2 * n]);
    const float *gradient = Floats(params[p + 3 * n]);
    InParallel(SizeOf(shapes[p], axes[p]), kGrain, [&](int64_t begin, int64_t end) {
      AdamRange(weight + begin, mean + begin, square + begin, gradient + begin, how, decay,
                end - begin);
    });
  }
  *Floats(params[count - 1]) = rate;
  return 0;
}

extern "C" std::vector<std::vector<int64_t>> AdamWStepInferShape(int *, int64_t **, void *) {
  return {{1}};
}

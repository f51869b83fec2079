// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "calibration.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "error.h"

namespace defrcn {
namespace {

// Sums in double, in parts that the compiler may compute side by side.
double Dot(const float *first, const float *second, std::size_t count) {
  constexpr std::size_t kLanes = 8;
  std::array<double, kLanes> sums = {};
  std::size_t place = 0;
  for (; place + kLanes <= count; place += kLanes) {
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      sums[lane] += static_cast<double>(first[place + lane]) * second[place + lane];
    }
  }
  for (; place < count; ++place) {
    sums[0] += static_cast<double>(first[place]) * second[place];
  }
  double total = 0.0;
  for (const double sum : sums) {
    total += sum;
  }
  return total;
}

float Cosine(const float *first, const float *second, std::size_t count) {
  const double norms = std::sqrt(Dot(first, first, count)) * std::sqrt(Dot(second, second, count));
  return static_cast<float>(Dot(first, second, count) / (norms > 0.0 ? norms : 1.0));
}

}  // namespace

std::vector<float> AxisWeights(float start, float end, int length) {
  std::vector<float> weights(static_cast<std::size_t>(length));
  const float extent = end - start;
  const float count = std::ceil(extent);
  const float divisor = std::max(count, 1.0F);
  const float step = extent / divisor;
  const float share = 1.0F / divisor;
  struct Sample {
    std::size_t low;
    double part;  // of the cell after `low`
  };
  std::vector<Sample> samples;
  for (float order = 0.0F; order < count; ++order) {
    const float point = start + (order + 0.5F) * step;
    if (point >= -1.0F && point <= static_cast<float>(length)) {
      const float inside = std::clamp(point, 0.0F, static_cast<float>(length - 1));
      const auto low = static_cast<std::size_t>(inside);
      samples.push_back({low, static_cast<double>(inside) - static_cast<double>(low)});
    }
  }
  // Lower cells of all samples, then upper ones: numpy's order of additions, in its precision.
  const auto add = [&weights, share](std::size_t cell, double part) {
    weights[cell] = static_cast<float>(weights[cell] + static_cast<double>(share) * part);
  };
  for (const Sample &sample : samples) {
    add(sample.low, 1.0 - sample.part);
  }
  for (const Sample &sample : samples) {
    add(std::min(sample.low + 1, weights.size() - 1), sample.part);
  }
  return weights;
}

std::vector<float> PoolBox(const FeatureMap &map, std::size_t channels, int stride,
                           const Box &box) {
  Box edges = box;
  for (float &edge : edges) {
    edge = edge / static_cast<float>(stride) - 0.5F;
  }
  const std::vector<float> by_row = AxisWeights(edges[1], edges[3], map.rows);
  const std::vector<float> by_column = AxisWeights(edges[0], edges[2], map.columns);
  std::vector<double> sums(channels);
  for (std::size_t row = 0; row < by_row.size(); ++row) {
    for (std::size_t column = 0; column < by_column.size(); ++column) {
      const float weight = by_row[row] * by_column[column];
      if (weight == 0.0F) {
        continue;
      }
      const float *cell =
          map.data + (row * static_cast<std::size_t>(map.row_cells) + column) * channels;
      for (std::size_t channel = 0; channel < channels; ++channel) {
        sums[channel] += static_cast<double>(weight) * cell[channel];
      }
    }
  }
  return {sums.begin(), sums.end()};
}

std::vector<std::size_t> CalibratedPlaces(const CalibrationParts &parts,
                                          const std::vector<Detection> &detections) {
  std::vector<std::size_t> places;
  for (std::size_t place = 0; place < detections.size(); ++place) {
    const Detection &one = detections[place];
    if (one.score > parts.lower && one.score <= parts.upper && parts.calibrated[one.label]) {
      places.push_back(place);
    }
  }
  return places;
}

void Calibrate(const CalibrationParts &parts, const FeatureMap &map,
               const std::vector<std::size_t> &places, std::vector<Detection> *detections) {
  std::vector<float> vector(parts.dimensions);
  for (const std::size_t place : places) {
    Detection &one = (*detections)[place];
    const std::vector<float> pooled = PoolBox(map, parts.channels, parts.stride, one.box);
    for (std::size_t row = 0; row < parts.dimensions; ++row) {
      const double product =
          Dot(parts.weight.data() + row * parts.channels, pooled.data(), parts.channels);
      vector[row] = static_cast<float>(product) + parts.bias[row];
    }
    const float cosine = Cosine(
        vector.data(), parts.prototypes.data() + one.label * parts.dimensions, parts.dimensions);
    if (!std::isfinite(cosine)) {
      // As a score it would be below any threshold: the detection would vanish without a word.
      throw InputError(
          "the calibration block's encoder gives NaN or infinity: write the bundle again, with "
          "another test.pcb.encoder or pcb_modelpath");
    }
    one.score = one.score * parts.alpha + cosine * (1.0F - parts.alpha);
  }
}

}  // namespace defrcn

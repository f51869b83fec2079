// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "detections.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace defrcn {
namespace {

bool AllFinite(const float *values, std::size_t count) {
  return std::all_of(values, values + count, [](float value) { return std::isfinite(value); });
}

float Area(const Box &box) { return (box[2] - box[0]) * (box[3] - box[1]); }

// The quotient is rounded to float32 and compared in double, as the official code does.
bool Suppresses(const Box &kept, const Box &other, double threshold) {
  const float width = std::max(std::min(kept[2], other[2]) - std::max(kept[0], other[0]), 0.0F);
  const float height = std::max(std::min(kept[3], other[3]) - std::max(kept[1], other[1]), 0.0F);
  const float overlap = width * height;
  const float all = Area(kept) + Area(other) - overlap;
  return static_cast<double>(overlap / all) > threshold;
}

void SortByScore(std::vector<Detection> *detections) {
  std::stable_sort(
      detections->begin(), detections->end(),
      [](const Detection &first, const Detection &second) { return first.score > second.score; });
}

}  // namespace

std::vector<Detection> FinalDetections(const DetectorOutputs &outputs,
                                       const DetectionRules &rules) {
  const auto threshold = static_cast<float>(rules.score_threshold);
  std::vector<Detection> found;
  for (std::size_t row = 0; row < outputs.proposals; ++row) {
    const float *boxes = outputs.boxes + row * outputs.classes * 4;
    const float *scores = outputs.scores + row * (outputs.classes + 1);
    if (outputs.valid[row] == 0 || !AllFinite(boxes, outputs.classes * 4) ||
        !AllFinite(scores, outputs.classes + 1)) {
      continue;
    }
    for (std::size_t label = 0; label < outputs.classes; ++label) {
      if (scores[label] > threshold) {
        const float *box = boxes + label * 4;
        found.push_back({{box[0], box[1], box[2], box[3]}, scores[label], label});
      }
    }
  }
  // Whether a box goes is decided by better ones of its class alone, so all classes go at once.
  SortByScore(&found);
  std::vector<std::vector<Box>> kept(outputs.classes);
  std::vector<Detection> result;
  for (const Detection &one : found) {
    auto &rivals = kept[one.label];
    if (std::any_of(rivals.begin(), rivals.end(), [&](const Box &rival) {
          return Suppresses(rival, one.box, rules.nms_threshold);
        })) {
      continue;
    }
    rivals.push_back(one.box);
    result.push_back(one);
    if (result.size() == rules.most) {
      break;
    }
  }
  return result;
}

std::vector<Detection> ToImageFrame(const std::vector<Detection> &detections, Size model,
                                    Size image) {
  const auto down =
      static_cast<float>(static_cast<double>(image.height) / static_cast<double>(model.height));
  const auto across =
      static_cast<float>(static_cast<double>(image.width) / static_cast<double>(model.width));
  const Box scale = {across, down, across, down};
  const auto height = static_cast<float>(image.height), width = static_cast<float>(image.width);
  const Box limit = {width, height, width, height};
  std::vector<Detection> result;
  for (Detection one : detections) {
    for (std::size_t side = 0; side < 4; ++side) {
      one.box[side] = std::clamp(one.box[side] * scale[side], 0.0F, limit[side]);
    }
    if (one.box[2] > one.box[0] && one.box[3] > one.box[1]) {
      result.push_back(one);
    }
  }
  return result;
}

std::vector<Detection> Shown(std::vector<Detection> detections, double threshold) {
  const auto lowest = static_cast<float>(threshold);
  detections.erase(
      std::remove_if(detections.begin(), detections.end(),
                     [lowest](const Detection &one) { return !(one.score >= lowest); }),
      detections.end());
  SortByScore(&detections);
  return detections;
}

double LowestScore(double own, double shown, bool calibrated) {
  const float below = std::nextafter(static_cast<float>(shown), -1.0F);
  return calibrated ? own : std::max(own, static_cast<double>(below));
}

}  // namespace defrcn

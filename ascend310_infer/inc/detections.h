// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// From the detector's outputs to detections, as src/defrcn/rcnn.py does it. Boxes are x1, y1, x2,
// y2 in continuous pixels, float32; arithmetic is float32 in the same order, so that the same boxes
// are kept.
#ifndef DEFRCN_DETECTIONS_H_
#define DEFRCN_DETECTIONS_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "picture.h"

namespace defrcn {

using Box = std::array<float, 4>;

struct Detection {
  Box box = {};
  float score = 0.0F;
  std::size_t label = 0;  // class index
};

// Of one picture: boxes (proposals, classes, 4), scores (proposals, classes + 1) with the
// background last, valid (proposals).
struct DetectorOutputs {
  std::size_t proposals = 0;
  std::size_t classes = 0;
  const float *boxes = nullptr;
  const float *scores = nullptr;
  const std::int32_t *valid = nullptr;
};

struct DetectionRules {
  double score_threshold = 0.05;  // a score must be above it
  double nms_threshold = 0.5;     // an IoU above it suppresses, within a class
  std::size_t most = 100;
};

// By falling score; equal ones in the order of the outputs. Proposals with a number that is not
// finite are left out.
std::vector<Detection> FinalDetections(const DetectorOutputs &outputs, const DetectionRules &rules);

// Brings boxes of the model frame to the picture and clips them; those that become empty go.
std::vector<Detection> ToImageFrame(const std::vector<Detection> &detections, Size model,
                                    Size image);

// Those with a score of at least `threshold`, by falling score; equal ones keep their order.
std::vector<Detection> Shown(std::vector<Detection> detections, double threshold);

// What the detector's score must be above: the bundle's own threshold, or just below `shown` if
// that is more and no score changes afterwards.
double LowestScore(double own, double shown, bool calibrated);

}  // namespace defrcn

#endif  // DEFRCN_DETECTIONS_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// The prototypical calibration block, as src/defrcn/pcb.py computes it: a score becomes a mix of
// itself and the cosine between the detection's own vector and its class's prototype.
#ifndef DEFRCN_CALIBRATION_H_
#define DEFRCN_CALIBRATION_H_

#include <cstddef>
#include <vector>

#include "detections.h"

namespace defrcn {

// What the block is made of; arrays in C order.
struct CalibrationParts {
  std::size_t channels = 0;       // C, of the encoder's map
  std::size_t dimensions = 0;     // D, of a vector
  int stride = 32;                // pixels a cell
  std::vector<float> weight;      // (D, C)
  std::vector<float> bias;        // (D,)
  std::vector<float> prototypes;  // (K, D)
  std::vector<bool> calibrated;   // K: whose scores change
  float alpha = 0.5F;             // share of the score
  float lower = 0.05F;            // scores up to this stay,
  float upper = 1.0F;             // and those above this
};

// The encoder's map of one picture, (rows, columns, channels); rows of cells may be further apart
// than `columns`, for a picture that fills a part of its canvas.
struct FeatureMap {
  const float *data = nullptr;
  int rows = 0;
  int columns = 0;
  int row_cells = 0;  // from one row of cells to the next
};

// How much each of `length` cells of one axis gives to a box's only bin: ROIAlign, aligned, as many
// samples as the box has cells. `start` and `end` in cells, moved by half a cell.
std::vector<float> AxisWeights(float start, float end, int length);

// A box of the image frame, averaged over the map: (channels,).
std::vector<float> PoolBox(const FeatureMap &map, std::size_t channels, int stride, const Box &box);

// Which detections the block would change.
std::vector<std::size_t> CalibratedPlaces(const CalibrationParts &parts,
                                          const std::vector<Detection> &detections);

// Changes the scores of the detections at `places`. Throws InputError if one would not be finite.
void Calibrate(const CalibrationParts &parts, const FeatureMap &map,
               const std::vector<std::size_t> &places, std::vector<Detection> *detections);

}  // namespace defrcn

#endif  // DEFRCN_CALIBRATION_H_

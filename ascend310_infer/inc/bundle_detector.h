// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// One picture from its file to its detections, as src/predict does it.
#ifndef DEFRCN_BUNDLE_DETECTOR_H_
#define DEFRCN_BUNDLE_DETECTOR_H_

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bundle.h"
#include "engine.h"
#include "picture.h"

namespace defrcn {

// Where the time of a picture went, in milliseconds.
struct PartTimes {
  double decode = 0.0;
  double resize = 0.0;
  double detector = 0.0;
  double encoder = 0.0;  // 0: was not needed
  double rest = 0.0;
};

// A picture that was read; nothing but `index` and `problem` counts if there is a problem.
struct PictureIn {
  std::size_t index = 0;
  bool first_time = true;  // not a repetition for timing
  std::string problem;     // why it is left out, without its name
  Size image;
  Picture resized;
  Picture picture;      // for drawing; empty if it is not wanted
  Picture for_encoder;  // likewise for the calibration block
  PartTimes times;
};

struct PictureOut {
  std::size_t index = 0;
  bool first_time = true;
  std::string problem;
  Size image;
  std::vector<Detection> detections;  // image frame, by falling score
  Picture picture;
  PartTimes times;
};

// Decodes and resizes; what is wrong with the file becomes the result's problem.
PictureIn ReadPicture(const Bundle &bundle, const std::filesystem::path &path, std::size_t index,
                      bool draw);

// One instance: a detector's engine, and one of the encoder if the bundle has one.
class BundleDetector {
 public:
  // `shown`: detections with lower scores are left out. Throws InputError if an engine takes other
  // inputs than the bundle says.
  BundleDetector(const Bundle &bundle, double shown, std::unique_ptr<Engine> detector,
                 std::unique_ptr<Engine> encoder);

  // Runs each engine once on nothing.
  void WarmUp();

  // Throws std::runtime_error if an engine fails or gives other outputs than the bundle says.
  PictureOut Look(PictureIn picture);

 private:
  std::vector<Detection> Detect(const PictureIn &picture, PictureOut *result);
  void CalibrateScores(const PictureIn &picture, std::vector<Detection> *detections,
                       PictureOut *result);

  const Bundle &bundle_;
  double shown_;
  DetectionRules rules_;
  std::unique_ptr<Engine> detector_;
  std::unique_ptr<Engine> encoder_;
  std::vector<Buffer> detector_inputs_;
  std::vector<Buffer> encoder_inputs_;
};

}  // namespace defrcn

#endif  // DEFRCN_BUNDLE_DETECTOR_H_

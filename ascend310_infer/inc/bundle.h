// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// A bundle: a folder with graphs, the calibration block's arrays, and bundle.json, which says what
// they are and lists them with their SHA-256. docs/deployment.md has its form.
#ifndef DEFRCN_BUNDLE_H_
#define DEFRCN_BUNDLE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "calibration.h"
#include "detections.h"
#include "engine.h"
#include "picture.h"

namespace defrcn {

struct BundleClass {
  std::string label;
  std::int64_t category_id = 0;
};

struct BundleModel {
  std::filesystem::path file;
  std::vector<TensorInfo> inputs;
  std::vector<TensorInfo> outputs;
};

struct BundleEncoder {
  BundleModel model;
  Size canvas;
};

struct Bundle {
  std::filesystem::path folder;
  std::vector<BundleClass> classes;  // by class index
  Size input;                        // what resized pictures have to fit into
  int min_size = 0;
  int max_size = 0;
  std::int64_t max_pixels = 0;
  DetectionRules rules;
  BundleModel detector;
  std::optional<BundleEncoder> encoder;  // with `calibration`
  CalibrationParts calibration;

  std::size_t Proposals() const { return static_cast<std::size_t>(detector.outputs[2].shape[1]); }

  // Reads bundle.json, checks every file that it lists, and reads the arrays. Throws InputError,
  // which names the file or key: another format or version, a graph that this program cannot run, a
  // missing file, other bytes than listed, shapes that contradict each other.
  static Bundle Open(const std::filesystem::path &folder);
};

}  // namespace defrcn

#endif  // DEFRCN_BUNDLE_H_

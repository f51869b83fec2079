// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "options.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <filesystem>
#include <string>

#include "error.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;

constexpr std::array<std::string_view, 5> kPrecisionModes = {
    "enforce_fp32", "preferred_fp32", "enforce_fp16", "enforce_origin", "preferred_optimal"};

void CheckRange(const char *flag, int value, int low, int high) {
  if (value < low || value > high) {
    throw InputError(std::string(flag) + " is " + std::to_string(value) + "; it goes from " +
                     std::to_string(low) + " to " + std::to_string(high));
  }
}

void CheckFile(const char *flag, const std::string &path) {
  if (path.empty()) {
    throw InputError(std::string(flag) + " is missing: name a file");
  }
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    throw InputError(std::string(flag) + ": there is no file " + path);
  }
}

void CheckPrecision(const std::string &mode) {
  if (std::find(kPrecisionModes.begin(), kPrecisionModes.end(), mode) != kPrecisionModes.end()) {
    return;
  }
  std::string known;
  for (const std::string_view name : kPrecisionModes) {
    known += (known.empty() ? "" : ", ") + std::string(name);
  }
  throw InputError("--precision_mode is '" + mode + "'; it may be " + known);
}

constexpr const char *kOfDatasets[] = {"mindir_path", "dataset_path", "result_path",
                                       "IMAGEWIDTH",  "IMAGEHEIGHT",  "RESTOREBBOX"};
constexpr const char *kOfBundles[] = {"input", "output", "score_threshold", "draw", "repeat"};

void CheckDatasetOptions(const Options &options) {
  for (const char *flag : kOfBundles) {
    if (options.given.count(flag) > 0) {
      throw InputError(std::string("--") + flag + " goes with --bundle: name a bundle as well");
    }
  }
  CheckFile("--mindir_path", options.mindir_path);
  if (options.dataset_path.empty()) {
    throw InputError("--dataset_path is missing: name the folder that preprocess.py wrote");
  }
  std::error_code error;
  if (!fs::is_directory(options.dataset_path, error)) {
    throw InputError("--dataset_path: there is no folder " + options.dataset_path +
                     "; preprocess.py makes it");
  }
  if (options.result_path.empty() || options.time_path.empty()) {
    throw InputError("--result_path and --time_path may not be empty: name folders to write to");
  }
}

void CheckBundleOptions(const Options &options) {
  for (const char *flag : kOfDatasets) {
    if (options.given.count(flag) > 0) {
      throw InputError(std::string("--") + flag +
                       " does not go with --bundle, which knows it: leave one of them out");
    }
  }
  if (options.bundle.empty()) {
    throw InputError("--bundle is missing: name a bundle's folder");
  }
  std::error_code error;
  if (!fs::exists(options.bundle, error)) {
    throw InputError("--bundle: there is no folder " + options.bundle);
  }
  if (options.input.empty()) {
    throw InputError(
        "--input is missing: name a picture, a folder of pictures, or a list of paths (.txt)");
  }
  if (!fs::exists(options.input, error)) {
    throw InputError("--input: there is no file or folder " + options.input);
  }
  if (options.output.empty()) {
    throw InputError("--output is missing: name a folder to write to");
  }
  if (options.time_path.empty()) {
    throw InputError("--time_path may not be empty: name a folder to write to");
  }
  if (!(options.score_threshold >= 0.0 && options.score_threshold <= 1.0)) {
    throw InputError("--score_threshold is " + std::to_string(options.score_threshold) +
                     "; it goes from 0 to 1");
  }
  CheckRange("--repeat", options.repeat, 1, 1000000);
}

}  // namespace

void CheckOptions(const Options &options) {
  if (options.given.count("bundle") > 0) {
    CheckBundleOptions(options);
  } else {
    CheckDatasetOptions(options);
  }
  if (!options.config_file.empty()) {
    CheckFile("--config_file", options.config_file);
  }
  ParseDevice(options.device_type);
  CheckPrecision(options.precision_mode);
  CheckRange("--device_id", options.device_id, 0, 1023);
  CheckRange("--IMAGEWIDTH", options.image_width, 0, 32768);
  CheckRange("--IMAGEHEIGHT", options.image_height, 0, 32768);
  CheckRange("--instances", options.instances, 1, 64);
  CheckRange("--threads", options.threads, 0, 1024);
  CheckRange("--queue", options.queue, 1, 1024);
  CheckRange("--warmup", options.warmup, 0, 100);
}

Device ParseDevice(std::string_view name) {
  std::string lower(name);
  std::transform(lower.begin(), lower.end(), lower.begin(),
                 [](unsigned char letter) { return std::tolower(letter); });
  if (lower == "cpu") {
    return Device::kCpu;
  }
  if (lower == "gpu") {
    return Device::kGpu;
  }
  if (lower == "ascend" || lower == "ascend310" || lower == "ascend310p") {
    return Device::kAscend;
  }
  throw InputError("--device_type is '" + std::string(name) + "'; it may be CPU, GPU or Ascend");
}

std::string_view DeviceName(Device device) {
  switch (device) {
    case Device::kCpu:
      return "CPU";
    case Device::kGpu:
      return "GPU";
    case Device::kAscend:
      return "Ascend";
  }
  return "";
}

}  // namespace defrcn

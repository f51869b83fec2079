// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// What the command line asks for, checked before anything is opened.
#ifndef DEFRCN_OPTIONS_H_
#define DEFRCN_OPTIONS_H_

#include <optional>
#include <set>
#include <string>
#include <string_view>

namespace defrcn {

enum class Device { kCpu, kGpu, kAscend };

struct Options {
  std::string mindir_path;
  std::string dataset_path;
  std::string result_path;
  std::string time_path;
  std::string device_type;
  std::string precision_mode;
  std::string config_file;  // of Lite, for dynamic shapes on Ascend; empty: none
  int device_id = 0;
  int image_width = 0;   // 0: whatever the files have
  int image_height = 0;  // 0: whatever the files have
  int instances = 1;
  int threads = 0;  // of each instance on a CPU; 0: the cores shared out
  int queue = 4;    // images read ahead, and results waiting to be written
  int warmup = 1;
  std::optional<bool> restore_bbox;  // empty: as the model was exported

  // Pictures by a bundle, instead of a model and a data set.
  std::string bundle;  // empty: the other way
  std::string input;
  std::string output;
  double score_threshold = 0.5;
  bool draw = false;
  int repeat = 1;

  std::set<std::string> given;  // names of the flags that were on the command line
};

// Throws InputError, which names the flag and what it may be.
void CheckOptions(const Options &options);

// "CPU", "GPU", "Ascend"; capital letters or not, Ascend310 and Ascend310P are Ascend. Throws
// InputError.
Device ParseDevice(std::string_view name);

std::string_view DeviceName(Device device);

}  // namespace defrcn

#endif  // DEFRCN_OPTIONS_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// The result folder: <stem>_<i>.bin for output i, outputs.json, and done.json as the last file.
#ifndef DEFRCN_RESULT_WRITER_H_
#define DEFRCN_RESULT_WRITER_H_

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine.h"
#include "statistics.h"

namespace defrcn {

struct RunInfo {
  std::string model;  // file name
  std::string device;
  std::size_t instances = 1;
  std::optional<bool> restore_bbox;
};

// Removes files of an earlier run. Throws InputError, which names one that cannot be removed.
void RemoveOld(const std::filesystem::path &folder, const std::vector<std::string> &names);

class ResultWriter {
 public:
  // Makes the folder and removes the closing files of an earlier run, so that a run which does not
  // end cannot pass for a whole one. `names` replaces the outputs' names, in order.
  ResultWriter(std::filesystem::path folder, std::vector<std::string> names);

  // Writes one image's outputs. Throws std::runtime_error if their number, types or shapes are not
  // those of the first image.
  void Write(const std::string &stem, std::vector<Tensor> outputs);

  // Writes outputs.json and done.json. `stems` are the images in the manifest's order.
  void Finish(const std::vector<std::string> &stems, const RunInfo &run, const Timing &timing);

 private:
  void CheckOutputs(const std::string &stem, const std::vector<Tensor> &outputs);

  std::filesystem::path folder_;
  std::vector<std::string> names_;
  std::vector<TensorInfo> outputs_;
};

}  // namespace defrcn

#endif  // DEFRCN_RESULT_WRITER_H_

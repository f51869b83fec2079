// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// The folder that preprocess.py writes, and the note beside the model that export.py writes.
#ifndef DEFRCN_DATASET_H_
#define DEFRCN_DATASET_H_

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "engine.h"
#include "file_io.h"

namespace defrcn {

struct InputFolder {
  TensorInfo tensor;  // of one image
  std::filesystem::path folder;
};

struct Sample {
  std::size_t index = 0;  // place in the manifest
  std::vector<Buffer> inputs;
};

// What DIR/manifest.json lists: DIR/<folder>/<stem>.bin for every input and every image.
class Dataset {
 public:
  // Throws InputError: no manifest (preprocess.py did not end), or one that makes no sense.
  static Dataset Open(const std::filesystem::path &folder);

  // The model's size in pixels, from the first input (1, 3, height, width).
  std::int64_t Height() const;
  std::int64_t Width() const;

  // Throws InputError if a size that was asked for is another one; 0 asks for nothing.
  void CheckSize(std::int64_t height, std::int64_t width) const;

  // Throws InputError unless number, order, types and sizes of the inputs are the model's.
  void CheckModel(const std::vector<TensorInfo> &model_inputs) const;

  // Throws InputError, which names the first file that is missing or has another size, and says how
  // many are.
  void CheckFiles() const;

  Sample Read(std::size_t index) const;

  const std::vector<std::string> &Stems() const { return stems_; }
  const std::vector<InputFolder> &Inputs() const { return inputs_; }

 private:
  std::filesystem::path FileOf(const InputFolder &input, std::size_t index) const;

  std::filesystem::path manifest_;
  std::vector<InputFolder> inputs_;
  std::vector<std::string> stems_;
};

// <model>.json, if it is there.
struct ModelNote {
  std::optional<bool> restore_bbox;
  std::vector<std::string> output_names;  // in order; empty if the note has none

  // Throws InputError if the file is there and cannot be read.
  static ModelNote Open(const std::filesystem::path &mindir);

  // Throws InputError if the flag was given and says otherwise.
  void CheckRestore(std::optional<bool> wanted) const;
};

}  // namespace defrcn

#endif  // DEFRCN_DATASET_H_

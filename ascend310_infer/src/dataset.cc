// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "dataset.h"

#include <cstdint>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "error.h"
#include "json_node.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string SizeText(std::int64_t height, std::int64_t width) {
  return std::to_string(width) + "x" + std::to_string(height) + " (width x height)";
}

}  // namespace

Dataset Dataset::Open(const fs::path &folder) {
  Dataset dataset;
  dataset.manifest_ = folder / "manifest.json";
  std::error_code error;
  if (!fs::is_regular_file(dataset.manifest_, error)) {
    throw InputError(dataset.manifest_.string() +
                     " is missing: preprocess.py did not end, or wrote to another folder");
  }
  const json content = ReadObject(dataset.manifest_);
  const JsonNode manifest(content);
  try {
    for (const JsonNode &input : manifest.At("inputs").Items()) {
      dataset.inputs_.push_back(
          {ParseTensor(input), folder / PlainName(input.At("folder").Text())});
    }
    std::set<std::string> seen;
    for (const JsonNode &image : manifest.At("images").Items()) {
      dataset.stems_.push_back(PlainName(image.At("stem").Text()));
      if (!seen.insert(dataset.stems_.back()).second) {
        throw InputError("the stem '" + dataset.stems_.back() + "' stands there twice");
      }
    }
  } catch (const InputError &problem) {
    throw InputError(dataset.manifest_.string() +
                     " is no manifest of preprocess.py: " + problem.what());
  }
  if (dataset.inputs_.empty() || dataset.inputs_.front().tensor.shape.size() != 4) {
    throw InputError(dataset.manifest_.string() + ": its first input is no image (1, 3, H, W)");
  }
  if (dataset.stems_.empty()) {
    throw InputError(dataset.manifest_.string() + " lists no image");
  }
  return dataset;
}

std::int64_t Dataset::Height() const { return inputs_.front().tensor.shape[2]; }
std::int64_t Dataset::Width() const { return inputs_.front().tensor.shape[3]; }

void Dataset::CheckSize(std::int64_t height, std::int64_t width) const {
  if ((height != 0 && height != Height()) || (width != 0 && width != Width())) {
    throw InputError("--IMAGEWIDTH and --IMAGEHEIGHT ask for " +
                     SizeText(height != 0 ? height : Height(), width != 0 ? width : Width()) +
                     ", the images of " + manifest_.string() + " are " +
                     SizeText(Height(), Width()) + ": run preprocess.py again, or leave them out");
  }
}

void Dataset::CheckModel(const std::vector<TensorInfo> &model_inputs) const {
  std::vector<TensorInfo> ours;
  for (const InputFolder &input : inputs_) {
    ours.push_back(input.tensor);
  }
  CheckModelInputs(model_inputs, ours, manifest_.string(),
                   "run preprocess.py with the size that the model was exported for");
}

void Dataset::CheckFiles() const {
  std::size_t wrong = 0;
  std::string first;
  for (std::size_t index = 0; index < stems_.size(); ++index) {
    for (const InputFolder &input : inputs_) {
      const fs::path path = FileOf(input, index);
      std::error_code error;
      const std::uintmax_t bytes = fs::file_size(path, error);
      if (!error && bytes == input.tensor.bytes) {
        continue;
      }
      if (++wrong == 1) {
        first = path.string() + (error ? " is missing or cannot be read (" + error.message() + ")"
                                       : " has " + std::to_string(bytes) + " bytes instead of " +
                                             std::to_string(input.tensor.bytes));
      }
    }
  }
  if (wrong > 0) {
    const std::string others =
        wrong > 1 ? "; " + std::to_string(wrong - 1) + " more input files are wrong" : "";
    throw InputError(first + others + ": run preprocess.py again");
  }
}

Sample Dataset::Read(std::size_t index) const {
  Sample sample;
  sample.index = index;
  sample.inputs.reserve(inputs_.size());
  for (const InputFolder &input : inputs_) {
    sample.inputs.push_back(ReadExactly(FileOf(input, index), input.tensor.bytes));
  }
  return sample;
}

fs::path Dataset::FileOf(const InputFolder &input, std::size_t index) const {
  return input.folder / (stems_.at(index) + ".bin");
}

ModelNote ModelNote::Open(const fs::path &mindir) {
  ModelNote note;
  fs::path path = mindir;
  path += ".json";
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    return note;
  }
  const json content = ReadObject(path);
  const JsonNode value(content);
  try {
    if (value.Has("restore_bbox")) {
      note.restore_bbox = value.At("restore_bbox").Flag();
    }
    if (value.Has("outputs")) {
      for (const JsonNode &output : value.At("outputs").Items()) {
        note.output_names.push_back(output.Has("name") ? output.At("name").Text() : output.Text());
      }
    }
  } catch (const InputError &problem) {
    throw InputError(path.string() + " is no note of export.py: " + problem.what());
  }
  return note;
}

void ModelNote::CheckRestore(std::optional<bool> wanted) const {
  if (wanted && restore_bbox && *wanted != *restore_bbox) {
    const auto text = [](bool value) { return std::string(value ? "true" : "false"); };
    throw InputError("--RESTOREBBOX is " + text(*wanted) + ", but the model was exported with " +
                     "restore_bbox " + text(*restore_bbox) + ": export it again, or leave the " +
                     "flag out");
  }
}

}  // namespace defrcn

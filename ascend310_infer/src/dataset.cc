// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "dataset.h"

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include "error.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::int64_t kMaxElements = std::int64_t{1} << 31;

json Parse(const fs::path &path) {
  try {
    json value = json::parse(ReadText(path));
    if (!value.is_object()) {
      throw InputError(path.string() + " holds no JSON object");
    }
    return value;
  } catch (const json::exception &error) {
    throw InputError(path.string() + " is no valid JSON: " + error.what());
  }
}

std::size_t ItemSize(const std::string &dtype) {
  static const std::map<std::string, std::size_t> kSizes = {
      {"bool", 1},  {"int8", 1},    {"uint8", 1}, {"int16", 2},  {"float16", 2},
      {"int32", 4}, {"float32", 4}, {"int64", 8}, {"uint32", 4}, {"float64", 8}};
  const auto found = kSizes.find(dtype);
  if (found == kSizes.end()) {
    throw InputError("the type '" + dtype + "' is not known");
  }
  return found->second;
}

// A name that stays in its folder.
std::string PlainName(const std::string &name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    throw InputError("the name '" + name + "' is not that of a file in the folder");
  }
  return name;
}

TensorInfo ParseTensor(const json &value) {
  TensorInfo tensor;
  tensor.name = value.at("name").get<std::string>();
  tensor.dtype = value.at("dtype").get<std::string>();
  tensor.shape = value.at("shape").get<std::vector<std::int64_t>>();
  std::int64_t elements = 1;
  for (const std::int64_t side : tensor.shape) {
    if (side < 1 || side > kMaxElements / elements) {
      throw InputError("the shape of input '" + tensor.name + "' is not one of an array");
    }
    elements *= side;
  }
  tensor.bytes = static_cast<std::size_t>(elements) * ItemSize(tensor.dtype);
  return tensor;
}

std::string SizeText(std::int64_t height, std::int64_t width) {
  return std::to_string(width) + "x" + std::to_string(height) + " (width x height)";
}

}  // namespace

std::string Describe(const TensorInfo &info) {
  std::string text = info.dtype + " (";
  for (std::size_t place = 0; place < info.shape.size(); ++place) {
    text += (place == 0 ? "" : ", ") + std::to_string(info.shape[place]);
  }
  return text + ")";
}

Dataset Dataset::Open(const fs::path &folder) {
  Dataset dataset;
  dataset.manifest_ = folder / "manifest.json";
  std::error_code error;
  if (!fs::is_regular_file(dataset.manifest_, error)) {
    throw InputError(dataset.manifest_.string() +
                     " is missing: preprocess.py did not end, or wrote to another folder");
  }
  const json manifest = Parse(dataset.manifest_);
  try {
    for (const json &input : manifest.at("inputs")) {
      dataset.inputs_.push_back(
          {ParseTensor(input), folder / PlainName(input.at("folder").get<std::string>())});
    }
    std::set<std::string> seen;
    for (const json &image : manifest.at("images")) {
      dataset.stems_.push_back(PlainName(image.at("stem").get<std::string>()));
      if (!seen.insert(dataset.stems_.back()).second) {
        throw InputError("the stem '" + dataset.stems_.back() + "' stands there twice");
      }
    }
  } catch (const json::exception &problem) {
    throw InputError(dataset.manifest_.string() +
                     " is no manifest of preprocess.py: " + problem.what());
  } catch (const InputError &problem) {
    throw InputError(dataset.manifest_.string() + ": " + problem.what());
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
  if (model_inputs.size() != inputs_.size()) {
    throw InputError("the model takes " + std::to_string(model_inputs.size()) + " inputs, " +
                     manifest_.string() + " lists " + std::to_string(inputs_.size()));
  }
  for (std::size_t place = 0; place < inputs_.size(); ++place) {
    const TensorInfo &ours = inputs_[place].tensor;
    const TensorInfo &theirs = model_inputs[place];
    if (ours.dtype != theirs.dtype || ours.shape != theirs.shape || ours.bytes != theirs.bytes) {
      throw InputError("input " + std::to_string(place) + " of the model, '" + theirs.name +
                       "', is " + Describe(theirs) + ", but '" + ours.name + "' in " +
                       manifest_.string() + " is " + Describe(ours) +
                       ": run preprocess.py with the size that the model was exported for");
    }
  }
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
  const json value = Parse(path);
  try {
    if (value.contains("restore_bbox")) {
      note.restore_bbox = value.at("restore_bbox").get<bool>();
    }
    for (const json &output : value.value("outputs", json::array())) {
      note.output_names.push_back(output.is_string() ? output.get<std::string>()
                                                     : output.at("name").get<std::string>());
    }
  } catch (const json::exception &problem) {
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

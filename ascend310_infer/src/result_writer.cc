// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "result_writer.h"

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "error.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr char kOutputs[] = "outputs.json";
constexpr char kDone[] = "done.json";

// Text from a model may not be UTF-8, which JSON has to be.
std::string ToText(const ordered_json &value) {
  return value.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

void RemoveOld(const fs::path &folder, const std::vector<std::string> &names) {
  for (const std::string &name : names) {
    std::error_code error;
    fs::remove(folder / name, error);
    if (error) {
      throw InputError((folder / name).string() + " of an earlier run cannot be removed (" +
                       error.message() + ")");
    }
  }
}

ResultWriter::ResultWriter(fs::path folder, std::vector<std::string> names)
    : folder_(std::move(folder)), names_(std::move(names)) {
  MakeFolder(folder_);
  RemoveOld(folder_, {kDone, kOutputs});
}

void ResultWriter::Write(const std::string &stem, std::vector<Tensor> outputs) {
  CheckOutputs(stem, outputs);
  for (std::size_t place = 0; place < outputs.size(); ++place) {
    WriteAtomically(folder_ / (stem + "_" + std::to_string(place) + ".bin"),
                    outputs[place].data.data(), outputs[place].data.size());
  }
}

void ResultWriter::CheckOutputs(const std::string &stem, const std::vector<Tensor> &outputs) {
  if (outputs_.empty()) {
    if (outputs.empty() || (!names_.empty() && names_.size() != outputs.size())) {
      throw std::runtime_error("the model gives " + std::to_string(outputs.size()) +
                               " outputs, the note beside it names " +
                               std::to_string(names_.size()) + ": export it again");
    }
    for (const Tensor &output : outputs) {
      outputs_.push_back(output.info);
      if (!names_.empty()) {
        outputs_.back().name = names_[outputs_.size() - 1];
      }
    }
  }
  if (outputs.size() != outputs_.size()) {
    throw std::runtime_error("the number of outputs changed at image " + stem);
  }
  for (std::size_t place = 0; place < outputs.size(); ++place) {
    const TensorInfo &info = outputs[place].info;
    if (info.dtype != outputs_[place].dtype || info.shape != outputs_[place].shape) {
      throw std::runtime_error("output " + std::to_string(place) + " of image " + stem + " is " +
                               Describe(info) + ", before it was " + Describe(outputs_[place]));
    }
  }
}

void ResultWriter::Finish(const std::vector<std::string> &stems, const RunInfo &run,
                          const Timing &timing) {
  ordered_json outputs;
  outputs["outputs"] = ordered_json::array();
  for (std::size_t place = 0; place < outputs_.size(); ++place) {
    ordered_json entry;
    entry["index"] = place;
    entry["name"] = outputs_[place].name;
    entry["dtype"] = outputs_[place].dtype;
    entry["shape"] = outputs_[place].shape;
    outputs["outputs"].push_back(entry);
  }
  WriteAtomically(folder_ / kOutputs, ToText(outputs));

  ordered_json done;
  done["format"] = "defrcn-infer";
  done["version"] = 1;
  done["count"] = stems.size();
  done["stems"] = stems;
  done["seconds"] = timing.wall_seconds;
  done["images_per_second"] = timing.ImagesPerSecond();
  done["predict_ms"]["mean"] = timing.predict_ms.mean;
  done["predict_ms"]["median"] = timing.predict_ms.median;
  done["predict_ms"]["p90"] = timing.predict_ms.p90;
  done["load_seconds"] = timing.load_seconds;
  done["peak_memory_mb"] = timing.peak_memory_mb;
  done["model"] = run.model;
  done["device"] = run.device;
  done["instances"] = run.instances;
  done["restore_bbox"] = nullptr;
  if (run.restore_bbox) {
    done["restore_bbox"] = *run.restore_bbox;
  }
  WriteAtomically(folder_ / kDone, ToText(done));
}

}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "detection_writer.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "decode.h"
#include "drawing.h"
#include "error.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;
using nlohmann::ordered_json;

constexpr char kDetections[] = "detections.json";
constexpr char kImages[] = "images.json";
constexpr char kProblems[] = "problems.json";
constexpr char kDetectionsDone[] = "done.json";
constexpr char kDrawn[] = "pictures";

void WriteJson(const fs::path &path, const ordered_json &value) {
  // Names of files need not be UTF-8, which JSON has to be.
  WriteAtomically(path, value.dump(1, ' ', false, ordered_json::error_handler_t::replace) + "\n");
}

ordered_json RowOf(std::size_t image_id, std::int64_t category_id, const Detection &one) {
  ordered_json row;
  row["image_id"] = image_id;
  row["category_id"] = category_id;
  row["bbox"] = {one.box[0], one.box[1], one.box[2] - one.box[0], one.box[3] - one.box[1]};
  row["score"] = one.score;
  return row;
}

ordered_json SummaryOf(const Summary &summary) {
  ordered_json value;
  value["count"] = summary.count;
  value["mean"] = summary.mean;
  value["median"] = summary.median;
  value["p90"] = summary.p90;
  return value;
}

}  // namespace

DetectionWriter::DetectionWriter(fs::path folder, const Bundle &bundle,
                                 const std::vector<PictureFile> &pictures, bool draw)
    : folder_(std::move(folder)),
      bundle_(bundle),
      pictures_(pictures),
      draw_(draw),
      found_(pictures.size()) {
  for (const BundleClass &one : bundle.classes) {
    labels_.push_back(one.label);
  }
  MakeFolder(folder_);
  RemoveDrawn();
  RemoveOld(folder_, {kDetectionsDone, kDetections, kImages, kProblems});
}

// What an earlier run drew, as its images.json has it; not where a link leads out of the folder.
void DetectionWriter::RemoveDrawn() const {
  std::ifstream stream(folder_ / kImages);
  const ordered_json earlier = ordered_json::parse(stream, nullptr, /*allow_exceptions=*/false);
  if (!earlier.is_object() || !earlier.contains("images") || !earlier["images"].is_array()) {
    return;
  }
  const fs::path home = fs::canonical(folder_);
  for (const ordered_json &image : earlier["images"]) {
    if (!image.is_object() || !image.contains("drawn") || !image["drawn"].is_string()) {
      continue;
    }
    const fs::path name = fs::path(image["drawn"].get<std::string>()).lexically_normal();
    std::error_code error;
    if (!name.empty() && *name.begin() == kDrawn && name.extension() == ".png" &&
        fs::canonical((home / name).parent_path(), error) == (home / name).parent_path() &&
        fs::is_regular_file(fs::symlink_status(home / name, error))) {
      fs::remove(home / name, error);
    }
  }
}

double DetectionWriter::Add(PictureOut picture) {
  const Clock::time_point start = Clock::now();
  if (draw_ && picture.problem.empty()) {
    Draw(picture.detections, labels_, &picture.picture);
    const fs::path path = folder_ / kDrawn / pictures_[picture.index].drawn;
    MakeFolder(path.parent_path());
    const Buffer content = EncodePng(picture.picture);
    WriteAtomically(path, content.data(), content.size());
  }
  picture.picture = Picture();
  found_[picture.index] = std::move(picture);
  return SecondsSince(start) * 1000.0;
}

std::vector<std::string> DetectionWriter::Problems() const {
  std::vector<std::string> problems;
  for (std::size_t index = 0; index < found_.size(); ++index) {
    if (!found_[index].problem.empty()) {
      problems.push_back(pictures_[index].name + ": " + found_[index].problem);
    }
  }
  return problems;
}

void DetectionWriter::Finish(const RunInfo &run, const Timing &timing, double threshold) const {
  ordered_json rows = ordered_json::array(), images = ordered_json::array();
  ordered_json problems = ordered_json::array(), categories = ordered_json::array();
  for (std::size_t index = 0; index < found_.size(); ++index) {
    const PictureOut &one = found_[index];
    if (!one.problem.empty()) {
      problems.push_back({{"file", pictures_[index].name}, {"reason", one.problem}});
      continue;
    }
    ordered_json image;
    image["id"] = index + 1;
    image["file_name"] = pictures_[index].name;
    image["width"] = one.image.width;
    image["height"] = one.image.height;
    if (draw_) {
      image["drawn"] = std::string(kDrawn) + "/" + pictures_[index].drawn;
    }
    images.push_back(image);
    for (const Detection &detection : one.detections) {
      rows.push_back(RowOf(index + 1, bundle_.classes[detection.label].category_id, detection));
    }
  }
  for (const BundleClass &one : bundle_.classes) {
    categories.push_back({{"id", one.category_id}, {"name", one.label}});
  }
  WriteJson(folder_ / kDetections, rows);
  ordered_json content;
  content["info"] = {{"format", "defrcn-detections"},
                     {"version", 1},
                     {"score_threshold", threshold},
                     {"calibrated", bundle_.encoder.has_value()}};
  content["images"] = images;
  content["categories"] = categories;
  WriteJson(folder_ / kImages, content);
  WriteJson(folder_ / kProblems, problems);

  ordered_json done;
  done["format"] = "defrcn-detections";
  done["version"] = 1;
  done["images"] = images.size();
  done["detections"] = rows.size();
  done["problems"] = problems.size();
  done["bundle"] = run.model;
  done["device"] = run.device;
  done["instances"] = run.instances;
  done["seconds"] = timing.wall_seconds;
  done["images_per_second"] = timing.ImagesPerSecond();
  for (const auto &[name, summary] : timing.parts) {
    done["ms"][name] = SummaryOf(summary);
  }
  done["load_seconds"] = timing.load_seconds;
  done["peak_memory_mb"] = timing.peak_memory_mb;
  WriteJson(folder_ / kDetectionsDone, done);
}

}  // namespace defrcn

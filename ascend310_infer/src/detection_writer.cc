// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "detection_writer.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "app.h"
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
constexpr char kIndex[] = ".results.json";  // as src/evaluation/result_folder.py has it

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

// Why nothing can be put there for its name alone; "" if it can be, or if anything else is wrong.
std::string NoPlace(const fs::path &path) {
  std::error_code error, ignored;
  fs::create_directories(path.parent_path(), error);
  if (!error && !fs::is_directory(path.parent_path(), ignored)) {
    error = std::make_error_code(std::errc::not_a_directory);
  }
  if (!error && fs::is_directory(path, ignored)) {
    error = std::make_error_code(std::errc::is_a_directory);
  }
  for (const std::errc kind : {std::errc::not_a_directory, std::errc::is_a_directory,
                               std::errc::file_exists, std::errc::filename_too_long}) {
    if (error == kind) {
      return error.message();
    }
  }
  return "";
}

// The files of earlier results, of this program or of src.predict; never any other.
std::vector<fs::path> Listed(const fs::path &folder) {
  std::ifstream stream(folder / kIndex);
  const ordered_json index = ordered_json::parse(stream, nullptr, /*allow_exceptions=*/false);
  std::vector<fs::path> names;
  if (index.is_object() && index.contains("files") && index["files"].is_array()) {
    for (const ordered_json &name : index["files"]) {
      if (name.is_string()) {
        names.emplace_back(name.get<std::string>());
      }
    }
  }
  return names;
}

// Removes a file, and folders that are empty then; not where a link leads out of the folder.
void RemoveInside(const fs::path &home, const fs::path &name) {
  std::error_code error;
  const fs::path path = home / name;
  if (name.is_absolute() || name.lexically_normal() != name || name.empty() ||
      *name.begin() == ".." || fs::canonical(path.parent_path(), error) != path.parent_path() ||
      !fs::is_regular_file(fs::symlink_status(path, error))) {
    return;
  }
  fs::remove(path, error);
  for (fs::path parent = path.parent_path(); parent != home && !error;
       parent = parent.parent_path()) {
    fs::remove(parent, error);
  }
}

}  // namespace

DetectionWriter::DetectionWriter(fs::path folder, const Bundle &bundle,
                                 const std::vector<PictureFile> &pictures, bool draw,
                                 bool times_too)
    : folder_(std::move(folder)),
      bundle_(bundle),
      pictures_(pictures),
      draw_(draw),
      times_too_(times_too),
      found_(pictures.size()) {
  for (const BundleClass &one : bundle.classes) {
    labels_.push_back(one.label);
  }
  MakeFolder(folder_);
}

void DetectionWriter::Begin() {
  if (std::exchange(begun_, true)) {
    return;
  }
  RemoveOld(folder_, {kDetectionsDone});
  const fs::path home = fs::canonical(folder_);
  for (const fs::path &name : Listed(folder_)) {
    RemoveInside(home, name);
  }
  RemoveOld(folder_, {kDetections, kImages, kProblems});
  // For a run that is killed; what lies there already is the user's.
  std::vector<std::string> drawn;
  for (const PictureFile &picture : pictures_) {
    std::error_code error;
    if (draw_ && !fs::exists(fs::symlink_status(folder_ / kDrawn / picture.drawn, error))) {
      drawn.push_back(picture.drawn);
    }
  }
  WriteIndex(std::move(drawn));
}

void DetectionWriter::WriteIndex(std::vector<std::string> drawn) const {
  std::vector<std::string> names = {kDetections, kImages, kProblems, kDetectionsDone};
  if (times_too_) {
    names.emplace_back(kTimeFile);
  }
  for (const std::string &name : drawn) {
    names.push_back((fs::path(kDrawn) / name).string());
  }
  std::sort(names.begin(), names.end());
  WriteJson(folder_ / kIndex, {{"files", names}});
}

double DetectionWriter::Add(PictureOut picture) {
  Begin();
  const Clock::time_point start = Clock::now();
  if (draw_ && picture.problem.empty()) {
    const fs::path path = folder_ / kDrawn / pictures_[picture.index].drawn;
    const std::string reason = NoPlace(path);
    if (!reason.empty()) {
      picture.problem = "its drawn picture has no place (" + reason + "); rename it";
    } else {
      Draw(picture.detections, labels_, &picture.picture);
      MakeFolder(path.parent_path());
      const Buffer content = EncodePng(picture.picture);
      WriteAtomically(path, content.data(), content.size());
    }
  }
  picture.picture = Picture();
  const std::size_t index = picture.index;
  found_[index] = std::move(picture);
  return SecondsSince(start) * 1000.0;
}

std::vector<std::string> DetectionWriter::Problems() const {
  std::vector<std::string> problems;
  for (std::size_t index = 0; index < found_.size(); ++index) {
    if (found_[index] && !found_[index]->problem.empty()) {
      problems.push_back(pictures_[index].name + ": " + found_[index]->problem);
    }
  }
  return problems;
}

void DetectionWriter::Write(double threshold, bool complete) {
  Begin();
  ordered_json rows = ordered_json::array(), images = ordered_json::array();
  ordered_json problems = ordered_json::array(), categories = ordered_json::array();
  std::vector<std::string> drawn;
  for (std::size_t index = 0; index < found_.size(); ++index) {
    if (!found_[index]) {
      continue;  // the run ended before
    }
    const PictureOut &one = *found_[index];
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
      drawn.push_back(pictures_[index].drawn);
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
                     {"calibrated", bundle_.encoder.has_value()},
                     {"complete", complete}};
  content["images"] = images;
  content["categories"] = categories;
  WriteJson(folder_ / kImages, content);
  WriteJson(folder_ / kProblems, problems);
  WriteIndex(std::move(drawn));
  num_images_ = images.size();
  num_detections_ = rows.size();
}

void DetectionWriter::WritePart(double threshold) noexcept {
  try {
    if (begun_) {
      RemoveOld(folder_, {kDetectionsDone});
      Write(threshold, /*complete=*/false);
    }
  } catch (const std::exception &) {  // the disk is full, for instance
  }
}

void DetectionWriter::Finish(const RunInfo &run, const Timing &timing, double threshold) {
  Write(threshold, /*complete=*/true);
  ordered_json done;
  done["format"] = "defrcn-detections";
  done["version"] = 1;
  done["images"] = num_images_;
  done["detections"] = num_detections_;
  done["problems"] = Problems().size();
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

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Runs parts of the program on files, so that tests in Python compare them with their own numbers:
//   defrcn_probe JOBS
// JOBS has a job a line, words apart by spaces; each prints one line.
#include <cstdint>
#include <cstring>
#include <exception>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "calibration.h"
#include "decode.h"
#include "detections.h"
#include "file_io.h"
#include "picture.h"
#include "picture_list.h"
#include "sha256.h"

namespace {

using defrcn::Buffer;
using defrcn::Picture;
using defrcn::Size;

template <typename T>
T Next(std::istream *words) {
  T value{};
  if (!(*words >> value)) {
    throw std::runtime_error("a job lacks a word");
  }
  return value;
}

Buffer ReadAll(const std::string &path) { return defrcn::ReadRegular(path, UINTMAX_MAX); }

template <typename T>
std::vector<T> ReadArray(const std::string &path) {
  const Buffer bytes = ReadAll(path);
  std::vector<T> values(bytes.size() / sizeof(T));
  std::memcpy(values.data(), bytes.data(), values.size() * sizeof(T));
  return values;
}

template <typename T>
void WriteArray(const std::string &path, const std::vector<T> &values) {
  defrcn::WriteAtomically(path, values.data(), values.size() * sizeof(T));
}

std::string Text(const Size &size) {
  return std::to_string(size.height) + " " + std::to_string(size.width);
}

// decode FILE MAX_PIXELS PILLOW OPENCV: both pictures' pixels.
std::string DecodeJob(std::istream *words) {
  const auto content = ReadAll(Next<std::string>(words));
  const defrcn::Decoded decoded = defrcn::Decode(content, Next<std::int64_t>(words));
  WriteArray(Next<std::string>(words), decoded.picture.rgb);
  WriteArray(Next<std::string>(words), decoded.by_opencv.value_or(decoded.picture).rgb);
  return Text(decoded.picture.size);
}

// encode PIXELS HEIGHT WIDTH FILE
std::string EncodeJob(std::istream *words) {
  const auto pixels = ReadAll(Next<std::string>(words));
  const int height = Next<int>(words);
  Picture picture(Size{height, Next<int>(words)});
  picture.rgb = pixels;
  WriteArray(Next<std::string>(words), defrcn::EncodePng(picture));
  return "encoded";
}

// resize PIXELS HEIGHT WIDTH NEW_HEIGHT NEW_WIDTH OUT
std::string ResizeJob(std::istream *words) {
  const auto pixels = ReadAll(Next<std::string>(words));
  const int height = Next<int>(words);
  Picture picture(Size{height, Next<int>(words)});
  picture.rgb = pixels;
  const int new_height = Next<int>(words);
  const Picture resized = defrcn::Resized(picture, {new_height, Next<int>(words)});
  WriteArray(Next<std::string>(words), resized.rgb);
  return "resized";
}

// size HEIGHT WIDTH MIN_SIZE MAX_SIZE
std::string SizeJob(std::istream *words) {
  const int height = Next<int>(words), width = Next<int>(words), shortest = Next<int>(words);
  return Text(defrcn::ResizedSize({height, width}, shortest, Next<int>(words)));
}

// axis EDGES LENGTH OUT: EDGES are pairs of float32.
std::string AxisJob(std::istream *words) {
  const auto edges = ReadArray<float>(Next<std::string>(words));
  const int length = Next<int>(words);
  std::vector<float> all;
  for (std::size_t place = 0; place + 1 < edges.size(); place += 2) {
    const auto weights = defrcn::AxisWeights(edges[place], edges[place + 1], length);
    all.insert(all.end(), weights.begin(), weights.end());
  }
  WriteArray(Next<std::string>(words), all);
  return "weights";
}

// Six float32 a detection: box, score, class.
void WriteDetections(const std::string &path, const std::vector<defrcn::Detection> &detections) {
  std::vector<float> rows;
  for (const auto &one : detections) {
    rows.insert(rows.end(), one.box.begin(), one.box.end());
    rows.push_back(one.score);
    rows.push_back(static_cast<float>(one.label));
  }
  WriteArray(path, rows);
}

std::vector<defrcn::Detection> ReadDetections(const std::string &path) {
  const auto rows = ReadArray<float>(path);
  std::vector<defrcn::Detection> detections;
  for (std::size_t at = 0; at + 5 < rows.size(); at += 6) {
    detections.push_back({{rows[at], rows[at + 1], rows[at + 2], rows[at + 3]},
                          rows[at + 4],
                          static_cast<std::size_t>(rows[at + 5])});
  }
  return detections;
}

// detect BOXES SCORES VALID CLASSES THRESHOLD NMS MOST MODEL_H MODEL_W IMAGE_H IMAGE_W OUT
std::string DetectJob(std::istream *words) {
  const auto boxes = ReadArray<float>(Next<std::string>(words));
  const auto scores = ReadArray<float>(Next<std::string>(words));
  const auto valid = ReadArray<std::int32_t>(Next<std::string>(words));
  const auto classes = Next<std::size_t>(words);
  defrcn::DetectionRules rules;
  rules.score_threshold = Next<double>(words);
  rules.nms_threshold = Next<double>(words);
  rules.most = Next<std::size_t>(words);
  Size model, image;
  *words >> model.height >> model.width >> image.height >> image.width;
  const defrcn::DetectorOutputs outputs = {valid.size(), classes, boxes.data(), scores.data(),
                                           valid.data()};
  const auto found = defrcn::FinalDetections(outputs, rules);
  WriteDetections(Next<std::string>(words), defrcn::ToImageFrame(found, model, image));
  return "detected";
}

// calibrate MAP ROWS COLUMNS ROW_CELLS CHANNELS WEIGHT BIAS PROTOTYPES CALIBRATED ALPHA LOWER UPPER
// STRIDE DETECTIONS OUT
std::string CalibrateJob(std::istream *words) {
  const auto features = ReadArray<float>(Next<std::string>(words));
  defrcn::FeatureMap map;
  map.data = features.data();
  map.rows = Next<int>(words);
  map.columns = Next<int>(words);
  map.row_cells = Next<int>(words);
  defrcn::CalibrationParts parts;
  parts.channels = Next<std::size_t>(words);
  parts.weight = ReadArray<float>(Next<std::string>(words));
  parts.bias = ReadArray<float>(Next<std::string>(words));
  parts.prototypes = ReadArray<float>(Next<std::string>(words));
  parts.dimensions = parts.bias.size();
  for (const char flag : Next<std::string>(words)) {
    parts.calibrated.push_back(flag == '1');
  }
  parts.alpha = static_cast<float>(Next<double>(words));
  parts.lower = static_cast<float>(Next<double>(words));
  parts.upper = static_cast<float>(Next<double>(words));
  parts.stride = Next<int>(words);
  auto detections = ReadDetections(Next<std::string>(words));
  const auto places = defrcn::CalibratedPlaces(parts, detections);
  defrcn::Calibrate(parts, map, places, &detections);
  WriteDetections(Next<std::string>(words), detections);
  return std::to_string(places.size());
}

// sha256 FILE
std::string Sha256Job(std::istream *words) {
  return defrcn::Sha256OfFile(Next<std::string>(words));
}

// list INPUT LEAVE_OUT: names of pictures and, after a bar, of what is skipped.
std::string ListJob(std::istream *words) {
  const auto input = Next<std::string>(words);
  const defrcn::PictureList list = defrcn::FindPictures(input, Next<std::string>(words));
  std::string text;
  for (const auto &picture : list.pictures) {
    text += picture.name + " ";
  }
  text += "|";
  for (const auto &name : list.skipped) {
    text += " " + name;
  }
  return text;
}

const std::map<std::string, std::function<std::string(std::istream *)>> kJobs = {
    {"decode", DecodeJob}, {"encode", EncodeJob},       {"resize", ResizeJob},
    {"size", SizeJob},     {"axis", AxisJob},           {"detect", DetectJob},
    {"list", ListJob},     {"calibrate", CalibrateJob}, {"sha256", Sha256Job}};

}  // namespace

int main(int argc, char **argv) {
  std::ifstream jobs(argc > 1 ? argv[1] : "");
  for (std::string line; std::getline(jobs, line);) {
    std::istringstream words(line);
    try {
      std::cout << kJobs.at(Next<std::string>(&words))(&words) << "\n";
    } catch (const std::exception &error) {
      std::cout << "error: " << error.what() << "\n";
    }
  }
  return 0;
}

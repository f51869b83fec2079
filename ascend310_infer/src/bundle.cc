// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "bundle.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "error.h"
#include "json_node.h"
#include "sha256.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;

constexpr char kBundleFile[] = "bundle.json";
constexpr char kSumFile[] = "bundle.sha256";
constexpr char kBundleFormat[] = "defrcn-bundle";
constexpr std::int64_t kBundleVersion = 1;
constexpr std::int64_t kMaxSide = 32768;
constexpr std::int64_t kLowest = std::numeric_limits<std::int64_t>::min();
constexpr std::int64_t kHighest = std::numeric_limits<std::int64_t>::max();
constexpr std::int64_t kMaxCount = std::numeric_limits<std::int32_t>::max();
constexpr char kRemedy[] = ": write the bundle again, or copy it again";

using Shape = std::vector<std::int64_t>;

std::string ShapeText(const Shape &shape) { return Describe(TensorInfo{"", "", shape, 0}); }

int SideOf(const JsonNode &node) { return static_cast<int>(node.Integer(1, kMaxSide)); }

void CheckFormat(const JsonNode &root, const fs::path &path) {
  if (!root.Has("format") || root.At("format").Text() != kBundleFormat) {
    throw InputError(path.string() + " is no bundle: its format is not " + kBundleFormat);
  }
  const std::int64_t version = root.At("format_version").Integer(0, kMaxCount);
  if (version != kBundleVersion) {
    throw InputError(path.string() + " has format_version " + std::to_string(version) +
                     ", this program reads " + std::to_string(kBundleVersion) +
                     ": take the program that belongs to the bundle, or write the bundle again");
  }
  const std::string graphs = root.At("graph_format").Text();
  if (graphs != "MINDIR") {
    throw InputError(path.string() + " has graphs in the format " + graphs +
                     ", this program runs MINDIR: write the bundle again with "
                     "--export_file_format=MINDIR --mindir_version=1");
  }
}

// bundle.json itself is as it was written: the file beside it has its sum, as sha256sum writes it.
void CheckSum(const fs::path &path) {
  const fs::path sum = path.parent_path() / kSumFile;
  std::error_code error;
  if (!fs::is_regular_file(sum, error)) {
    throw InputError(sum.string() + " is missing" + kRemedy);
  }
  std::istringstream words(ReadText(sum));
  std::string wanted;
  words >> wanted;
  if (wanted != Sha256OfFile(path)) {
    throw InputError(path.string() + " is damaged: its SHA-256 is not the one in " + kSumFile +
                     kRemedy);
  }
}

// Of the files that bundle.json lists: each is there with its bytes and its SHA-256.
class Files {
 public:
  Files(const fs::path &folder, const JsonNode &listed) : folder_(folder) {
    for (const auto &[name, entry] : listed.Members()) {
      bytes_[PlainName(name)] = static_cast<std::uintmax_t>(
          entry.At("bytes").Integer(0, std::numeric_limits<std::int64_t>::max()));
      sums_[name] = entry.At("sha256").Text();
    }
  }

  // Sizes of all before the sums of any: a missing file is found at once.
  void Check() const {
    for (const auto &[name, bytes] : bytes_) {
      const fs::path path = folder_ / name;
      std::error_code error;
      if (!fs::is_regular_file(path, error)) {
        throw InputError(path.string() + " is missing" + kRemedy);
      }
      const std::uintmax_t found = fs::file_size(path, error);
      if (error || found != bytes) {
        throw InputError(path.string() + " has " + std::to_string(found) + " bytes, " +
                         kBundleFile + " lists " + std::to_string(bytes) + kRemedy);
      }
    }
    for (const auto &[name, sum] : sums_) {
      if (Sha256OfFile(folder_ / name) != sum) {
        throw InputError((folder_ / name).string() + " is damaged: its SHA-256 is not the one in " +
                         kBundleFile + kRemedy);
      }
    }
  }

  // The file that a node names.
  fs::path Named(const JsonNode &node) const {
    const std::string name = node.Text();
    if (bytes_.count(name) == 0) {
      node.Refuse("is '" + name + "', which 'files' does not list");
    }
    return folder_ / name;
  }

  // {"file": …, "shape": […]} of float32.
  std::vector<float> Array(const JsonNode &node, const Shape &wanted) const {
    const Shape shape = ParseShape(node.At("shape"));
    if (shape != wanted) {
      node.At("shape").Refuse("is" + ShapeText(shape) + "; by the other shapes it is" +
                              ShapeText(wanted));
    }
    const fs::path path = Named(node.At("file"));
    const auto count = static_cast<std::size_t>(NumElements(shape));
    const Buffer bytes = ReadRegular(path, count * sizeof(float));
    if (bytes.size() != count * sizeof(float)) {
      throw InputError(path.string() + " has " + std::to_string(bytes.size()) +
                       " bytes, which is not float32" + ShapeText(shape) + kRemedy);
    }
    std::vector<float> values(count);
    std::memcpy(values.data(), bytes.data(), bytes.size());
    const bool finite =
        std::all_of(values.begin(), values.end(), [](float one) { return std::isfinite(one); });
    if (!finite) {
      throw InputError(path.string() + " holds a number that is not finite" + kRemedy);
    }
    return values;
  }

 private:
  fs::path folder_;
  std::map<std::string, std::uintmax_t> bytes_;
  std::map<std::string, std::string> sums_;
};

// Throws unless the list holds these types and shapes in this order.
std::vector<TensorInfo> Tensors(const JsonNode &node, const std::vector<TensorInfo> &wanted) {
  std::vector<TensorInfo> found;
  for (const JsonNode &item : node.Items()) {
    found.push_back(ParseTensor(item));
  }
  if (found.size() != wanted.size()) {
    node.Refuse("has " + std::to_string(found.size()) + " entries instead of " +
                std::to_string(wanted.size()));
  }
  for (std::size_t place = 0; place < wanted.size(); ++place) {
    const TensorInfo &one = found[place];
    if (one.name != wanted[place].name || one.dtype != wanted[place].dtype ||
        one.shape != wanted[place].shape) {
      node.Items()[place].Refuse("is " + one.name + " " + Describe(one) +
                                 "; by the other shapes it is " + wanted[place].name + " " +
                                 Describe(wanted[place]));
    }
  }
  return found;
}

std::vector<BundleClass> ReadClasses(const JsonNode &node) {
  std::vector<BundleClass> classes;
  std::set<std::int64_t> seen;
  for (const JsonNode &item : node.Items()) {
    classes.push_back({item.At("label").Text(), item.At("category_id").Integer(kLowest, kHighest)});
    item.At("novel").Flag();
    if (!seen.insert(classes.back().category_id).second) {
      item.At("category_id").Refuse("stands there twice");
    }
  }
  if (classes.empty()) {
    node.Refuse("is empty");
  }
  return classes;
}

void ReadSizes(const JsonNode &input, const JsonNode &detection, Bundle *bundle) {
  bundle->input = {SideOf(input.At("height")), SideOf(input.At("width"))};
  bundle->min_size = static_cast<int>(input.At("min_size").Integer(1, kMaxCount));
  bundle->max_size = static_cast<int>(input.At("max_size").Integer(1, kMaxCount));
  bundle->max_pixels = input.At("max_pixels").Integer(1, kMaxCount);
  bundle->rules.score_threshold = detection.At("score_threshold").Number(0, 1);
  bundle->rules.nms_threshold = detection.At("nms_threshold").Number(0, 1);
  bundle->rules.most =
      static_cast<std::size_t>(detection.At("detections_per_image").Integer(1, kMaxCount));
}

void ReadDetector(const JsonNode &node, const Files &files, Bundle *bundle) {
  BundleModel &model = bundle->detector;
  model.file = files.Named(node.At("file"));
  model.inputs =
      Tensors(node.At("inputs"),
              {{"image", "float32", {1, 3, bundle->input.height, bundle->input.width}, 0},
               {"image_id", "int32", {1}, 0},
               {"image_meta", "float32", {1, 4}, 0}});
  const JsonNode outputs = node.At("outputs");
  const std::vector<JsonNode> items = outputs.Items();
  const Shape boxes = items.empty() ? Shape{} : ParseTensor(items[0]).shape;
  const std::int64_t proposals = boxes.size() == 4 ? boxes[1] : 1;
  const auto classes = static_cast<std::int64_t>(bundle->classes.size());
  model.outputs = Tensors(outputs, {{"boxes", "float32", {1, proposals, classes, 4}, 0},
                                    {"scores", "float32", {1, proposals, classes + 1}, 0},
                                    {"valid", "int32", {1, proposals}, 0},
                                    {"info", "int32", {1, 4}, 0}});
}

// The encoder's graph; returns the channels of its map.
std::int64_t ReadEncoder(const JsonNode &node, const Files &files, Bundle *bundle) {
  BundleEncoder encoder;
  encoder.canvas = {SideOf(node.At("height")), SideOf(node.At("width"))};
  encoder.model.file = files.Named(node.At("file"));
  bundle->calibration.stride = static_cast<int>(node.At("stride").Integer(1, 1024));
  encoder.model.inputs =
      Tensors(node.At("inputs"),
              {{"image", "float32", {1, 3, encoder.canvas.height, encoder.canvas.width}, 0},
               {"size", "float32", {1, 2}, 0}});
  const JsonNode outputs = node.At("outputs");
  const std::vector<JsonNode> items = outputs.Items();
  const Shape map = items.empty() ? Shape{} : ParseTensor(items[0]).shape;
  const std::int64_t channels = map.size() == 4 ? map[3] : 1;
  const std::int64_t stride = bundle->calibration.stride;
  encoder.model.outputs =
      Tensors(outputs, {{"features",
                         "float32",
                         {1, (encoder.canvas.height + stride - 1) / stride,
                          (encoder.canvas.width + stride - 1) / stride, channels},
                         0}});
  bundle->encoder = encoder;
  return channels;
}

void ReadCalibration(const JsonNode &node, const Files &files, Bundle *bundle) {
  CalibrationParts &parts = bundle->calibration;
  const std::int64_t channels = ReadEncoder(node.At("encoder"), files, bundle);
  const Shape bias = ParseShape(node.At("projection_bias").At("shape"));
  const std::int64_t dimensions = bias.empty() ? 1 : bias[0];
  const auto classes = static_cast<std::int64_t>(bundle->classes.size());
  parts.channels = static_cast<std::size_t>(channels);
  parts.dimensions = static_cast<std::size_t>(dimensions);
  parts.bias = files.Array(node.At("projection_bias"), {dimensions});
  parts.weight = files.Array(node.At("projection_weight"), {dimensions, channels});
  parts.prototypes = files.Array(node.At("prototypes"), {classes, dimensions});
  for (const JsonNode &flag : node.At("calibrated").Items()) {
    parts.calibrated.push_back(flag.Flag());
  }
  if (parts.calibrated.size() != bundle->classes.size()) {
    node.At("calibrated")
        .Refuse("has " + std::to_string(parts.calibrated.size()) + " entries for " +
                std::to_string(classes) + " classes");
  }
  parts.alpha = static_cast<float>(node.At("alpha").Number(0, 1));
  parts.lower = static_cast<float>(node.At("lower").Number(0, 1));
  parts.upper = static_cast<float>(node.At("upper").Number(0, 1));
}

void ReadBundle(const JsonNode &root, const Files &files, Bundle *bundle) {
  bundle->classes = ReadClasses(root.At("classes"));
  ReadSizes(root.At("input"), root.At("detection"), bundle);
  ReadDetector(root.At("detector"), files, bundle);
  files.Check();
  const JsonNode calibration = root.At("calibration");
  if (!calibration.IsNull()) {
    ReadCalibration(calibration, files, bundle);
  }
}

}  // namespace

Bundle Bundle::Open(const fs::path &folder) {
  const fs::path path = folder / kBundleFile;
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    const bool packed = fs::is_regular_file(folder, error);
    throw InputError(packed ? folder.string() +
                                  " is a file, --bundle names a folder: unpack it "
                                  "with tar -xf and name what comes out"
                            : path.string() +
                                  " is missing: the folder is no bundle, or was not "
                                  "written to its end");
  }
  const nlohmann::json content = ReadObject(path);
  const JsonNode root(content);
  Bundle bundle;
  bundle.folder = folder;
  try {
    CheckFormat(root, path);
    CheckSum(path);
    ReadBundle(root, Files(folder, root.At("files")), &bundle);
  } catch (const InputError &problem) {
    const std::string text = problem.what();
    // What names a file of the bundle itself stays as it is.
    throw InputError(text.rfind(folder.string(), 0) == 0 ? text : path.string() + ": " + text);
  }
  return bundle;
}

}  // namespace defrcn

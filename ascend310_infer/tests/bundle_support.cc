// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "bundle_support.h"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "decode.h"
#include "sha256.h"

namespace defrcn::testing {
namespace {

using nlohmann::json;

json TensorJson(const char *name, const char *dtype, const std::vector<std::int64_t> &shape) {
  return {{"name", name}, {"dtype", dtype}, {"shape", shape}};
}

void WriteFloats(const fs::path &path, const std::vector<float> &values) {
  WriteText(path, std::string(reinterpret_cast<const char *>(values.data()),
                              values.size() * sizeof(float)));
}

json CalibrationJson(const fs::path &folder) {
  WriteText(folder / "encoder.mindir", "an encoder");
  WriteFloats(folder / "projection_weight.f32", {1, 0, 0, 1});
  WriteFloats(folder / "projection_bias.f32", {0, 0.5F});
  WriteFloats(folder / "prototypes.f32", {0, 1, 2, 1});
  return {
      {"encoder",
       {{"file", "encoder.mindir"},
        {"height", 64},
        {"width", 96},
        {"stride", 32},
        {"inputs",
         {TensorJson("image", "float32", {1, 3, 64, 96}), TensorJson("size", "float32", {1, 2})}},
        {"outputs", {TensorJson("features", "float32", {1, 2, 3, 2})}}}},
      {"projection_weight", {{"file", "projection_weight.f32"}, {"shape", {2, 2}}}},
      {"projection_bias", {{"file", "projection_bias.f32"}, {"shape", {2}}}},
      {"prototypes", {{"file", "prototypes.f32"}, {"shape", {2, 2}}}},
      {"calibrated", {true, false}},
      {"alpha", 0.5},
      {"lower", 0.05},
      {"upper", 1.0}};
}

}  // namespace

json MakeBundle(const fs::path &folder, bool calibrated) {
  fs::remove_all(folder);
  WriteText(folder / "detector.mindir", "a detector");
  json content = {
      {"format", "defrcn-bundle"},
      {"format_version", 1},
      {"mindspore", "2.8.0"},
      {"graph_format", "MINDIR"},
      {"mindir_version", 1},
      {"classes",
       {{{"label", "cat"}, {"category_id", 7}, {"novel", true}},
        {{"label", "dog"}, {"category_id", 3}, {"novel", false}}}},
      {"input",
       {{"height", 40}, {"width", 50}, {"min_size", 20}, {"max_size", 50}, {"max_pixels", 20000}}},
      {"detection",
       {{"score_threshold", 0.05}, {"nms_threshold", 0.5}, {"detections_per_image", 100}}},
      {"detector",
       {{"file", "detector.mindir"},
        {"inputs",
         {TensorJson("image", "float32", {1, 3, 40, 50}), TensorJson("image_id", "int32", {1}),
          TensorJson("image_meta", "float32", {1, 4})}},
        {"outputs",
         {TensorJson("boxes", "float32", {1, kProposals, 2, 4}),
          TensorJson("scores", "float32", {1, kProposals, 3}),
          TensorJson("valid", "int32", {1, kProposals}), TensorJson("info", "int32", {1, 4})}}}},
      {"calibration", calibrated ? CalibrationJson(folder) : json(nullptr)},
      {"checkpoint", {{"file", "a.ckpt"}, {"sha256", std::string(64, '0')}}},
      {"support_set", nullptr}};
  content["files"] = json::object();
  for (const auto &entry : fs::directory_iterator(folder)) {
    content["files"][entry.path().filename().string()] = {{"bytes", fs::file_size(entry.path())},
                                                          {"sha256", Sha256OfFile(entry.path())}};
  }
  WriteBundleJson(folder, content);
  return content;
}

void WriteBundleJson(const fs::path &folder, const json &content) {
  WriteText(folder / "bundle.json", content.dump(1));
  WriteSum(folder);
}

void WriteSum(const fs::path &folder) {
  WriteText(folder / "bundle.sha256", Sha256OfFile(folder / "bundle.json") + "  bundle.json\n");
}

void WriteListed(const fs::path &folder, const std::string &name, const std::string &content) {
  WriteText(folder / name, content);
  json bundle = ReadJson(folder / "bundle.json");
  bundle["files"][name] = {{"bytes", content.size()}, {"sha256", Sha256OfFile(folder / name)}};
  WriteBundleJson(folder, bundle);
}

Picture Plain(Size size, std::uint8_t red, std::uint8_t green, std::uint8_t blue) {
  Picture picture(size);
  for (std::size_t place = 0; place < picture.rgb.size(); place += 3) {
    picture.rgb[place] = red;
    picture.rgb[place + 1] = green;
    picture.rgb[place + 2] = blue;
  }
  return picture;
}

void WritePng(const fs::path &path, const Picture &picture) {
  const Buffer content = EncodePng(picture);
  WriteText(path, std::string(content.begin(), content.end()));
}

std::vector<Tensor> Found(const Bundle &bundle, const std::vector<Buffer> &inputs) {
  const auto pixels = ValuesOf<float>(inputs.at(0));
  const auto id = ValuesOf<std::int32_t>(inputs.at(1)).at(0);
  const float red = pixels[pixels.size() / 3 * 2];
  std::vector<float> boxes(kProposals * 2 * 4), scores(kProposals * 3);
  const float first[] = {2, 4, 12, 14}, second[] = {0, 0, 8, 8};
  std::copy(first, first + 4, boxes.begin());
  std::copy(second, second + 4, boxes.begin() + 12);
  scores[0] = red / 255.0F;
  scores[4] = 0.4F;
  scores[6] = 0.9F;  // of the proposal that is not valid
  const auto &infos = bundle.detector.outputs;
  return {TensorOf(infos[0], boxes), TensorOf(infos[1], scores),
          TensorOf(infos[2], std::vector<std::int32_t>{1, 1, 0}),
          TensorOf(infos[3], std::vector<std::int32_t>{id, 2, 0, 0})};
}

std::unique_ptr<FunctionEngine> FakeDetector(const Bundle &bundle) {
  return std::make_unique<FunctionEngine>(
      bundle.detector.inputs,
      [&bundle](const std::vector<Buffer> &inputs) { return Found(bundle, inputs); });
}

std::unique_ptr<FunctionEngine> FakeEncoder(const Bundle &bundle, float feature) {
  const BundleModel &model = bundle.encoder->model;
  return std::make_unique<FunctionEngine>(
      model.inputs, [&model, feature](const std::vector<Buffer> &) {
        std::vector<float> map(12);
        for (std::size_t place = 0; place < map.size(); place += 2) {
          map[place] = feature;
        }
        return std::vector<Tensor>{TensorOf(model.outputs[0], map)};
      });
}

}  // namespace defrcn::testing

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "support.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace defrcn::testing {

void WriteText(const fs::path &path, const std::string &text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

nlohmann::json ReadJson(const fs::path &path) {
  std::ifstream stream(path);
  return nlohmann::json::parse(stream);
}

std::string Stem(std::size_t index) {
  const std::string number = std::to_string(index);
  return std::string(6 - number.size(), '0') + number;
}

nlohmann::json Manifest(std::size_t count) {
  nlohmann::json manifest;
  manifest["inputs"] = {
      {{"name", "image"},
       {"dtype", "float32"},
       {"shape", {1, 3, kHeight, kWidth}},
       {"folder", "eval_img_bin"}},
      {{"name", "image_id"}, {"dtype", "int32"}, {"shape", {1}}, {"folder", "eval_id_bin"}}};
  manifest["images"] = nlohmann::json::array();
  for (std::size_t index = 0; index < count; ++index) {
    manifest["images"].push_back({{"stem", Stem(index)}, {"image_id", 100 + index}});
  }
  return manifest;
}

void MakeDataset(const fs::path &folder, std::size_t count) {
  for (std::size_t index = 0; index < count; ++index) {
    const std::vector<float> pixels(3 * kHeight * kWidth, static_cast<float>(index));
    WriteText(folder / "eval_img_bin" / (Stem(index) + ".bin"),
              std::string(reinterpret_cast<const char *>(pixels.data()), kImageBytes));
    const auto id = static_cast<std::int32_t>(100 + index);
    WriteText(folder / "eval_id_bin" / (Stem(index) + ".bin"),
              std::string(reinterpret_cast<const char *>(&id), sizeof(id)));
  }
  WriteText(folder / "manifest.json", Manifest(count).dump());
}

}  // namespace defrcn::testing

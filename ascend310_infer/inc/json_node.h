// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Strict reading of JSON: what is missing, of another type or out of range is named by its path.
#ifndef DEFRCN_JSON_NODE_H_
#define DEFRCN_JSON_NODE_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "engine.h"

namespace defrcn {

// Reads a file that holds one JSON object. Throws InputError, which names the file.
nlohmann::json ReadObject(const std::filesystem::path &path);

// A name that stays in its folder. Throws InputError.
std::string PlainName(const std::string &name);

// A value and its path, such as "detection.nms_threshold". Every function throws InputError, which
// says the path. The value must live longer.
class JsonNode {
 public:
  explicit JsonNode(const nlohmann::json &value, std::string path = "")
      : value_(&value), path_(std::move(path)) {}

  bool Has(const char *key) const;
  bool IsNull() const;
  JsonNode At(const char *key) const;
  std::vector<JsonNode> Items() const;  // of a list
  // Keys and values of an object.
  std::vector<std::pair<std::string, JsonNode>> Members() const;

  std::int64_t Integer(std::int64_t low, std::int64_t high) const;
  double Number(double low, double high) const;  // finite
  std::string Text() const;
  bool Flag() const;

  const std::string &Path() const { return path_; }
  // Throws InputError: "<path> <what>".
  [[noreturn]] void Refuse(const std::string &what) const;

 private:
  const nlohmann::json *value_;
  std::string path_;
};

// {"name": …, "dtype": …, "shape": […]}; numpy's name of a type, sides from 1.
TensorInfo ParseTensor(const JsonNode &node);

// Of an array: sides from 1, at most 2^31 elements.
std::vector<std::int64_t> ParseShape(const JsonNode &node);

std::int64_t NumElements(const std::vector<std::int64_t> &shape);

}  // namespace defrcn

#endif  // DEFRCN_JSON_NODE_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "json_node.h"

#include <cmath>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "error.h"

namespace defrcn {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxElements = std::int64_t{1} << 31;

std::string Plain(double value) {
  std::ostringstream text;
  text << value;
  return text.str();
}

std::size_t ItemSize(const JsonNode &node, const std::string &dtype) {
  static const std::map<std::string, std::size_t> kSizes = {
      {"bool", 1},  {"int8", 1},    {"uint8", 1}, {"int16", 2},  {"float16", 2},
      {"int32", 4}, {"float32", 4}, {"int64", 8}, {"uint32", 4}, {"float64", 8}};
  const auto found = kSizes.find(dtype);
  if (found == kSizes.end()) {
    throw InputError(node.Path() + ": the type '" + dtype + "' is not known");
  }
  return found->second;
}

}  // namespace

json ReadObject(const std::filesystem::path &path) {
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

std::string PlainName(const std::string &name) {
  if (name.empty() || name == "." || name == ".." || name.find('/') != std::string::npos ||
      name.find('\0') != std::string::npos) {
    throw InputError("the name '" + name + "' is not that of a file in the folder");
  }
  return name;
}

bool JsonNode::Has(const char *key) const { return value_->is_object() && value_->contains(key); }

bool JsonNode::IsNull() const { return value_->is_null(); }

void JsonNode::Refuse(const std::string &what) const { throw InputError(path_ + " " + what); }

JsonNode JsonNode::At(const char *key) const {
  const std::string path = path_.empty() ? key : path_ + "." + key;
  if (!Has(key)) {
    throw InputError(path + " is missing");
  }
  return JsonNode(value_->at(key), path);
}

std::vector<JsonNode> JsonNode::Items() const {
  if (!value_->is_array()) {
    Refuse("is no list");
  }
  std::vector<JsonNode> items;
  for (std::size_t place = 0; place < value_->size(); ++place) {
    items.emplace_back((*value_)[place], path_ + "[" + std::to_string(place) + "]");
  }
  return items;
}

std::vector<std::pair<std::string, JsonNode>> JsonNode::Members() const {
  if (!value_->is_object()) {
    Refuse("is no object");
  }
  std::vector<std::pair<std::string, JsonNode>> members;
  for (const auto &[key, value] : value_->items()) {
    members.emplace_back(key, JsonNode(value, path_ + "." + key));
  }
  return members;
}

std::int64_t JsonNode::Integer(std::int64_t low, std::int64_t high) const {
  const bool fits = value_->is_number_unsigned()
                        ? value_->get<std::uint64_t>() <=
                              static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())
                        : value_->is_number_integer();
  const std::int64_t value = fits ? value_->get<std::int64_t>() : 0;
  if (!fits || value < low || value > high) {
    Refuse("is not a whole number from " + std::to_string(low) + " to " + std::to_string(high));
  }
  return value;
}

double JsonNode::Number(double low, double high) const {
  const double value = value_->is_number() ? value_->get<double>() : std::nan("");
  if (!(value >= low && value <= high)) {
    Refuse("is not a number from " + Plain(low) + " to " + Plain(high));
  }
  return value;
}

std::string JsonNode::Text() const {
  if (!value_->is_string()) {
    Refuse("is no text");
  }
  return value_->get<std::string>();
}

bool JsonNode::Flag() const {
  if (!value_->is_boolean()) {
    Refuse("is neither true nor false");
  }
  return value_->get<bool>();
}

std::vector<std::int64_t> ParseShape(const JsonNode &node) {
  std::vector<std::int64_t> shape;
  std::int64_t elements = 1;
  for (const JsonNode &side : node.Items()) {
    shape.push_back(side.Integer(1, kMaxElements));
    if (shape.back() > kMaxElements / elements) {
      node.Refuse("is larger than any array may be");
    }
    elements *= shape.back();
  }
  return shape;
}

std::int64_t NumElements(const std::vector<std::int64_t> &shape) {
  std::int64_t elements = 1;
  for (const std::int64_t side : shape) {
    elements *= side;
  }
  return elements;
}

TensorInfo ParseTensor(const JsonNode &node) {
  TensorInfo tensor;
  tensor.name = node.At("name").Text();
  tensor.dtype = node.At("dtype").Text();
  tensor.shape = ParseShape(node.At("shape"));
  tensor.bytes = static_cast<std::size_t>(NumElements(tensor.shape)) *
                 ItemSize(node.At("dtype"), tensor.dtype);
  return tensor;
}

}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// A small bundle, pictures, and engines that stand for its graphs.
#ifndef DEFRCN_TESTS_BUNDLE_SUPPORT_H_
#define DEFRCN_TESTS_BUNDLE_SUPPORT_H_

#include <atomic>
#include <functional>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "bundle.h"
#include "engine.h"
#include "picture.h"
#include "support.h"

namespace defrcn::testing {

// Of the bundle: two classes, three proposals, an input of 40 x 50 pixels (height x width) that
// pictures are brought to with a short edge of 20 and a long one of at most 50; with calibration an
// encoder for 64 x 96 pixels, maps of 2 x 3 cells with 2 channels, vectors of 2 numbers.
constexpr int kProposals = 3;

// Makes the folder anew; returns what bundle.json says.
nlohmann::json MakeBundle(const fs::path &folder, bool calibrated);

// Replace bundle.json, or a file and what bundle.json says of its bytes.
void WriteBundleJson(const fs::path &folder, const nlohmann::json &content);

// bundle.sha256 of the bundle.json that is there.
void WriteSum(const fs::path &folder);
void WriteListed(const fs::path &folder, const std::string &name, const std::string &content);

// One colour everywhere.
Picture Plain(Size size, std::uint8_t red, std::uint8_t green, std::uint8_t blue);

void WritePng(const fs::path &path, const Picture &picture);

// Runs a function; counts.
class FunctionEngine : public Engine {
 public:
  using Body = std::function<std::vector<Tensor>(const std::vector<Buffer> &)>;

  FunctionEngine(std::vector<TensorInfo> inputs, Body body)
      : infos_(std::move(inputs)), body_(std::move(body)) {}

  const std::vector<TensorInfo> &Inputs() const override { return infos_; }
  std::vector<Tensor> Run(const std::vector<Buffer> &inputs) override {
    ++calls;
    return body_(inputs);
  }

  std::atomic<int> calls{0};

 private:
  std::vector<TensorInfo> infos_;
  Body body_;
};

// Finds in every picture class 0 at (2, 4, 12, 14) with a score of the first red value / 255, and
// class 1 at (0, 0, 8, 8) with 0.4; model frame.
std::vector<Tensor> Found(const Bundle &bundle, const std::vector<Buffer> &inputs);

std::unique_ptr<FunctionEngine> FakeDetector(const Bundle &bundle);

// A map of (feature, 0) in all cells.
std::unique_ptr<FunctionEngine> FakeEncoder(const Bundle &bundle, float feature = 1.0F);

template <typename T>
std::vector<T> ValuesOf(const Buffer &buffer) {
  std::vector<T> values(buffer.size() / sizeof(T));
  std::memcpy(values.data(), buffer.data(), values.size() * sizeof(T));
  return values;
}

template <typename T>
Tensor TensorOf(const TensorInfo &info, const std::vector<T> &values) {
  Tensor tensor{info, Buffer(values.size() * sizeof(T))};
  std::memcpy(tensor.data.data(), values.data(), tensor.data.size());
  return tensor;
}

}  // namespace defrcn::testing

#endif  // DEFRCN_TESTS_BUNDLE_SUPPORT_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// A folder that vanishes, a small data set in it, and an engine without a model.
#ifndef DEFRCN_TESTS_SUPPORT_H_
#define DEFRCN_TESTS_SUPPORT_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "engine.h"
#include "error.h"

namespace defrcn::testing {

namespace fs = std::filesystem;

constexpr std::int64_t kHeight = 4;
constexpr std::int64_t kWidth = 6;
constexpr std::size_t kImageBytes = 3 * kHeight * kWidth * sizeof(float);

class Folder {
 public:
  Folder() {
    std::string name = (fs::temp_directory_path() / "defrcn-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) {
      throw std::runtime_error("no temporary folder");
    }
    path_ = name;
  }
  Folder(const Folder &) = delete;
  Folder &operator=(const Folder &) = delete;
  ~Folder() { fs::remove_all(path_); }

  fs::path operator/(const std::string &name) const { return path_ / name; }
  const fs::path &Path() const { return path_; }

 private:
  fs::path path_;
};

void WriteText(const fs::path &path, const std::string &text);

nlohmann::json ReadJson(const fs::path &path);

template <typename T>
std::vector<T> ReadValues(const fs::path &path) {
  std::vector<T> values(fs::file_size(path) / sizeof(T));
  std::ifstream(path, std::ios::binary)
      .read(reinterpret_cast<char *>(values.data()),
            static_cast<std::streamsize>(values.size() * sizeof(T)));
  return values;
}

// "000012"
std::string Stem(std::size_t index);

nlohmann::json Manifest(std::size_t count);

// Image k holds k everywhere, its id is 100 + k.
void MakeDataset(const fs::path &folder, std::size_t count);

inline std::vector<TensorInfo> ModelInputs() {
  return {{"x", "float32", {1, 3, kHeight, kWidth}, kImageBytes}, {"y", "int32", {1}, 4}};
}

// Output 0 is the image's first pixel twice, output 1 its id.
class FakeEngine : public Engine {
 public:
  explicit FakeEngine(int milliseconds = 0, int fail_at = -1)
      : infos_(ModelInputs()), milliseconds_(milliseconds), fail_at_(fail_at) {}

  const std::vector<TensorInfo> &Inputs() const override { return infos_; }

  std::vector<Tensor> Run(const std::vector<Buffer> &inputs) override {
    std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds_));
    float pixel = 0.0F;
    std::memcpy(&pixel, inputs.at(0).data(), sizeof(pixel));
    ++calls;
    if (static_cast<int>(pixel) == fail_at_) {
      throw std::runtime_error("the device is gone");
    }
    Tensor twice{{"twice", "float32", {1}, 4}, Buffer(4)};
    const float value = 2.0F * pixel;
    std::memcpy(twice.data.data(), &value, sizeof(value));
    return {twice, {{"id", "int32", {1}, 4}, inputs.at(1)}};
  }

  std::atomic<int> calls{0};

 protected:
  std::vector<TensorInfo> infos_;

 private:
  int milliseconds_;
  int fail_at_;
};

// What an exception of that type says; a failed expectation if none is thrown.
template <typename Error, typename Body>
std::string MessageOf(Body body) {
  try {
    body();
  } catch (const Error &error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

#define EXPECT_SAYS(text, part) \
  EXPECT_NE((text).find(part), std::string::npos) << "'" << (text) << "' lacks '" << (part) << "'"

}  // namespace defrcn::testing

#endif  // DEFRCN_TESTS_SUPPORT_H_

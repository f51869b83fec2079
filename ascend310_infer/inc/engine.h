// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// What runs a model. Everything but lite_engine.cc knows only this, so the rest is tested without
// MindSpore Lite.
#ifndef DEFRCN_ENGINE_H_
#define DEFRCN_ENGINE_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "file_io.h"

namespace defrcn {

struct TensorInfo {
  std::string name;
  std::string dtype;  // numpy's name, such as float32
  std::vector<std::int64_t> shape;
  std::size_t bytes = 0;
};

struct Tensor {
  TensorInfo info;
  Buffer data;  // little endian, C order
};

// "float32 (1, 3, 608, 1008)"
std::string Describe(const TensorInfo &info);

// Throws InputError unless number, order, types and sizes of a model's inputs are those that
// `source` lists; `remedy` says what to do otherwise.
void CheckModelInputs(const std::vector<TensorInfo> &model, const std::vector<TensorInfo> &ours,
                      const std::string &source, const std::string &remedy);

class Engine {
 public:
  virtual ~Engine() = default;

  // The model's inputs, in order.
  virtual const std::vector<TensorInfo> &Inputs() const = 0;

  // Runs the model once. `inputs` have the sizes that Inputs() says. Throws std::runtime_error.
  virtual std::vector<Tensor> Run(const std::vector<Buffer> &inputs) = 0;
};

}  // namespace defrcn

#endif  // DEFRCN_ENGINE_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "lite_engine.h"

// The wheel of 2.0.0 has its headers in include/api, newer trees in include/cxx_api as well.
#if __has_include("include/api/model.h")
#include "include/api/context.h"
#include "include/api/model.h"
#include "include/api/status.h"
#include "include/api/types.h"
#else
#include "include/cxx_api/context.h"
#include "include/cxx_api/model.h"
#include "include/cxx_api/status.h"
#include "include/cxx_api/types.h"
#endif

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "app.h"
#include "error.h"

namespace defrcn {
namespace {

namespace lite = mindspore;

std::string TypeName(lite::DataType type) {
  switch (type) {
    case lite::DataType::kNumberTypeBool:
      return "bool";
    case lite::DataType::kNumberTypeInt8:
      return "int8";
    case lite::DataType::kNumberTypeUInt8:
      return "uint8";
    case lite::DataType::kNumberTypeInt16:
      return "int16";
    case lite::DataType::kNumberTypeInt32:
      return "int32";
    case lite::DataType::kNumberTypeUInt32:
      return "uint32";
    case lite::DataType::kNumberTypeInt64:
      return "int64";
    case lite::DataType::kNumberTypeFloat16:
      return "float16";
    case lite::DataType::kNumberTypeFloat32:
      return "float32";
    case lite::DataType::kNumberTypeFloat64:
      return "float64";
    default:
      return "type " + std::to_string(static_cast<int>(type));
  }
}

TensorInfo InfoOf(const lite::MSTensor &tensor) {
  return {tensor.Name(), TypeName(tensor.DataType()), tensor.Shape(), tensor.DataSize()};
}

std::shared_ptr<lite::DeviceInfoContext> CpuInfo() {
  auto info = std::make_shared<lite::CPUDeviceInfo>();
  info->SetEnableFP16(false);
  return info;
}

std::shared_ptr<lite::DeviceInfoContext> GpuInfo(const Options &options) {
  auto info = std::make_shared<lite::GPUDeviceInfo>();
  info->SetDeviceID(static_cast<std::uint32_t>(options.device_id));
  info->SetEnableFP16(options.precision_mode == "enforce_fp16" ||
                      options.precision_mode == "preferred_optimal");
  return info;
}

std::shared_ptr<lite::DeviceInfoContext> AscendInfo(const Options &options) {
  auto info = std::make_shared<lite::AscendDeviceInfo>();
  info->SetDeviceID(static_cast<std::uint32_t>(options.device_id));
  info->SetPrecisionMode(options.precision_mode);
  return info;
}

std::shared_ptr<lite::Context> MakeContext(const Options &options, Device device) {
  auto context = std::make_shared<lite::Context>();
  context->SetThreadNum(ThreadsOf(options, std::thread::hardware_concurrency()));
  auto &devices = context->MutableDeviceInfo();
  switch (device) {
    case Device::kCpu:
      devices.push_back(CpuInfo());
      break;
    case Device::kGpu:
      devices.push_back(GpuInfo(options));
      break;
    case Device::kAscend:
      devices.push_back(AscendInfo(options));
      break;
  }
  return context;
}

class LiteEngine : public Engine {
 public:
  explicit LiteEngine(const Options &options) {
    const Device device = ParseDevice(options.device_type);
    if (!options.config_file.empty()) {
      Check(model_.LoadConfig(options.config_file), "--config_file " + options.config_file);
    }
    const lite::Status built =
        model_.Build(options.mindir_path, lite::ModelType::kMindIR, MakeContext(options, device));
    if (built != lite::kSuccess) {
      throw InputError(
          options.mindir_path + " cannot be built for " + std::string(DeviceName(device)) +
          " (device " + std::to_string(options.device_id) + "): " + built.ToString() +
          "; see Lite's messages above. Either this machine lacks the device or its driver, or the "
          "file is not one for this Lite: mindspore-lite 2.0.0 takes what export.py writes with "
          "--mindir_version=1");
    }
    inputs_ = model_.GetInputs();
    ResizeTo(options);
    for (const lite::MSTensor &tensor : inputs_) {
      infos_.push_back(InfoOf(tensor));
    }
  }

  const std::vector<TensorInfo> &Inputs() const override { return infos_; }

  std::vector<Tensor> Run(const std::vector<Buffer> &inputs) override {
    for (std::size_t place = 0; place < inputs_.size(); ++place) {
      void *data = inputs_[place].MutableData();
      if (data == nullptr || inputs_[place].DataSize() != inputs.at(place).size()) {
        throw std::runtime_error("Lite has no room for input " + std::to_string(place));
      }
      std::memcpy(data, inputs[place].data(), inputs[place].size());
    }
    std::vector<lite::MSTensor> outputs;
    Check(model_.Predict(inputs_, &outputs), "running the model");
    std::vector<Tensor> results;
    results.reserve(outputs.size());
    for (lite::MSTensor &output : outputs) {
      results.push_back(CopyOf(&output));
    }
    return results;
  }

 private:
  static void Check(const lite::Status &status, const std::string &what) {
    if (status != lite::kSuccess) {
      throw std::runtime_error(what + " failed: " + status.ToString());
    }
  }

  static Tensor CopyOf(lite::MSTensor *output) {
    Tensor tensor{InfoOf(*output), Buffer(output->DataSize())};
    const void *data = output->MutableData();  // on the host, copied there if need be
    if (data == nullptr && !tensor.data.empty()) {
      throw std::runtime_error("Lite gave no data for output '" + tensor.info.name + "'");
    }
    if (!tensor.data.empty()) {
      std::memcpy(tensor.data.data(), data, tensor.data.size());
    }
    return tensor;
  }

  // A model with free height and width takes the image's.
  void ResizeTo(const Options &options) {
    bool free = false;
    std::vector<std::vector<std::int64_t>> shapes;
    for (const lite::MSTensor &tensor : inputs_) {
      shapes.push_back(tensor.Shape());
      free = free || std::any_of(shapes.back().begin(), shapes.back().end(),
                                 [](std::int64_t side) { return side < 0; });
    }
    if (!free) {
      return;
    }
    if (shapes[0].size() != 4) {
      throw InputError(options.mindir_path + ": its first input is no image (1, 3, H, W)");
    }
    shapes[0] = {1, 3, options.image_height, options.image_width};
    Check(model_.Resize(inputs_, shapes), "resizing the model");
    inputs_ = model_.GetInputs();
  }

  lite::Model model_;
  std::vector<lite::MSTensor> inputs_;
  std::vector<TensorInfo> infos_;
};

}  // namespace

std::unique_ptr<Engine> MakeLiteEngine(const Options &options) {
  return std::make_unique<LiteEngine>(options);
}

}  // namespace defrcn

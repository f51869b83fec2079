// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "bundle_detector.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "decode.h"
#include "error.h"
#include "statistics.h"

namespace defrcn {
namespace {

constexpr char kOtherGraph[] = "the graph is not the one that bundle.json describes";

double MillisecondsSince(Clock::time_point start) { return SecondsSince(start) * 1000.0; }

// Into (1, 3, height, width) float32 at the top left: blue, green, red; zeros beyond.
void FillImage(const Picture &picture, Size canvas, Buffer *tensor) {
  auto *values = reinterpret_cast<float *>(tensor->data());
  std::fill(tensor->begin(), tensor->end(), std::uint8_t{0});
  const std::size_t plane =
      static_cast<std::size_t>(canvas.height) * static_cast<std::size_t>(canvas.width);
  for (int row = 0; row < picture.size.height; ++row) {
    const std::uint8_t *pixel = picture.At(row, 0);
    float *target = values + static_cast<std::size_t>(row) * static_cast<std::size_t>(canvas.width);
    for (int column = 0; column < picture.size.width; ++column, pixel += 3, ++target) {
      target[0] = pixel[2];
      target[plane] = pixel[1];
      target[2 * plane] = pixel[0];
    }
  }
}

template <typename T, std::size_t N>
void FillValues(const std::array<T, N> &values, Buffer *tensor) {
  std::memcpy(tensor->data(), values.data(), sizeof(values));
}

std::vector<Buffer> Room(const std::vector<TensorInfo> &inputs) {
  std::vector<Buffer> room;
  for (const TensorInfo &input : inputs) {
    room.emplace_back(input.bytes);
  }
  return room;
}

std::vector<Tensor> RunChecked(const BundleModel &model, const std::vector<Buffer> &inputs,
                               Engine *engine) {
  std::vector<Tensor> outputs = engine->Run(inputs);
  const std::string name = model.file.filename().string();
  if (outputs.size() != model.outputs.size()) {
    throw std::runtime_error(name + " gives " + std::to_string(outputs.size()) +
                             " outputs: " + kOtherGraph);
  }
  for (std::size_t place = 0; place < outputs.size(); ++place) {
    const TensorInfo &found = outputs[place].info, &wanted = model.outputs[place];
    if (found.dtype != wanted.dtype || found.shape != wanted.shape ||
        outputs[place].data.size() != wanted.bytes) {
      throw std::runtime_error("output '" + wanted.name + "' of " + name + " is " +
                               Describe(found) + " instead of " + Describe(wanted) + ": " +
                               kOtherGraph);
    }
  }
  return outputs;
}

bool FitsInto(const Size &size, const Size &room) {
  return size.height <= room.height && size.width <= room.width;
}

std::string DoesNotFit(const std::string &what, const Size &size, const std::string &where,
                       const Size &room) {
  return what + " is " + Describe(size) + ", " + where + " holds " + Describe(room) +
         " (width x height): write a bundle for larger pictures";
}

PictureIn ReadGood(const Bundle &bundle, const std::filesystem::path &path, bool draw) {
  PictureIn result;
  Clock::time_point start = Clock::now();
  const Buffer content = ReadRegular(path, std::numeric_limits<std::int32_t>::max());
  Decoded decoded = Decode(content, bundle.max_pixels);
  result.image = decoded.picture.size;
  result.times.decode = MillisecondsSince(start);
  const Size size = ResizedSize(result.image, bundle.min_size, bundle.max_size);
  if (!FitsInto(size, bundle.input)) {
    throw InputError(
        DoesNotFit("the picture after resizing", size, "the detector's input", bundle.input));
  }
  start = Clock::now();
  result.resized = Resized(decoded.picture, size);
  result.times.resize = MillisecondsSince(start);
  // What is too large for the encoder is refused when it is needed there.
  if (bundle.encoder && FitsInto(result.image, bundle.encoder->canvas)) {
    if (decoded.by_opencv) {
      result.for_encoder = std::move(*decoded.by_opencv);
    } else if (draw) {
      result.for_encoder = decoded.picture;
    } else {
      result.for_encoder = std::move(decoded.picture);
    }
  }
  if (draw) {
    result.picture = std::move(decoded.picture);
  }
  return result;
}

}  // namespace

PictureIn ReadPicture(const Bundle &bundle, const std::filesystem::path &path, std::size_t index,
                      bool draw) {
  PictureIn result;
  try {
    result = ReadGood(bundle, path, draw);
  } catch (const InputError &error) {
    const std::string text = error.what(), prefix = path.string() + ": ";
    result.problem = text.rfind(prefix, 0) == 0 ? text.substr(prefix.size()) : text;
  } catch (const std::bad_alloc &) {
    result.problem = "there is not enough memory to decode it";
  }
  result.index = index;
  return result;
}

BundleDetector::BundleDetector(const Bundle &bundle, double shown, std::unique_ptr<Engine> detector,
                               std::unique_ptr<Engine> encoder)
    : bundle_(bundle),
      shown_(shown),
      rules_(bundle.rules),
      detector_(std::move(detector)),
      encoder_(std::move(encoder)),
      detector_inputs_(Room(bundle.detector.inputs)) {
  rules_.score_threshold =
      LowestScore(rules_.score_threshold, shown, /*calibrated=*/bundle.encoder.has_value());
  CheckModelInputs(detector_->Inputs(), bundle.detector.inputs, bundle.detector.file.string(),
                   kOtherGraph);
  if (bundle.encoder) {
    const BundleModel &model = bundle.encoder->model;
    CheckModelInputs(encoder_->Inputs(), model.inputs, model.file.string(), kOtherGraph);
    encoder_inputs_ = Room(model.inputs);
  }
}

void BundleDetector::WarmUp() {
  const auto height = static_cast<float>(bundle_.input.height);
  const auto width = static_cast<float>(bundle_.input.width);
  FillValues(std::array<float, 4>{height, width, height, width}, &detector_inputs_[2]);
  RunChecked(bundle_.detector, detector_inputs_, detector_.get());
  if (bundle_.encoder) {
    const Size &canvas = bundle_.encoder->canvas;
    FillValues(
        std::array<float, 2>{static_cast<float>(canvas.height), static_cast<float>(canvas.width)},
        &encoder_inputs_[1]);
    RunChecked(bundle_.encoder->model, encoder_inputs_, encoder_.get());
  }
}

PictureOut BundleDetector::Look(PictureIn picture) {
  PictureOut result;
  result.index = picture.index;
  result.first_time = picture.first_time;
  result.problem = std::move(picture.problem);
  result.image = picture.image;
  result.times = picture.times;
  if (!result.problem.empty()) {
    return result;
  }
  const Clock::time_point start = Clock::now();
  try {
    std::vector<Detection> detections = Detect(picture, &result);
    if (bundle_.encoder) {
      CalibrateScores(picture, &detections, &result);
    }
    result.detections = Shown(std::move(detections), shown_);
  } catch (const InputError &error) {
    result.problem = error.what();
    return result;
  }
  result.picture = std::move(picture.picture);
  result.times.rest = MillisecondsSince(start) - result.times.detector - result.times.encoder;
  return result;
}

std::vector<Detection> BundleDetector::Detect(const PictureIn &picture, PictureOut *result) {
  const Size model = picture.resized.size;
  FillImage(picture.resized, bundle_.input, &detector_inputs_[0]);
  FillValues(std::array<std::int32_t, 1>{static_cast<std::int32_t>(picture.index)},
             &detector_inputs_[1]);
  FillValues(std::array<float, 4>{static_cast<float>(model.height), static_cast<float>(model.width),
                                  static_cast<float>(picture.image.height),
                                  static_cast<float>(picture.image.width)},
             &detector_inputs_[2]);
  const Clock::time_point start = Clock::now();
  const std::vector<Tensor> outputs =
      RunChecked(bundle_.detector, detector_inputs_, detector_.get());
  result->times.detector = MillisecondsSince(start);

  std::array<std::int32_t, 4> info = {};
  std::memcpy(info.data(), outputs[3].data.data(), sizeof(info));
  if (info[3] != 0) {
    throw std::runtime_error(bundle_.detector.file.string() +
                             " gives boxes in the picture's own frame: " + kOtherGraph);
  }
  if (info[2] != 0) {
    throw InputError("suppression of proposals was not complete (" + std::to_string(info[2]) +
                     " undecided): lower model.rpn.pre_nms_topk_test when the bundle is written");
  }
  DetectorOutputs found;
  found.proposals = bundle_.Proposals();
  found.classes = bundle_.classes.size();
  found.boxes = reinterpret_cast<const float *>(outputs[0].data.data());
  found.scores = reinterpret_cast<const float *>(outputs[1].data.data());
  found.valid = reinterpret_cast<const std::int32_t *>(outputs[2].data.data());
  return ToImageFrame(FinalDetections(found, rules_), model, picture.image);
}

void BundleDetector::CalibrateScores(const PictureIn &picture, std::vector<Detection> *detections,
                                     PictureOut *result) {
  const std::vector<std::size_t> places = CalibratedPlaces(bundle_.calibration, *detections);
  if (places.empty()) {
    return;
  }
  const BundleEncoder &encoder = *bundle_.encoder;
  if (!FitsInto(picture.image, encoder.canvas)) {
    throw InputError(DoesNotFit("the picture", picture.image,
                                "the input of the calibration block's encoder", encoder.canvas));
  }
  FillImage(picture.for_encoder, encoder.canvas, &encoder_inputs_[0]);
  FillValues(std::array<float, 2>{static_cast<float>(picture.image.height),
                                  static_cast<float>(picture.image.width)},
             &encoder_inputs_[1]);
  const Clock::time_point start = Clock::now();
  const std::vector<Tensor> outputs = RunChecked(encoder.model, encoder_inputs_, encoder_.get());
  result->times.encoder = MillisecondsSince(start);
  const int stride = bundle_.calibration.stride;
  FeatureMap map;
  map.data = reinterpret_cast<const float *>(outputs[0].data.data());
  map.rows = (picture.image.height + stride - 1) / stride;
  map.columns = (picture.image.width + stride - 1) / stride;
  map.row_cells = static_cast<int>(encoder.model.outputs[0].shape[2]);
  Calibrate(bundle_.calibration, map, places, detections);
}

}  // namespace defrcn

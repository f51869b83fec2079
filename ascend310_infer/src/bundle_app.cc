// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "bundle_app.h"

#include <filesystem>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "bundle.h"
#include "bundle_detector.h"
#include "detection_writer.h"
#include "error.h"
#include "folder_lock.h"
#include "picture_list.h"
#include "pipeline.h"
#include "stages.h"
#include "statistics.h"
#include "utf8.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;

void CheckOutput(const Options &options) {
  for (const std::string &taken : {options.input, options.bundle}) {
    std::error_code error;
    if (fs::is_directory(taken, error) && fs::equivalent(taken, options.output, error)) {
      throw InputError("--output: " + options.output +
                       " is a folder that is read from; name another one");
    }
  }
}

// No picture may lie where drawn ones go: they are replaced, and removed by a later run.
void CheckPictures(const Options &options, const std::vector<PictureFile> &pictures) {
  const fs::path output = options.output;
  std::error_code error;
  const fs::path drawn = fs::weakly_canonical(output / "pictures", error);
  const fs::path sheet = fs::weakly_canonical(output / "sheet.png", error);  // of src.predict
  for (const PictureFile &picture : pictures) {
    const fs::path real = fs::weakly_canonical(picture.path, error);
    const fs::path place = real.lexically_relative(drawn);
    if (real == sheet || (!place.empty() && *place.begin() != "..")) {
      throw InputError("--output: " + picture.path.string() +
                       " lies where drawn pictures go; name another folder");
    }
  }
}

// A place that cannot be written to is told before anything is built.
void CheckTimeFile(const fs::path &file) {
  MakeFolder(file.parent_path());
  std::error_code error;
  if (fs::is_directory(file, error)) {
    throw InputError("--time_path: " + file.string() + " is a folder; name another place");
  }
  fs::path trial = file;
  trial += ".trial";
  WriteAtomically(trial, "");
  fs::remove(trial);
}

std::unique_ptr<Engine> BuildEngine(const Options &options, const BundleModel &model,
                                    const EngineMaker &make_engine) {
  Options own = options;
  own.mindir_path = model.file.string();
  own.image_height = static_cast<int>(model.inputs[0].shape[2]);
  own.image_width = static_cast<int>(model.inputs[0].shape[3]);
  return make_engine(own);
}

std::vector<std::unique_ptr<BundleDetector>> BuildDetectors(const Options &options,
                                                            const Bundle &bundle,
                                                            const EngineMaker &make_engine,
                                                            const std::atomic<bool> *stop) {
  std::vector<std::unique_ptr<BundleDetector>> detectors;
  for (int instance = 0; instance < options.instances; ++instance) {
    auto detector = BuildEngine(options, bundle.detector, make_engine);
    auto encoder =
        bundle.encoder ? BuildEngine(options, bundle.encoder->model, make_engine) : nullptr;
    detectors.push_back(std::make_unique<BundleDetector>(bundle, options.score_threshold,
                                                         std::move(detector), std::move(encoder)));
    for (int call = 0; call < options.warmup; ++call) {
      if (Stopped(stop)) {
        throw Interrupted();
      }
      detectors.back()->WarmUp();
    }
  }
  return detectors;
}

// The times of all pictures, part by part.
struct AllTimes {
  std::vector<double> decode, resize, detector, encoder, rest;

  void Add(const PartTimes &times) {
    decode.push_back(times.decode);
    resize.push_back(times.resize);
    detector.push_back(times.detector);
    if (times.encoder > 0.0) {
      encoder.push_back(times.encoder);
    }
    rest.push_back(times.rest);
  }

  void Into(Timing *timing) const {
    timing->predict_ms = Summarise(detector);
    timing->parts = {{"decoding", Summarise(decode)},
                     {"resizing", Summarise(resize)},
                     {"detector", timing->predict_ms},
                     {"encoder", Summarise(encoder)},
                     {"rest", Summarise(rest)}};
  }
};

// Every picture, `options.repeat` times; the detections of the first time are kept.
Timing LookAtAll(const Options &options, const Bundle &bundle,
                 const std::vector<PictureFile> &pictures,
                 const std::vector<std::unique_ptr<BundleDetector>> &detectors,
                 const std::atomic<bool> *stop, std::ostream *out, DetectionWriter *writer) {
  Stages<PictureIn, PictureOut> stages;
  stages.count = pictures.size() * static_cast<std::size_t>(options.repeat);
  stages.readers = detectors.size();
  stages.queue = static_cast<std::size_t>(options.queue);
  stages.stop = stop;
  stages.read = [&](std::size_t number) {
    const std::size_t index = number % pictures.size();
    PictureIn picture;
    if (IsUtf8(pictures[index].name)) {
      picture = ReadPicture(bundle, pictures[index].path, index, options.draw);
    } else {
      picture.index = index;
      picture.problem = "this name is not UTF-8; rename it";
    }
    picture.first_time = number < pictures.size();
    return picture;
  };
  for (const auto &detector : detectors) {
    stages.workers.emplace_back(
        [&detector](PictureIn picture) { return detector->Look(std::move(picture)); });
  }
  AllTimes times;
  std::size_t done = 0;
  const auto progress = ProgressLines(stages.count, out);
  stages.write = [&](PictureOut picture) {
    PartTimes own = picture.times;
    const bool good = picture.problem.empty();
    if (picture.first_time) {
      own.rest += writer->Add(std::move(picture));
    }
    if (good) {
      times.Add(own);
    }
    progress(++done);
  };
  const Clock::time_point start = Clock::now();
  RunStages(stages);
  Timing timing;
  timing.wall_seconds = SecondsSince(start);
  times.Into(&timing);
  return timing;
}

}  // namespace

std::size_t RunBundle(const Options &options, const EngineMaker &make_engine,
                      const std::atomic<bool> *stop, std::ostream *out, std::ostream *problems) {
  CheckOptions(options);
  CheckOutput(options);
  const PictureList list = FindPictures(options.input, options.output);
  CheckPictures(options, list.pictures);
  for (const std::string &name : list.skipped) {
    *problems << name << " is no picture (JPEG or PNG) and left out" << std::endl;
  }
  const Bundle bundle = Bundle::Open(options.bundle);
  if (options.score_threshold < bundle.rules.score_threshold) {
    *problems << "--score_threshold " << options.score_threshold << " is below "
              << bundle.rules.score_threshold
              << ", under which this bundle makes no detections: export it with a lower "
                 "test.score_threshold"
              << std::endl;
  }
  const FolderLock alone(options.output);
  const fs::path time_file = fs::path(options.time_path) / kTimeFile;
  CheckTimeFile(time_file);
  std::error_code error;
  const bool times_too = fs::equivalent(options.time_path, options.output, error);
  DetectionWriter writer(options.output, bundle, list.pictures, options.draw, times_too);

  RunInfo run;
  run.model = fs::canonical(options.bundle).filename().string();
  run.device = DeviceName(ParseDevice(options.device_type));
  run.instances = static_cast<std::size_t>(options.instances);
  *out << "building " << options.bundle << " for " << run.device << std::endl;
  const Clock::time_point start = Clock::now();
  const auto detectors = BuildDetectors(options, bundle, make_engine, stop);
  const double load_seconds = SecondsSince(start);
  *out << "running " << list.pictures.size() << " images"
       << (options.repeat > 1 ? ", " + std::to_string(options.repeat) + " times" : "") << std::endl;
  std::string text;
  try {
    Timing timing = LookAtAll(options, bundle, list.pictures, detectors, stop, out, &writer);
    timing.load_seconds = load_seconds;
    timing.peak_memory_mb = PeakMemoryMb();
    text = TimingText(timing, run.device, run.instances);
    WriteAtomically(time_file, text);
    writer.Finish(run, timing, options.score_threshold);
  } catch (...) {
    writer.WritePart(options.score_threshold);
    throw;
  }
  *out << text << "results: " << options.output << std::endl;
  const std::vector<std::string> left_out = writer.Problems();
  for (const std::string &problem : left_out) {
    *problems << "error: " << problem << std::endl;
  }
  return left_out.size();
}

}  // namespace defrcn

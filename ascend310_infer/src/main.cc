// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Runs an exported detector over the folder that preprocess.py wrote, or a bundle over pictures:
// main --help says how.
#include <gflags/gflags.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "app.h"
#include "bundle_app.h"
#include "error.h"
#include "lite_engine.h"

DEFINE_string(mindir_path, "", "the model, as export.py wrote it");
DEFINE_string(dataset_path, "preprocess_Result", "the folder that preprocess.py wrote");
DEFINE_string(result_path, "result_Files", "folder for the results");
DEFINE_string(time_path, "time_Result", "folder for test_perform_static.txt");
DEFINE_string(device_type, "CPU", "CPU, GPU or Ascend");
DEFINE_int32(device_id, 0, "number of the device");
DEFINE_int32(IMAGEWIDTH, 0, "width of the model's image in pixels; 0: as preprocess.py wrote it");
DEFINE_int32(IMAGEHEIGHT, 0, "height of the model's image in pixels; 0: as preprocess.py wrote it");
DEFINE_bool(RESTOREBBOX, true,
            "boxes are in pixels of the original image; has to agree with the export");
DEFINE_string(precision_mode, "preferred_fp32",
              "Ascend and GPU: enforce_fp32, preferred_fp32, enforce_fp16, enforce_origin or "
              "preferred_optimal");
DEFINE_int32(instances, 1, "models that run side by side, each with its own memory");
DEFINE_int32(threads, 0, "CPU threads of each instance; 0: the cores shared out");
DEFINE_int32(queue, 4, "images read ahead, and results that wait to be written");
DEFINE_int32(warmup, 1, "calls of each instance before the time is taken");
DEFINE_string(config_file, "", "configuration of Lite, such as [ascend_context] for free shapes");
DEFINE_string(bundle, "", "a bundle's folder: runs it over the pictures of --input");
DEFINE_string(input, "", "a picture, a folder of pictures, or a .txt file with one path a line");
DEFINE_string(output, "", "folder for detections.json, images.json, problems.json, done.json");
DEFINE_double(score_threshold, 0.5, "detections with a lower score are left out");
DEFINE_bool(draw, false, "write the pictures with their detections, OUTPUT/pictures/NAME.png");
DEFINE_int32(repeat, 1, "go over the pictures so many times, for the times");

namespace {

constexpr int kFailed = 1;
constexpr int kUsage = 2;

std::atomic<bool> g_stop{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler may set it");

// The first signal ends the run in order, a second one at once.
void OnSignal(int number) {
  g_stop.store(true);
  std::signal(number, SIG_DFL);
}

defrcn::Options ReadFlags() {
  defrcn::Options options;
  options.mindir_path = FLAGS_mindir_path;
  options.dataset_path = FLAGS_dataset_path;
  options.result_path = FLAGS_result_path;
  options.time_path = FLAGS_time_path;
  options.device_type = FLAGS_device_type;
  options.precision_mode = FLAGS_precision_mode;
  options.config_file = FLAGS_config_file;
  options.device_id = FLAGS_device_id;
  options.image_width = FLAGS_IMAGEWIDTH;
  options.image_height = FLAGS_IMAGEHEIGHT;
  options.instances = FLAGS_instances;
  options.threads = FLAGS_threads;
  options.queue = FLAGS_queue;
  options.warmup = FLAGS_warmup;
  if (!gflags::GetCommandLineFlagInfoOrDie("RESTOREBBOX").is_default) {
    options.restore_bbox = FLAGS_RESTOREBBOX;
  }
  options.bundle = FLAGS_bundle;
  options.input = FLAGS_input;
  options.output = FLAGS_output;
  options.score_threshold = FLAGS_score_threshold;
  options.draw = FLAGS_draw;
  options.repeat = FLAGS_repeat;
  std::vector<gflags::CommandLineFlagInfo> flags;
  gflags::GetAllFlags(&flags);
  for (const auto &flag : flags) {
    if (!flag.is_default) {
      options.given.insert(flag.name);
    }
  }
  if (options.given.count("bundle") > 0 && options.given.count("time_path") == 0) {
    options.time_path = options.output;
  }
  return options;
}

// The exit status.
int Run(const defrcn::Options &options) {
  if (options.given.count("bundle") == 0) {
    defrcn::RunApp(options, defrcn::MakeLiteEngine, &g_stop, &std::cout);
    return EXIT_SUCCESS;
  }
  const std::size_t left_out =
      defrcn::RunBundle(options, defrcn::MakeLiteEngine, &g_stop, &std::cout, &std::cerr);
  return left_out > 0 ? kFailed : EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char **argv) {
  gflags::SetUsageMessage(
      "--mindir_path=FILE [--dataset_path=DIR] [--device_type=CPU] ..., or "
      "--bundle=DIR --input=PATH --output=DIR [--device_type=CPU] ...");
  gflags::ParseCommandLineFlags(&argc, &argv, /*remove_flags=*/true);
  if (argc > 1) {
    std::cerr << "error: '" << argv[1] << "' is no flag; see --help" << std::endl;
    return kUsage;
  }
  std::signal(SIGINT, OnSignal);
  std::signal(SIGTERM, OnSignal);
  try {
    return Run(ReadFlags());
  } catch (const defrcn::Interrupted &) {
    std::cerr << "interrupted: the results are not complete" << std::endl;
    return 128 + SIGINT;
  } catch (const std::exception &error) {
    std::cerr << "error: " << error.what() << std::endl;
    return kFailed;
  }
}

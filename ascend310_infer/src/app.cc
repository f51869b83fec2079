// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "app.h"

#include <algorithm>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "dataset.h"
#include "error.h"
#include "folder_lock.h"
#include "pipeline.h"
#include "result_writer.h"
#include "statistics.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;

std::vector<std::unique_ptr<Engine>> BuildEngines(const Options &options, const Dataset &dataset,
                                                  const EngineMaker &make_engine) {
  std::vector<std::unique_ptr<Engine>> engines;
  for (int instance = 0; instance < options.instances; ++instance) {
    engines.push_back(make_engine(options));
    dataset.CheckModel(engines.back()->Inputs());
  }
  return engines;
}

}  // namespace

int ThreadsOf(const Options &options, unsigned cores) {
  if (options.threads > 0) {
    return options.threads;
  }
  return std::max(1, static_cast<int>(cores) / options.instances);
}

void RunApp(Options options, const EngineMaker &make_engine, const std::atomic<bool> *stop,
            std::ostream *out) {
  CheckOptions(options);
  const Dataset dataset = Dataset::Open(options.dataset_path);
  dataset.CheckSize(options.image_height, options.image_width);
  options.image_height = static_cast<int>(dataset.Height());  // for a model of free size
  options.image_width = static_cast<int>(dataset.Width());
  dataset.CheckFiles();
  const ModelNote note = ModelNote::Open(options.mindir_path);
  note.CheckRestore(options.restore_bbox);
  const FolderLock alone(options.result_path);
  const fs::path time_file = fs::path(options.time_path) / kTimeFile;
  MakeFolder(options.time_path);
  WriteAtomically(time_file, "");  // a folder that cannot be written to is told now
  fs::remove(time_file);
  ResultWriter writer(options.result_path, note.output_names);

  RunInfo run;
  run.model = fs::path(options.mindir_path).filename().string();
  run.device = DeviceName(ParseDevice(options.device_type));
  run.instances = static_cast<std::size_t>(options.instances);
  run.restore_bbox = note.restore_bbox ? note.restore_bbox : options.restore_bbox;
  *out << "building " << run.model << " for " << run.device << std::endl;
  const Clock::time_point start = Clock::now();
  const auto engines = BuildEngines(options, dataset, make_engine);
  PipelineSettings settings;
  settings.queue = static_cast<std::size_t>(options.queue);
  settings.warmup = static_cast<std::size_t>(options.warmup);
  settings.stop = stop;
  WarmUp(dataset, engines, settings);
  Timing timing;
  timing.load_seconds = SecondsSince(start);

  const std::size_t total = dataset.Stems().size();
  *out << "running " << total << " images" << std::endl;
  settings.progress = ProgressLines(total, out);
  const PipelineTimes times = RunPipeline(dataset, engines, &writer, settings);
  timing.predict_ms = Summarise(times.predict_ms);
  timing.wall_seconds = times.wall_seconds;
  timing.peak_memory_mb = PeakMemoryMb();
  const std::string text = TimingText(timing, run.device, run.instances);
  WriteAtomically(time_file, text);
  writer.Finish(dataset.Stems(), run, timing);
  *out << text << "results: " << options.result_path << std::endl;
}

}  // namespace defrcn

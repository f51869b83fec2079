// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "pipeline.h"

#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "error.h"
#include "stages.h"
#include "statistics.h"

namespace defrcn {
namespace {

constexpr double kProgressSeconds = 2.0;  // between two lines

struct RawResult {
  std::size_t index = 0;
  double predict_ms = 0.0;
  std::vector<Tensor> outputs;
};

RawResult RunEngine(Engine *engine, const Sample &sample) {
  const Clock::time_point start = Clock::now();
  RawResult result;
  result.outputs = engine->Run(sample.inputs);
  result.predict_ms = SecondsSince(start) * 1000.0;
  result.index = sample.index;
  return result;
}

}  // namespace

PipelineTimes RunPipeline(const Dataset &dataset,
                          const std::vector<std::unique_ptr<Engine>> &engines, ResultWriter *writer,
                          const PipelineSettings &settings) {
  PipelineTimes times;
  Stages<Sample, RawResult> stages;
  stages.count = dataset.Stems().size();
  stages.queue = settings.queue;
  stages.stop = settings.stop;
  stages.read = [&dataset](std::size_t index) { return dataset.Read(index); };
  for (const auto &engine : engines) {
    stages.workers.emplace_back(
        [&engine](const Sample &sample) { return RunEngine(engine.get(), sample); });
  }
  stages.write = [&](RawResult result) {
    writer->Write(dataset.Stems()[result.index], std::move(result.outputs));
    times.predict_ms.push_back(result.predict_ms);
    if (settings.progress) {
      settings.progress(times.predict_ms.size());
    }
  };
  const Clock::time_point start = Clock::now();
  RunStages(stages);
  times.wall_seconds = SecondsSince(start);
  return times;
}

void WarmUp(const Dataset &dataset, const std::vector<std::unique_ptr<Engine>> &engines,
            const PipelineSettings &settings) {
  if (settings.warmup == 0) {
    return;
  }
  const Sample sample = dataset.Read(0);
  for (const auto &engine : engines) {
    for (std::size_t call = 0; call < settings.warmup; ++call) {
      if (Stopped(settings.stop)) {
        throw Interrupted();
      }
      engine->Run(sample.inputs);
    }
  }
}

std::string ProgressText(std::size_t done, std::size_t total, double seconds) {
  const double rate = seconds > 0.0 ? static_cast<double>(done) / seconds : 0.0;
  const double left = rate > 0.0 ? static_cast<double>(total - done) / rate : 0.0;
  const int digits = static_cast<int>(std::to_string(total).size());
  char text[128];
  std::snprintf(text, sizeof(text), "[%*zu/%zu] %.2f images/s, %.0f s left", digits, done, total,
                rate, left);
  return text;
}

std::function<void(std::size_t)> ProgressLines(std::size_t total, std::ostream *out) {
  const Clock::time_point start = Clock::now();
  return [total, out, start, last = start](std::size_t done) mutable {
    if (done < total && SecondsSince(last) < kProgressSeconds) {
      return;
    }
    last = Clock::now();
    *out << ProgressText(done, total, SecondsSince(start)) << std::endl;
  };
}

}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// A data set of preprocess.py through the engines; see stages.h.
#ifndef DEFRCN_PIPELINE_H_
#define DEFRCN_PIPELINE_H_

#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "dataset.h"
#include "engine.h"
#include "result_writer.h"

namespace defrcn {

struct PipelineSettings {
  std::size_t queue = 4;   // images read ahead, and results waiting to be written
  std::size_t warmup = 1;  // calls of each engine before the time is taken
  // A signal handler sets it; the pipeline then ends with Interrupted. May be null.
  const std::atomic<bool> *stop = nullptr;
  // Told the number of images written so far, in the writing thread. May be empty.
  std::function<void(std::size_t)> progress;
};

struct PipelineTimes {
  std::vector<double> predict_ms;  // one an image, in the order they were finished
  double wall_seconds = 0.0;
};

// Runs every image of the data set through one of the engines; each engine has a thread. What
// fails first in any thread ends all of them and is thrown here.
PipelineTimes RunPipeline(const Dataset &dataset,
                          const std::vector<std::unique_ptr<Engine>> &engines, ResultWriter *writer,
                          const PipelineSettings &settings);

// Runs the first image on every engine, as often as `settings.warmup` says; keeps nothing.
void WarmUp(const Dataset &dataset, const std::vector<std::unique_ptr<Engine>> &engines,
            const PipelineSettings &settings);

// Tells `out` how far a run is when it is called with the number of images that are done: at most
// one line in some seconds, and the last one. Keeps the time from now on.
std::function<void(std::size_t)> ProgressLines(std::size_t total, std::ostream *out);

// "[ 12/100] 3.2 images/s, 28 s left"
std::string ProgressText(std::size_t done, std::size_t total, double seconds);

}  // namespace defrcn

#endif  // DEFRCN_PIPELINE_H_

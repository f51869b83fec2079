// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "pipeline.h"

#include <cstdio>
#include <exception>
#include <future>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bounded_queue.h"
#include "error.h"
#include "statistics.h"

namespace defrcn {
namespace {

struct Result {
  std::size_t index = 0;
  double predict_ms = 0.0;
  std::vector<Tensor> outputs;
};

bool Stopped(const PipelineSettings &settings) {
  return settings.stop != nullptr && settings.stop->load();
}

// The two queues, and the error that came first.
class Run {
 public:
  Run(const Dataset &dataset, ResultWriter *writer, const PipelineSettings &settings)
      : dataset_(dataset),
        writer_(*writer),
        settings_(settings),
        samples_(settings.queue),
        results_(settings.queue) {}

  PipelineTimes All(const std::vector<std::unique_ptr<Engine>> &engines) {
    const Clock::time_point start = Clock::now();
    PipelineTimes times;
    {
      auto written = Start([this, &times] { Write(&times); });
      {
        std::vector<std::future<void>> running;
        running.reserve(engines.size() + 1);
        running.push_back(Start([this] { Read(); }));
        for (const auto &engine : engines) {
          running.push_back(Start([this, &engine] { Predict(engine.get()); }));
        }
      }  // their futures wait here
      results_.Close();
    }  // and the writer's here
    if (error_) {
      std::rethrow_exception(error_);
    }
    times.wall_seconds = SecondsSince(start);
    return times;
  }

 private:
  // A thread whose failure is kept and ends the others. Its future's destructor waits for it.
  template <typename Body>
  std::future<void> Start(Body body) {
    try {
      return std::async(std::launch::async, [this, body = std::move(body)]() noexcept {
        try {
          body();
        } catch (...) {
          Fail(std::current_exception());
        }
      });
    } catch (...) {  // no thread to be had: those that run must not wait for ever
      Fail(std::current_exception());
      throw;
    }
  }

  void Fail(std::exception_ptr error) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) {
        error_ = std::move(error);
      }
    }
    samples_.Cancel();
    results_.Cancel();
  }

  void Read() {
    for (std::size_t index = 0; index < dataset_.Stems().size(); ++index) {
      if (Stopped(settings_)) {
        throw Interrupted();
      }
      if (!samples_.Push(dataset_.Read(index))) {
        return;
      }
    }
    samples_.Close();
  }

  void Predict(Engine *engine) {
    while (std::optional<Sample> sample = samples_.Pop()) {
      if (Stopped(settings_)) {
        throw Interrupted();
      }
      const Clock::time_point start = Clock::now();
      Result result;
      result.outputs = engine->Run(sample->inputs);
      result.predict_ms = SecondsSince(start) * 1000.0;
      result.index = sample->index;
      if (!results_.Push(std::move(result))) {
        return;
      }
    }
  }

  void Write(PipelineTimes *times) {
    while (std::optional<Result> result = results_.Pop()) {
      writer_.Write(dataset_.Stems()[result->index], std::move(result->outputs));
      times->predict_ms.push_back(result->predict_ms);
      if (settings_.progress) {
        settings_.progress(times->predict_ms.size());
      }
    }
  }

  const Dataset &dataset_;
  ResultWriter &writer_;
  const PipelineSettings &settings_;
  BoundedQueue<Sample> samples_;
  BoundedQueue<Result> results_;
  std::mutex mutex_;
  std::exception_ptr error_;
};

}  // namespace

PipelineTimes RunPipeline(const Dataset &dataset,
                          const std::vector<std::unique_ptr<Engine>> &engines, ResultWriter *writer,
                          const PipelineSettings &settings) {
  return Run(dataset, writer, settings).All(engines);
}

void WarmUp(const Dataset &dataset, const std::vector<std::unique_ptr<Engine>> &engines,
            const PipelineSettings &settings) {
  if (settings.warmup == 0) {
    return;
  }
  const Sample sample = dataset.Read(0);
  for (const auto &engine : engines) {
    for (std::size_t call = 0; call < settings.warmup; ++call) {
      if (Stopped(settings)) {
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

}  // namespace defrcn

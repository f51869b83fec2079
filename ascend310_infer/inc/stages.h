// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Reading ahead, working and writing behind, in threads with bounded queues between them.
#ifndef DEFRCN_STAGES_H_
#define DEFRCN_STAGES_H_

#include <atomic>
#include <cstddef>
#include <exception>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <utility>
#include <vector>

#include "bounded_queue.h"
#include "error.h"

namespace defrcn {

// What the threads do: read(0), …, read(count - 1), shared out to `readers` threads; then each item
// by one of `workers`, a thread each; then write, in one thread, in the order of completion.
template <typename Item, typename Result>
struct Stages {
  std::size_t count = 0;
  std::size_t readers = 1;
  std::size_t queue = 4;  // items read ahead, and results waiting to be written
  // A signal handler sets it; the run then ends with Interrupted. May be null.
  const std::atomic<bool> *stop = nullptr;
  std::function<Item(std::size_t)> read;
  std::vector<std::function<Result(Item)>> workers;
  std::function<void(Result)> write;
};

inline bool Stopped(const std::atomic<bool> *stop) { return stop != nullptr && stop->load(); }

// The two queues, and the error that came first.
template <typename Item, typename Result>
class StagesRun {
 public:
  explicit StagesRun(const Stages<Item, Result> &stages)
      : stages_(stages), items_(stages.queue), results_(stages.queue), reading_(stages.readers) {}

  // What fails first in any thread ends all of them and is thrown here.
  void All() {
    {
      auto written = Start([this] { Write(); });
      {
        std::vector<std::future<void>> running;
        running.reserve(stages_.workers.size() + stages_.readers);
        for (std::size_t reader = 0; reader < stages_.readers; ++reader) {
          running.push_back(Start([this] { Read(); }));
        }
        for (const auto &worker : stages_.workers) {
          running.push_back(Start([this, &worker] { Work(worker); }));
        }
      }  // their futures wait here
      results_.Close();
    }  // and the writer's here
    if (error_) {
      std::rethrow_exception(error_);
    }
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
    items_.Cancel();
    results_.Cancel();
  }

  void Read() {
    for (std::size_t index = next_++; index < stages_.count; index = next_++) {
      if (Stopped(stages_.stop)) {
        throw Interrupted();
      }
      if (!items_.Push(stages_.read(index))) {
        return;
      }
    }
    if (--reading_ == 0) {
      items_.Close();
    }
  }

  void Work(const std::function<Result(Item)> &worker) {
    while (std::optional<Item> item = items_.Pop()) {
      if (Stopped(stages_.stop)) {
        throw Interrupted();
      }
      if (!results_.Push(worker(std::move(*item)))) {
        return;
      }
    }
  }

  void Write() {
    while (std::optional<Result> result = results_.Pop()) {
      stages_.write(std::move(*result));
    }
  }

  const Stages<Item, Result> &stages_;
  BoundedQueue<Item> items_;
  BoundedQueue<Result> results_;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::size_t> reading_;
  std::mutex mutex_;
  std::exception_ptr error_;
};

template <typename Item, typename Result>
void RunStages(const Stages<Item, Result> &stages) {
  StagesRun<Item, Result>(stages).All();
}

}  // namespace defrcn

#endif  // DEFRCN_STAGES_H_

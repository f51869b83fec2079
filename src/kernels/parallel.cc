// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.

#include "parallel.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <new>
#include <thread>

namespace {

using Work = std::function<void(int64_t, int64_t)>;

int64_t CountThreads() {
  cpu_set_t allowed;
  int64_t count = sched_getaffinity(0, sizeof(allowed), &allowed) == 0
                      ? CPU_COUNT(&allowed)
                      : std::thread::hardware_concurrency();
  return std::max<int64_t>(count, 1);
}

// Helpers that wait for work. They are never ended: at the end of the process it is not known
// which of them still runs, and a forked child has none, so that it makes its own.
class Helpers {
 public:
  explicit Helpers(int64_t count) : owner_(getpid()), count_(count) {
    for (int64_t i = 0; i < count; ++i) std::thread([this] { Wait(); }).detach();
  }

  bool IsOfThisProcess() const { return owner_ == getpid(); }

  // Does all parts with the caller's help; false if another caller has the helpers.
  bool Run(int64_t parts, const std::function<void(int64_t)> &part) {
    std::unique_lock<std::mutex> use(use_, std::try_to_lock);
    if (!use.owns_lock()) return false;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      part_ = &part;
      parts_ = parts;
      next_ = 0;
      busy_ = count_;
      ++turn_;
    }
    changed_.notify_all();
    Take();
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait(lock, [this] { return busy_ == 0; });
    return true;
  }

 private:
  void Take() {
    for (int64_t i = next_++; i < parts_; i = next_++) (*part_)(i);
  }

  void Wait() {
    int64_t seen = 0;
    for (;;) {
      {
        std::unique_lock<std::mutex> lock(mutex_);
        changed_.wait(lock, [&] { return turn_ != seen; });
        seen = turn_;
      }
      Take();
      std::lock_guard<std::mutex> lock(mutex_);
      if (--busy_ == 0) done_.notify_one();
    }
  }

  const pid_t owner_;
  const int64_t count_;
  std::mutex use_, mutex_;
  std::condition_variable changed_, done_;
  const std::function<void(int64_t)> *part_ = nullptr;
  int64_t parts_ = 0, busy_ = 0, turn_ = 0;
  std::atomic<int64_t> next_{0};
};

Helpers *TheHelpers() {
  static std::mutex mutex;
  static Helpers *helpers = nullptr;
  std::lock_guard<std::mutex> lock(mutex);
  if (helpers == nullptr || !helpers->IsOfThisProcess()) helpers = new Helpers(NumThreads() - 1);
  return helpers;
}

// Blocks that nobody has at the moment, by their bytes.
struct Store {
  static constexpr size_t kMost = 12;

  std::mutex mutex;
  std::multimap<size_t, void *> free;
};

Store &TheStore() {
  static Store *store = new Store;  // outlives all threads
  return *store;
}

constexpr size_t kBoundary = 64;

}  // namespace

int64_t NumThreads() {
  static const int64_t count = CountThreads();
  return count;
}

void InParallel(int64_t count, int64_t grain, const Work &work) {
  const int64_t grains = (count + grain - 1) / grain;
  const int64_t threads = std::min(NumThreads(), grains);
  if (count <= 0) return;
  if (threads > 1) {
    // Some parts more than threads, as one of these may be held up.
    const int64_t parts = std::min(grains, grains >= 8 * threads ? 4 * threads : threads);
    const auto begin = [&](int64_t i) { return std::min(count, grains * i / parts * grain); };
    const auto part = [&](int64_t i) { work(begin(i), begin(i + 1)); };
    if (TheHelpers()->Run(parts, part)) return;
  }
  work(0, count);
}

Scratch::Scratch(int64_t count) : data_(nullptr), bytes_(0) {
  const size_t wanted = (std::max<int64_t>(count, 1) * sizeof(float) + kBoundary - 1) / kBoundary;
  bytes_ = wanted * kBoundary;
  Store &store = TheStore();
  {
    std::lock_guard<std::mutex> lock(store.mutex);
    const auto found = store.free.lower_bound(bytes_);
    if (found != store.free.end() && found->first <= 4 * bytes_ + 65536) {
      bytes_ = found->first;
      data_ = static_cast<float *>(found->second);
      store.free.erase(found);
    }
  }
  if (data_ == nullptr) data_ = static_cast<float *>(std::aligned_alloc(kBoundary, bytes_));
  if (data_ == nullptr) throw std::bad_alloc();
}

Scratch::~Scratch() {
  Store &store = TheStore();
  std::lock_guard<std::mutex> lock(store.mutex);
  store.free.emplace(bytes_, data_);
  if (store.free.size() > Store::kMost) {
    std::free(store.free.begin()->second);
    store.free.erase(store.free.begin());
  }
}

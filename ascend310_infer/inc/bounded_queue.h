// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// A queue between threads that holds at most so many items: the faster side waits.
#ifndef DEFRCN_BOUNDED_QUEUE_H_
#define DEFRCN_BOUNDED_QUEUE_H_

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <utility>

namespace defrcn {

template <typename T>
class BoundedQueue {
 public:
  explicit BoundedQueue(std::size_t capacity) : capacity_(capacity) {
    if (capacity == 0) {
      throw std::invalid_argument("a queue needs room for one item");
    }
  }
  BoundedQueue(const BoundedQueue &) = delete;
  BoundedQueue &operator=(const BoundedQueue &) = delete;

  // Adds an item, once there is room. False, and the item is dropped, after Close or Cancel.
  bool Push(T item) {
    std::unique_lock<std::mutex> lock(mutex_);
    not_full_.wait(lock, [this] { return closed_ || items_.size() < capacity_; });
    if (closed_) {
      return false;
    }
    items_.push_back(std::move(item));
    lock.unlock();
    not_empty_.notify_one();
    return true;
  }

  // Takes the oldest item, once there is one. Nothing after Cancel, or when closed and empty.
  std::optional<T> Pop() {
    std::unique_lock<std::mutex> lock(mutex_);
    not_empty_.wait(lock, [this] { return closed_ || !items_.empty(); });
    if (items_.empty()) {
      return std::nullopt;
    }
    std::optional<T> item(std::move(items_.front()));
    items_.pop_front();
    lock.unlock();
    not_full_.notify_one();
    return item;
  }

  // No more items will come; those inside may still be taken.
  void Close() { End(/*keep=*/true); }

  // Ends both sides at once and drops what is inside.
  void Cancel() { End(/*keep=*/false); }

 private:
  void End(bool keep) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      closed_ = true;
      if (!keep) {
        items_.clear();
      }
    }
    not_full_.notify_all();
    not_empty_.notify_all();
  }

  const std::size_t capacity_;
  std::mutex mutex_;
  std::condition_variable not_full_;
  std::condition_variable not_empty_;
  std::deque<T> items_;
  bool closed_ = false;
};

}  // namespace defrcn

#endif  // DEFRCN_BOUNDED_QUEUE_H_

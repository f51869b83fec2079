// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "bounded_queue.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <future>
#include <memory>
#include <mutex>
#include <numeric>
#include <thread>
#include <vector>

namespace defrcn {
namespace {

using std::chrono::milliseconds;

TEST(BoundedQueue, KeepsTheOrder) {
  BoundedQueue<int> queue(3);
  for (int value : {1, 2, 3}) {
    EXPECT_TRUE(queue.Push(value));
  }
  for (int value : {1, 2, 3}) {
    EXPECT_EQ(queue.Pop(), value);
  }
}

TEST(BoundedQueue, HoldsWhatCannotBeCopied) {
  BoundedQueue<std::unique_ptr<int>> queue(1);
  queue.Push(std::make_unique<int>(7));
  EXPECT_EQ(**queue.Pop(), 7);
}

TEST(BoundedQueue, NeedsRoom) { EXPECT_THROW(BoundedQueue<int>(0), std::invalid_argument); }

TEST(BoundedQueue, PushWaitsForRoom) {
  BoundedQueue<int> queue(1);
  queue.Push(1);
  auto second = std::async(std::launch::async, [&queue] { return queue.Push(2); });
  EXPECT_EQ(second.wait_for(milliseconds(30)), std::future_status::timeout);
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_TRUE(second.get());
  EXPECT_EQ(queue.Pop(), 2);
}

TEST(BoundedQueue, PopWaitsForAnItem) {
  BoundedQueue<int> queue(1);
  auto item = std::async(std::launch::async, [&queue] { return queue.Pop(); });
  EXPECT_EQ(item.wait_for(milliseconds(30)), std::future_status::timeout);
  queue.Push(5);
  EXPECT_EQ(item.get(), 5);
}

TEST(BoundedQueue, AfterCloseTheRestIsTakenAndNothingAdded) {
  BoundedQueue<int> queue(2);
  queue.Push(1);
  queue.Close();
  EXPECT_FALSE(queue.Push(2));
  EXPECT_EQ(queue.Pop(), 1);
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueue, CancelDropsTheRest) {
  BoundedQueue<int> queue(2);
  queue.Push(1);
  queue.Cancel();
  EXPECT_EQ(queue.Pop(), std::nullopt);
}

TEST(BoundedQueue, CancelWakesBothSides) {
  BoundedQueue<int> full(1);
  BoundedQueue<int> empty(1);
  full.Push(1);
  auto push = std::async(std::launch::async, [&full] { return full.Push(2); });
  auto pop = std::async(std::launch::async, [&empty] { return empty.Pop(); });
  std::this_thread::sleep_for(milliseconds(20));
  full.Cancel();
  empty.Cancel();
  EXPECT_FALSE(push.get());
  EXPECT_EQ(pop.get(), std::nullopt);
}

TEST(BoundedQueue, ManyThreadsLoseNothing) {
  constexpr int kThreads = 4;
  constexpr int kItems = 2000;
  BoundedQueue<int> queue(3);
  std::mutex mutex;
  std::vector<int> taken;
  {
    std::vector<std::future<void>> takers;
    for (int thread = 0; thread < kThreads; ++thread) {
      takers.push_back(std::async(std::launch::async, [&] {
        while (const auto item = queue.Pop()) {
          std::lock_guard<std::mutex> lock(mutex);
          taken.push_back(*item);
        }
      }));
    }
    {
      std::vector<std::future<void>> givers;
      for (int thread = 0; thread < kThreads; ++thread) {
        givers.push_back(std::async(std::launch::async, [&queue, thread] {
          for (int item = thread; item < kItems; item += kThreads) {
            queue.Push(item);
          }
        }));
      }
    }
    queue.Close();
  }
  std::sort(taken.begin(), taken.end());
  std::vector<int> expected(kItems);
  std::iota(expected.begin(), expected.end(), 0);
  EXPECT_EQ(taken, expected);
}

}  // namespace
}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "pipeline.h"

#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "support.h"

namespace defrcn {
namespace {

using testing::FakeEngine;
using testing::Folder;
using testing::MakeDataset;
using testing::MessageOf;
using testing::ReadValues;
using testing::Stem;

class PipelineTest : public ::testing::Test {
 protected:
  Dataset Open(std::size_t count) {
    MakeDataset(folder_ / "data", count);
    return Dataset::Open(folder_ / "data");
  }
  FakeEngine *Add(int milliseconds = 0, int fail_at = -1) {
    auto engine = std::make_unique<FakeEngine>(milliseconds, fail_at);
    FakeEngine *pointer = engine.get();
    engines_.push_back(std::move(engine));
    return pointer;
  }
  std::size_t Written() const {
    std::size_t files = 0;
    for (const auto &entry : testing::fs::directory_iterator(folder_ / "results")) {
      files += entry.path().extension() == ".bin" ? 1 : 0;
    }
    return files;
  }

  Folder folder_;
  std::vector<std::unique_ptr<Engine>> engines_;
  PipelineSettings settings_;
};

TEST_F(PipelineTest, EveryImageGetsItsOwnResult) {
  const Dataset dataset = Open(25);
  for (int instances = 1; instances <= 3; ++instances) {
    Add(instances == 1 ? 0 : 1);
    for (const std::size_t queue : {1, 4, 100}) {
      settings_.queue = queue;
      testing::fs::remove_all(folder_ / "results");
      ResultWriter writer(folder_ / "results", {});
      const PipelineTimes times = RunPipeline(dataset, engines_, &writer, settings_);
      EXPECT_EQ(times.predict_ms.size(), 25U);
      EXPECT_GT(times.wall_seconds, 0.0);
      EXPECT_EQ(Written(), 50U);
      for (std::size_t index = 0; index < 25; ++index) {
        EXPECT_EQ(ReadValues<float>(folder_ / "results" / (Stem(index) + "_0.bin")).at(0),
                  2.0F * static_cast<float>(index));
        EXPECT_EQ(ReadValues<std::int32_t>(folder_ / "results" / (Stem(index) + "_1.bin")).at(0),
                  static_cast<std::int32_t>(100 + index));
      }
    }
  }
}

TEST_F(PipelineTest, AllInstancesWork) {
  const Dataset dataset = Open(20);
  const FakeEngine *first = Add(20);
  const FakeEngine *second = Add(20);
  ResultWriter writer(folder_ / "results", {});
  const PipelineTimes times = RunPipeline(dataset, engines_, &writer, settings_);
  EXPECT_EQ(first->calls + second->calls, 20);
  EXPECT_GT(first->calls, 0);
  EXPECT_GT(second->calls, 0);
  // One after another the calls would take their sum.
  EXPECT_LT(times.wall_seconds * 1000.0,
            0.8 * static_cast<double>(times.predict_ms.size()) * Summarise(times.predict_ms).mean);
}

TEST_F(PipelineTest, ProgressCountsToTheEnd) {
  const Dataset dataset = Open(5);
  Add();
  ResultWriter writer(folder_ / "results", {});
  std::vector<std::size_t> seen;
  settings_.progress = [&seen](std::size_t done) { seen.push_back(done); };
  RunPipeline(dataset, engines_, &writer, settings_);
  EXPECT_EQ(seen, (std::vector<std::size_t>{1, 2, 3, 4, 5}));
}

TEST_F(PipelineTest, AFailingReadEndsTheRun) {
  const Dataset dataset = Open(30);
  testing::fs::remove(folder_ / "data" / "eval_id_bin" / "000012.bin");
  Add(1);
  Add(1);
  settings_.queue = 1;
  ResultWriter writer(folder_ / "results", {});
  EXPECT_SAYS(MessageOf<InputError>([&] { RunPipeline(dataset, engines_, &writer, settings_); }),
              "000012.bin");
}

TEST_F(PipelineTest, AFailingEngineEndsTheRun) {
  const Dataset dataset = Open(30);
  Add(1, 7);
  Add(1, 7);
  settings_.queue = 1;
  ResultWriter writer(folder_ / "results", {});
  EXPECT_SAYS(
      MessageOf<std::runtime_error>([&] { RunPipeline(dataset, engines_, &writer, settings_); }),
      "the device is gone");
  EXPECT_LT(Written(), 60U);
}

TEST_F(PipelineTest, AFailingWriteEndsTheRun) {
  const Dataset dataset = Open(30);
  Add();
  settings_.queue = 1;
  ResultWriter writer(folder_ / "results", {});
  testing::fs::remove_all(folder_ / "results");
  EXPECT_SAYS(
      MessageOf<std::system_error>([&] { RunPipeline(dataset, engines_, &writer, settings_); }),
      "000000_0.bin");
}

TEST_F(PipelineTest, StopEndsTheRun) {
  const Dataset dataset = Open(200);
  Add(2);
  std::atomic<bool> stop{false};
  settings_.stop = &stop;
  settings_.progress = [&stop](std::size_t done) { stop = done >= 3; };
  ResultWriter writer(folder_ / "results", {});
  EXPECT_THROW(RunPipeline(dataset, engines_, &writer, settings_), Interrupted);
  EXPECT_GE(Written(), 6U);
  EXPECT_LT(Written(), 100U);
}

TEST_F(PipelineTest, WarmUpRunsEachEngine) {
  const Dataset dataset = Open(2);
  const FakeEngine *first = Add();
  const FakeEngine *second = Add();
  settings_.warmup = 3;
  WarmUp(dataset, engines_, settings_);
  EXPECT_EQ(first->calls, 3);
  EXPECT_EQ(second->calls, 3);
  settings_.warmup = 0;
  WarmUp(dataset, engines_, settings_);
  EXPECT_EQ(first->calls, 3);
}

TEST(ProgressText, GivesRateAndTimeLeft) {
  EXPECT_EQ(ProgressText(25, 100, 10.0), "[ 25/100] 2.50 images/s, 30 s left");
  EXPECT_EQ(ProgressText(4, 4, 2.0), "[4/4] 2.00 images/s, 0 s left");
  EXPECT_EQ(ProgressText(0, 4, 0.0), "[0/4] 0.00 images/s, 0 s left");
}

}  // namespace
}  // namespace defrcn

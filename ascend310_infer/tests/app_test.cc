// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "app.h"

#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "support.h"

namespace defrcn {
namespace {

using testing::FakeEngine;
using testing::Folder;
using testing::MakeDataset;
using testing::MessageOf;
using testing::ReadJson;

class AppTest : public ::testing::Test {
 protected:
  AppTest() {
    MakeDataset(folder_ / "data", 6);
    testing::WriteText(folder_ / "net.mindir", "x");
    options_.mindir_path = (folder_ / "net.mindir").string();
    options_.dataset_path = (folder_ / "data").string();
    options_.result_path = (folder_ / "results").string();
    options_.time_path = (folder_ / "times").string();
    options_.device_type = "CPU";
    options_.precision_mode = "preferred_fp32";
  }
  void Run(int fail_at = -1) {
    RunApp(
        options_,
        [this, fail_at](const Options &options) {
          built_.push_back(options);
          return std::make_unique<FakeEngine>(0, fail_at);
        },
        nullptr, &out_);
  }
  bool Exists(const char *folder, const char *name) const {
    return testing::fs::exists(folder_ / folder / name);
  }

  Folder folder_;
  Options options_;
  std::vector<Options> built_;
  std::ostringstream out_;
};

TEST_F(AppTest, WritesResultsAndTimes) {
  options_.instances = 2;
  Run();
  EXPECT_EQ(ReadJson(folder_ / "results" / "done.json").at("count"), 6);
  EXPECT_TRUE(Exists("results", "000005_1.bin"));
  EXPECT_EQ(built_.size(), 2U);
  EXPECT_EQ(built_[0].image_height, testing::kHeight);
  EXPECT_EQ(built_[0].image_width, testing::kWidth);
  const std::string times = ReadText(folder_ / "times" / "test_perform_static.txt");
  EXPECT_SAYS(times, "infer_count 6\n");
  EXPECT_SAYS(times, "device: CPU, instances: 2\n");
  EXPECT_SAYS(out_.str(), "building net.mindir for CPU");
  EXPECT_SAYS(out_.str(), "[6/6] ");
  EXPECT_SAYS(out_.str(), times);
}

TEST_F(AppTest, ResultsAreTheSameForAnyNumberOfInstances) {
  Run();
  const std::string one = ReadText(folder_ / "results" / "000004_0.bin");
  options_.instances = 3;
  options_.queue = 1;
  Run();
  EXPECT_EQ(ReadText(folder_ / "results" / "000004_0.bin"), one);
}

TEST_F(AppTest, WrongInputsAreFoundBeforeTheModelIsBuilt) {
  testing::WriteText(folder_ / "data" / "eval_img_bin" / "000003.bin", "short");
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "000003.bin has 5 bytes");
  testing::MakeDataset(folder_ / "data", 6);
  options_.image_width = 1000;
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "ask for 1000x4");
  EXPECT_TRUE(built_.empty());
}

TEST_F(AppTest, AFailedRunDoesNotLookWhole) {
  Run();
  EXPECT_TRUE(Exists("results", "done.json"));
  EXPECT_THROW(Run(/*fail_at=*/4), std::runtime_error);
  EXPECT_FALSE(Exists("results", "done.json"));
  EXPECT_FALSE(Exists("times", "test_perform_static.txt"));
}

TEST_F(AppTest, TheNoteDecidesAboutBoxes) {
  testing::WriteText(folder_ / "net.mindir.json",
                     R"({"restore_bbox": false, "outputs": ["boxes", "image_id"]})");
  Run();
  EXPECT_EQ(ReadJson(folder_ / "results" / "done.json").at("restore_bbox"), false);
  EXPECT_EQ(ReadJson(folder_ / "results" / "outputs.json").at("outputs").at(1).at("name"),
            "image_id");
  options_.restore_bbox = true;
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "--RESTOREBBOX is true");
}

TEST_F(AppTest, WithoutANoteTheFlagIsHandedOn) {
  options_.restore_bbox = false;
  Run();
  EXPECT_EQ(ReadJson(folder_ / "results" / "done.json").at("restore_bbox"), false);
}

TEST_F(AppTest, ASignalBeforeTheStartEndsIt) {
  const std::atomic<bool> stop{true};
  EXPECT_THROW(
      RunApp(
          options_, [](const Options &) { return std::make_unique<FakeEngine>(); }, &stop, &out_),
      Interrupted);
}

}  // namespace
}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "options.h"

#include <cmath>
#include <string>

#include "app.h"
#include "support.h"

namespace defrcn {
namespace {

using testing::Folder;
using testing::MessageOf;

class OptionsTest : public ::testing::Test {
 protected:
  OptionsTest() {
    testing::WriteText(folder_ / "net.mindir", "x");
    testing::fs::create_directory(folder_ / "data");
    options_.mindir_path = (folder_ / "net.mindir").string();
    options_.dataset_path = (folder_ / "data").string();
    options_.result_path = (folder_ / "results").string();
    options_.time_path = (folder_ / "times").string();
    options_.device_type = "CPU";
    options_.precision_mode = "preferred_fp32";
  }
  std::string Problem() const {
    return MessageOf<InputError>([this] { CheckOptions(options_); });
  }

  Folder folder_;
  Options options_;
};

TEST_F(OptionsTest, GoodOnesPass) { EXPECT_NO_THROW(CheckOptions(options_)); }

TEST_F(OptionsTest, ModelIsNamed) {
  options_.mindir_path.clear();
  EXPECT_SAYS(Problem(), "--mindir_path is missing");
  options_.mindir_path = "/none/net.mindir";
  EXPECT_SAYS(Problem(), "there is no file /none/net.mindir");
  options_.mindir_path = folder_.Path().string();
  EXPECT_SAYS(Problem(), "there is no file");
}

TEST_F(OptionsTest, FoldersAreNamed) {
  options_.dataset_path = "/none";
  EXPECT_SAYS(Problem(), "there is no folder /none; preprocess.py makes it");
  options_.dataset_path.clear();
  EXPECT_SAYS(Problem(), "--dataset_path is missing");
  options_.dataset_path = folder_.Path().string();
  options_.result_path.clear();
  EXPECT_SAYS(Problem(), "--result_path");
}

TEST_F(OptionsTest, PrecisionModesAreListed) {
  options_.precision_mode = "fp16";
  EXPECT_SAYS(Problem(), "--precision_mode is 'fp16'; it may be enforce_fp32, preferred_fp32,");
}

TEST_F(OptionsTest, ConfigFileHasToBeThere) {
  options_.config_file = "/none.cfg";
  EXPECT_SAYS(Problem(), "--config_file: there is no file /none.cfg");
}

TEST_F(OptionsTest, NumbersHaveRanges) {
  const struct {
    int Options::*field;
    int value;
    const char *flag;
  } cases[] = {{&Options::device_id, -1, "--device_id is -1"},
               {&Options::image_width, -5, "--IMAGEWIDTH is -5"},
               {&Options::image_height, 40000, "--IMAGEHEIGHT is 40000"},
               {&Options::instances, 0, "--instances is 0; it goes from 1 to 64"},
               {&Options::threads, -1, "--threads is -1"},
               {&Options::queue, 0, "--queue is 0"},
               {&Options::warmup, -1, "--warmup is -1"}};
  for (const auto &one : cases) {
    const int before = options_.*one.field;
    options_.*one.field = one.value;
    EXPECT_SAYS(Problem(), one.flag);
    options_.*one.field = before;
  }
}

TEST_F(OptionsTest, FlagsOfBundlesNeedOne) {
  for (const char *flag : {"input", "output", "score_threshold", "draw", "repeat"}) {
    options_.given = {flag};
    EXPECT_SAYS(Problem(), std::string("--") + flag + " goes with --bundle");
  }
}

class BundleOptionsTest : public OptionsTest {
 protected:
  BundleOptionsTest() {
    options_ = Options();
    options_.bundle = options_.input = folder_.Path().string();
    options_.output = options_.time_path = (folder_ / "results").string();
    options_.device_type = "CPU";
    options_.precision_mode = "preferred_fp32";
    options_.given = {"bundle", "input", "output"};
  }
};

TEST_F(BundleOptionsTest, GoodOnesPass) { EXPECT_NO_THROW(CheckOptions(options_)); }

TEST_F(BundleOptionsTest, FlagsOfDatasetsDoNotGoWithABundle) {
  for (const char *flag : {"mindir_path", "dataset_path", "result_path", "RESTOREBBOX"}) {
    options_.given.insert(flag);
    EXPECT_SAYS(Problem(), std::string("--") + flag + " does not go with --bundle");
    options_.given.erase(flag);
  }
}

TEST_F(BundleOptionsTest, PathsAreNamed) {
  options_.input = "/none";
  EXPECT_SAYS(Problem(), "--input: there is no file or folder /none");
  options_.input.clear();
  EXPECT_SAYS(Problem(), "--input is missing");
  options_.bundle = "/none";
  EXPECT_SAYS(Problem(), "--bundle: there is no folder /none");
  options_.bundle.clear();
  EXPECT_SAYS(Problem(), "--bundle is missing");
  options_.bundle = options_.input = folder_.Path().string();
  options_.output.clear();
  EXPECT_SAYS(Problem(), "--output is missing");
}

TEST_F(BundleOptionsTest, NumbersHaveRanges) {
  for (const double threshold : {-0.1, 1.1, std::nan("")}) {
    options_.score_threshold = threshold;
    EXPECT_SAYS(Problem(), "--score_threshold is ");
  }
  options_.score_threshold = 1.0;
  options_.repeat = 0;
  EXPECT_SAYS(Problem(), "--repeat is 0; it goes from 1 to 1000000");
  options_.repeat = 1;
  options_.queue = 0;
  EXPECT_SAYS(Problem(), "--queue is 0");
}

TEST(ParseDevice, KnowsUsersNames) {
  EXPECT_EQ(ParseDevice("CPU"), Device::kCpu);
  EXPECT_EQ(ParseDevice("gpu"), Device::kGpu);
  for (const char *name : {"Ascend", "ascend", "Ascend310", "ASCEND310P"}) {
    EXPECT_EQ(ParseDevice(name), Device::kAscend) << name;
  }
  EXPECT_EQ(DeviceName(Device::kGpu), "GPU");
  EXPECT_SAYS(MessageOf<InputError>([] { ParseDevice("TPU"); }),
              "--device_type is 'TPU'; it may be CPU, GPU or Ascend");
}

TEST(ThreadsOf, SharesTheCores) {
  Options options;
  EXPECT_EQ(ThreadsOf(options, 8), 8);
  options.instances = 3;
  EXPECT_EQ(ThreadsOf(options, 8), 2);
  EXPECT_EQ(ThreadsOf(options, 1), 1);
  EXPECT_EQ(ThreadsOf(options, 0), 1);
  options.threads = 5;
  EXPECT_EQ(ThreadsOf(options, 8), 5);
}

}  // namespace
}  // namespace defrcn

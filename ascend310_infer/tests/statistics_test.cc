// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "statistics.h"

#include <string>
#include <vector>

#include "support.h"

namespace defrcn {
namespace {

TEST(Summarise, OfNothingIsZero) {
  const Summary summary = Summarise({});
  EXPECT_EQ(summary.count, 0U);
  EXPECT_EQ(summary.mean, 0.0);
  EXPECT_EQ(summary.p90, 0.0);
}

TEST(Summarise, OfOneIsThatOne) {
  const Summary summary = Summarise({3.5});
  EXPECT_EQ(summary.mean, 3.5);
  EXPECT_EQ(summary.median, 3.5);
  EXPECT_EQ(summary.p90, 3.5);
}

// numpy.percentile([9, 1, 4, 16], [50, 90]) is [6.5, 13.9]
TEST(Summarise, GivesNumpysPercentiles) {
  const Summary summary = Summarise({9.0, 1.0, 4.0, 16.0});
  EXPECT_EQ(summary.count, 4U);
  EXPECT_DOUBLE_EQ(summary.mean, 7.5);
  EXPECT_DOUBLE_EQ(summary.median, 6.5);
  EXPECT_DOUBLE_EQ(summary.p90, 13.9);
}

TEST(Timing, ImagesPerSecondCountTheWholeRun) {
  Timing timing;
  EXPECT_EQ(timing.ImagesPerSecond(), 0.0);
  timing.predict_ms = Summarise({100.0, 100.0, 100.0});
  timing.wall_seconds = 0.5;
  EXPECT_DOUBLE_EQ(timing.ImagesPerSecond(), 6.0);
}

TEST(Timing, TextNamesEveryNumber) {
  Timing timing;
  timing.predict_ms = Summarise({9.0, 1.0, 4.0, 16.0});
  timing.load_seconds = 1.25;
  timing.wall_seconds = 2.0;
  timing.peak_memory_mb = 321.0;
  const std::string text = TimingText(timing, "CPU", 2);
  for (const char *part :
       {"NN inference cost average time: 7.500 ms of infer_count 4\n",
        "device: CPU, instances: 2\n", "mean: 7.500 ms\n", "median: 6.500 ms\n", "p90: 13.900 ms\n",
        "images/s: 2.000", "total: 2.000 s, after 1.250 s", "peak memory: 321 MB\n"}) {
    EXPECT_SAYS(text, part);
  }
}

TEST(PeakMemory, CountsWhatIsUsed) {
  const double before = PeakMemoryMb();
  EXPECT_GT(before, 1.0);
  const std::vector<char> large(std::size_t{200} << 20, 1);
  EXPECT_EQ(large.back(), 1);
  EXPECT_GT(PeakMemoryMb(), 150.0);
}

TEST(TimingText, HasThePartsThatWereMeasured) {
  Timing timing;
  EXPECT_EQ(TimingText(timing, "CPU", 1).find("decoding"), std::string::npos);
  timing.parts = {{"decoding", Summarise({1.0, 3.0})}, {"encoder", Summarise({})}};
  const std::string text = TimingText(timing, "CPU", 1);
  EXPECT_SAYS(text, "\ndecoding: mean 2.000, median 2.000, p90 2.800 ms of 2\n");
  EXPECT_EQ(text.find("encoder"), std::string::npos);
}

}  // namespace
}  // namespace defrcn

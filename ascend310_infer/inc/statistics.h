// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Times of a run in numbers, and the text of test_perform_static.txt.
#ifndef DEFRCN_STATISTICS_H_
#define DEFRCN_STATISTICS_H_

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace defrcn {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start);

struct Summary {
  std::size_t count = 0;
  double mean = 0.0;
  double median = 0.0;
  double p90 = 0.0;  // linear between neighbours, like the median
};

// Of values in any order; all zero if there are none.
Summary Summarise(std::vector<double> values);

struct Timing {
  Summary predict_ms;           // one call of the model, its inputs' and outputs' copies included
  double load_seconds = 0.0;    // reading and compiling the model, warming up
  double wall_seconds = 0.0;    // from the first file read to the last file written
  double peak_memory_mb = 0.0;  // of the process
  // Milliseconds of an image by what they went into, if that was measured.
  std::vector<std::pair<std::string, Summary>> parts;
  double ImagesPerSecond() const;
};

std::string TimingText(const Timing &timing, const std::string &device, std::size_t instances);

// The largest resident size that this process had, in MB (2^20 bytes).
double PeakMemoryMb();

}  // namespace defrcn

#endif  // DEFRCN_STATISTICS_H_

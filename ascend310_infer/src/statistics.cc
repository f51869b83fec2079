// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "statistics.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <iomanip>
#include <numeric>
#include <sstream>
#include <string>
#include <vector>

namespace defrcn {
namespace {

// The value below which a share of the sorted values lies, linear between neighbours.
double Quantile(const std::vector<double> &sorted, double share) {
  const double place = share * static_cast<double>(sorted.size() - 1);
  const auto low = static_cast<std::size_t>(place);
  const std::size_t high = std::min(low + 1, sorted.size() - 1);
  return sorted[low] + (place - static_cast<double>(low)) * (sorted[high] - sorted[low]);
}

}  // namespace

double SecondsSince(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

Summary Summarise(std::vector<double> values) {
  Summary summary;
  if (values.empty()) {
    return summary;
  }
  std::sort(values.begin(), values.end());
  summary.count = values.size();
  summary.mean =
      std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  summary.median = Quantile(values, 0.5);
  summary.p90 = Quantile(values, 0.9);
  return summary;
}

double Timing::ImagesPerSecond() const {
  return wall_seconds > 0.0 ? static_cast<double>(predict_ms.count) / wall_seconds : 0.0;
}

std::string TimingText(const Timing &timing, const std::string &device, std::size_t instances) {
  std::ostringstream text;
  text << std::fixed << std::setprecision(3);
  text << "NN inference cost average time: " << timing.predict_ms.mean << " ms of infer_count "
       << timing.predict_ms.count << "\n";
  text << "device: " << device << ", instances: " << instances << "\n";
  text << "mean: " << timing.predict_ms.mean << " ms\n";
  text << "median: " << timing.predict_ms.median << " ms\n";
  text << "p90: " << timing.predict_ms.p90 << " ms\n";
  for (const auto &[name, part] : timing.parts) {
    if (part.count == 0) {
      continue;
    }
    text << name << ": mean " << part.mean << ", median " << part.median << ", p90 " << part.p90
         << " ms of " << part.count << "\n";
  }
  text << "images/s: " << timing.ImagesPerSecond() << " (reading and writing included)\n";
  text << "total: " << timing.wall_seconds << " s, after " << timing.load_seconds
       << " s for loading the model\n";
  text << "peak memory: " << std::setprecision(0) << timing.peak_memory_mb << " MB\n";
  return text.str();
}

double PeakMemoryMb() {
  struct rusage usage = {};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024.0;
}

}  // namespace defrcn

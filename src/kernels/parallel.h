// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// Threads, and memory that is used again, for kernels that take time.

#ifndef SRC_KERNELS_PARALLEL_H_
#define SRC_KERNELS_PARALLEL_H_

#include <cstddef>
#include <cstdint>
#include <functional>

// How many threads work at a time: as many as this process may use processors.
int64_t NumThreads();

// Splits 0..count into parts and has threads do them; a part is a multiple of `grain` items, but
// for the last one. Which thread does which part must not matter to the result.
void InParallel(int64_t count, int64_t grain,
                const std::function<void(int64_t begin, int64_t end)> &work);

// Memory for `count` floats, not initialised, on a boundary of 64 bytes. It comes from what
// earlier ones gave back: fresh pages for every call would cost as much as some of the kernels.
class Scratch {
 public:
  explicit Scratch(int64_t count);
  ~Scratch();
  Scratch(const Scratch &) = delete;
  Scratch &operator=(const Scratch &) = delete;

  float *data() const { return data_; }
  float *at(int64_t offset) const { return data_ + offset; }

 private:
  float *data_;
  size_t bytes_;
};

#endif  // SRC_KERNELS_PARALLEL_H_

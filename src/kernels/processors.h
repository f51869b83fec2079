// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// Functions marked FOR_EACH_PROCESSOR are compiled for several kinds of processors; which one runs
// is found when the library is loaded.

#ifndef SRC_KERNELS_PROCESSORS_H_
#define SRC_KERNELS_PROCESSORS_H_

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR
#endif
// Part of such a function, compiled with it.
#define WITHIN inline __attribute__((always_inline))

#endif  // SRC_KERNELS_PROCESSORS_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Of MindSpore's own kernels those whose results decide about sizes: ranges and casts.
#include <cmath>
#include <cstdint>

typedef struct CUstream_st *cudaStream_t;
enum cudaError { cudaSuccess = 0 };
enum DynamicRangeErrorCode : int { kOk = 0, kDeltaIsZero = 1, kInvalid = 2, kMaxSizeExceeded = 4 };

template <class T>
cudaError CudaValidateInputAndInferShape(const T *start, const T *end, const T *delta, int64_t *size,
                                         DynamicRangeErrorCode *code, const int64_t most,
                                         cudaStream_t) {
  *code = *delta == 0 ? kDeltaIsZero : kOk;
  if (*code == kOk) {
    *size = static_cast<int64_t>(std::ceil((static_cast<double>(*end) - *start) / *delta));
    if (*size < 0 || *size > most) *code = kMaxSizeExceeded;
  }
  return cudaSuccess;
}

template <class T>
cudaError CalRange(const T *start, const T *end, const T *delta, T *out, int64_t *size,
                   DynamicRangeErrorCode *, const int64_t, cudaStream_t) {
  for (int64_t i = 0; i < *size; i++) out[i] = *start + *delta * static_cast<T>(i);
  return cudaSuccess;
}

template <class S, class T>
cudaError Cast(const int size, const S *from, T *to, cudaStream_t) {
  for (int i = 0; i < size; i++) to[i] = static_cast<T>(from[i]);
  return cudaSuccess;
}

#define RANGE(T)                                                                                 \
  template cudaError CudaValidateInputAndInferShape<T>(const T *, const T *, const T *, int64_t *, \
                                                       DynamicRangeErrorCode *, const int64_t,    \
                                                       cudaStream_t);                             \
  template cudaError CalRange<T>(const T *, const T *, const T *, T *, int64_t *,                 \
                                 DynamicRangeErrorCode *, const int64_t, cudaStream_t);
RANGE(int)
RANGE(int64_t)
RANGE(float)
RANGE(double)

#define CAST(S, T) template cudaError Cast<S, T>(const int, const S *, T *, cudaStream_t);
#define CASTS(S)                                                                             \
  CAST(S, bool) CAST(S, int8_t) CAST(S, uint8_t) CAST(S, int16_t) CAST(S, uint16_t)          \
  CAST(S, int32_t) CAST(S, uint32_t) CAST(S, int64_t) CAST(S, uint64_t) CAST(S, float)       \
  CAST(S, double)
CASTS(bool)
CASTS(int8_t)
CASTS(uint8_t)
CASTS(int16_t)
CASTS(int32_t)
CASTS(int64_t)
CASTS(float)
CASTS(double)

/* Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0. */
/* The runtime of a card that is not there: its memory is this machine's. */
#include <stdlib.h>
#include <string.h>

#define MEMORY ((size_t)16 << 30)

/* The beginning of cudaDeviceProp, as CUDA 11 lays it out. */
struct Properties {
  char name[256];
  char uuid[16], luid[8];
  unsigned node_mask;
  size_t memory, shared_memory;
  int registers, warp;
  size_t pitch;
  int threads, block[3], grid[3], clock;
  size_t constant_memory;
  int major, minor;
  size_t texture_alignment, texture_pitch_alignment;
  int overlap, processors;
};

static int allocate(void **place, size_t size) {
  *place = calloc(1, size ? size : 1);
  return *place ? 0 : 2;
}

int cudaRuntimeGetVersion(int *version) { return *version = 11060, 0; }
int cudaDriverGetVersion(int *version) { return *version = 11060, 0; }
int cudaGetDeviceCount(int *count) { return *count = 1, 0; }
int cudaGetDevice(int *device) { return *device = 0, 0; }
const char *cudaGetErrorName(int code) { return code ? "error" : "success"; }
const char *cudaGetErrorString(int code) { return cudaGetErrorName(code); }

int cudaGetDeviceProperties(struct Properties *found, int device) {
  struct Properties card = {.name = "no card", .memory = MEMORY, .shared_memory = 49152,
    .registers = 65536, .warp = 32, .threads = 1024, .block = {1024, 1024, 64},
    .grid = {2147483647, 65535, 65535}, .clock = 1000000, .constant_memory = 65536,
    .major = 8, .minor = 0, .texture_alignment = 512, .texture_pitch_alignment = 32,
    .processors = 64};
  *found = card;
  return device;
}

int cudaMalloc(void **place, size_t size) { return allocate(place, size); }
int cudaHostAlloc(void **place, size_t size, unsigned flags) { return allocate(place, size); }
int cudaMallocHost(void **place, size_t size) { return allocate(place, size); }
/* Not freed: what was launched and not computed may still be read. */
int cudaMemGetInfo(size_t *available, size_t *total) {
  *available = *total = MEMORY;
  return 0;
}
int cudaMemcpy(void *to, const void *from, size_t size, int kind) {
  return memmove(to, from, size), 0;
}
int cudaMemcpyAsync(void *to, const void *from, size_t size, int kind, void *stream) {
  return cudaMemcpy(to, from, size, kind);
}
int cudaMemset(void *to, int value, size_t size) { return memset(to, value, size), 0; }
int cudaMemsetAsync(void *to, int value, size_t size, void *stream) {
  return cudaMemset(to, value, size);
}

int cudaEventCreate(void **event) { return allocate(event, 8); }
int cudaEventCreateWithFlags(void **event, unsigned flags) { return allocate(event, 8); }
int cudaEventElapsedTime(float *milliseconds, void *first, void *last) {
  return *milliseconds = 1, 0;
}
int cudaStreamCreate(void **stream) { return allocate(stream, 8); }
int cudaStreamCreateWithFlags(void **stream, unsigned flags) { return allocate(stream, 8); }
int cudaStreamCreateWithPriority(void **stream, unsigned flags, int priority) {
  return allocate(stream, 8);
}
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
  return *least = *greatest = 0;
}

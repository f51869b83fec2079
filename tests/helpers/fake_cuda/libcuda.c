/* Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0. */
/* The driver of a card that is not there. */
#include <stddef.h>
#include <string.h>

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { return *version = 12040, 0; }
int cuDeviceGetCount(int *count) { return *count = 1, 0; }
int cuDeviceGet(int *device, int number) { return *device = number, 0; }
int cuDeviceGetName(char *name, int length, int device) { return strcpy(name, "no card"), 0; }
int cuDeviceTotalMem_v2(size_t *memory, int device) { return *memory = (size_t)16 << 30, 0; }
/* 75 and 76 are the two numbers of the compute capability. */
int cuDeviceGetAttribute(int *value, int which, int device) { return *value = which == 75 ? 8 : 0, 0; }

/* Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0. */
int nvrtcVersion(int *major, int *minor) { return *major = 11, *minor = 6, 0; }

/* Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0. */
/* Descriptors know the bytes that they describe; an algorithm is found and needs no memory. */
#include <stddef.h>
#include <string.h>

typedef long Descriptor;

static long bytes_of(int type) {
  switch (type) {
    case 1: return 8;          /* double */
    case 2: case 9: return 2;  /* half, bfloat16 */
    case 3: case 5: return 1;  /* int8, uint8 */
    default: return 4;
  }
}

static int describe(Descriptor *made, int type, int axes, const int *sizes) {
  *made = bytes_of(type);
  for (int i = 0; i < axes; i++) *made *= sizes[i];
  return 0;
}

int cudnnSetTensor4dDescriptor(Descriptor *made, int format, int type, int n, int c, int h, int w) {
  int sizes[] = {n, c, h, w};
  return describe(made, type, 4, sizes);
}
int cudnnSetFilter4dDescriptor(Descriptor *made, int type, int format, int n, int c, int h, int w) {
  int sizes[] = {n, c, h, w};
  return describe(made, type, 4, sizes);
}
int cudnnSetTensorNdDescriptor(Descriptor *made, int type, int axes, const int *sizes,
                               const int *strides) {
  return describe(made, type, axes, sizes);
}
int cudnnSetTensorNdDescriptorEx(Descriptor *made, int format, int type, int axes,
                                 const int *sizes) {
  return describe(made, type, axes, sizes);
}
int cudnnSetFilterNdDescriptor(Descriptor *made, int type, int format, int axes,
                               const int *sizes) {
  return describe(made, type, axes, sizes);
}
int cudnnGetTensorSizeInBytes(Descriptor *made, size_t *size) { return *size = *made, 0; }
int cudnnGetFilterSizeInBytes(Descriptor *made, size_t *size) { return *size = *made, 0; }
const char *cudnnGetErrorString(int code) { return code ? "error" : "success"; }
size_t cudnnGetVersion(void) { return 8905; }

#define WORKSPACE(name)                                                                       \
  int name(void *a, void *b, void *c, void *d, void *e, int algorithm, size_t *size) {       \
    return *size = 0, 0;                                                                      \
  }
WORKSPACE(cudnnGetConvolutionForwardWorkspaceSize)
WORKSPACE(cudnnGetConvolutionBackwardDataWorkspaceSize)
WORKSPACE(cudnnGetConvolutionBackwardFilterWorkspaceSize)

/* The first fields of an answer: algorithm, status. */
#define ALGORITHM(name)                                                                       \
  int name(void *a, void *b, void *c, void *d, void *e, int asked, int *count, int *answer) { \
    memset(answer, 0, 48);                                                                    \
    return answer[0] = *count = 1, 0;                                                         \
  }
ALGORITHM(cudnnGetConvolutionForwardAlgorithm_v7)
ALGORITHM(cudnnGetConvolutionBackwardDataAlgorithm_v7)
ALGORITHM(cudnnGetConvolutionBackwardFilterAlgorithm_v7)
ALGORITHM(cudnnFindConvolutionForwardAlgorithm)
ALGORITHM(cudnnFindConvolutionBackwardDataAlgorithm)
ALGORITHM(cudnnFindConvolutionBackwardFilterAlgorithm)

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// `roi_align.ROIAlign` and its gradient, cell by cell: most cells of a map give nothing to a box.
//
// Letters: N images, R boxes an image, B bins an axis that are kept, H x W cells, C channels.

#ifndef SRC_KERNELS_ROI_ALIGN_H_
#define SRC_KERNELS_ROI_ALIGN_H_

#include <cstdint>

#include "products.h"

struct Pooling {
  Pooling(const float *valid_size, const double *settings, int64_t kept)
      : rows(valid_size[0]),
        columns(valid_size[1]),
        scale(static_cast<float>(settings[0])),
        bins(static_cast<float>(settings[1])),
        step(static_cast<int64_t>(settings[2])),
        kept(kept) {}

  float rows, columns, scale, bins;
  int64_t step, kept;
};

struct Boxes {
  const float *data;  // (N * R, 4), pixels
  int64_t each;       // R
};

// Bins of features (N, H, W, C), in all (N * R * B * B, C): `count` of them from `first` on, to
// `out`, by one thread.
void PoolBins(const Boxes &boxes, const Pooling &pooling, const float *features, const Map &map,
              int64_t first, int64_t count, float *out);

// The gradient of the features from that of all bins, by all threads.
void SpreadBins(const Boxes &boxes, const Pooling &pooling, const float *gradient, const Map &map,
                float *out);

#endif  // SRC_KERNELS_ROI_ALIGN_H_

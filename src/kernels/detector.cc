// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
//
// Proposals and targets, as MindSpore's operator Custom calls them ("aot"), as all kernels here.
// Each gives bit for bit what its twin in src/defrcn gives, so it must be compiled with
// -ffp-contract=off; for proposals that holds where suppression is not decided by the rounding of
// its threshold.
//
// Letters: N images, A anchors, P proposals, G ground-truth slots, S samples of an image.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <vector>

#include "parallel.h"
#include "processors.h"

namespace {

struct Box {
  float x1, y1, x2, y2;
};

// Boxes by coordinate, as vector instructions like them.
struct Boxes {
  explicit Boxes(int64_t count) : x1(count), y1(count), x2(count), y2(count), area(count) {}

  void Set(int64_t i, const Box &box) {
    x1[i] = box.x1;
    y1[i] = box.y1;
    x2[i] = box.x2;
    y2[i] = box.y2;
    area[i] = (box.x2 - box.x1) * (box.y2 - box.y1);
  }

  Box Get(int64_t i) const { return {x1[i], y1[i], x2[i], y2[i]}; }

  std::vector<float> x1, y1, x2, y2, area;
};

// What two boxes have in common.
WITHIN float Overlap(const Box &box, const Boxes &others, int64_t i) {
  const float left = std::max(box.x1, others.x1[i]), right = std::min(box.x2, others.x2[i]);
  const float top = std::max(box.y1, others.y1[i]), bottom = std::min(box.y2, others.y2[i]);
  return std::max(right - left, 0.0f) * std::max(bottom - top, 0.0f);
}

// 0 where they do not overlap.
WITHIN float IoU(const Box &box, float area, const Boxes &others, int64_t i) {
  const float overlap = Overlap(box, others, i);
  const float all = area + others.area[i] - overlap;
  return overlap > 0.0f ? overlap / (overlap > 0.0f ? all : 1.0f) : 0.0f;
}

// IoU of one box with all others.
FOR_EACH_PROCESSOR void IoUs(const Box &box, float area, const Boxes &others, int64_t count,
                             float *iou) {
  for (int64_t i = 0; i < count; ++i) iou[i] = IoU(box, area, others, i);
}

// The places of the `count` largest keys, largest first, of equal ones the first; NaN is least.
std::vector<int32_t> BestFirst(const float *keys, int64_t size, int64_t count) {
  std::vector<int32_t> order(size);
  std::iota(order.begin(), order.end(), 0);
  const auto before = [keys](int32_t a, int32_t b) {
    const float lowest = -std::numeric_limits<float>::infinity();
    const float first = std::isnan(keys[a]) ? lowest : keys[a];
    const float second = std::isnan(keys[b]) ? lowest : keys[b];
    return first != second ? first > second : a < b;
  };
  count = std::min(count, size);
  if (count < size) std::nth_element(order.begin(), order.begin() + count, order.end(), before);
  std::sort(order.begin(), order.begin() + count, before);
  order.resize(count);
  return order;
}

// `box_ops.precise_exp`, in the same steps.
float PreciseExp(float value) {
  constexpr float kLog2E = static_cast<float>(1.0 / 0.693147180559945309417232121458);
  constexpr float kLn2High = 0.693359375f, kLn2Low = static_cast<float>(-2.12194440e-4);
  constexpr double kSeries[] = {1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120,
                                1.0 / 24,    1.0 / 6,    1.0 / 2};
  value = value < -80.0f ? -80.0f : value;
  const float twos = std::floor(value * kLog2E + 0.5f);
  const float exact = value - twos * kLn2High, small = twos * kLn2Low;
  const float rest = exact - small;
  float lost = (exact - rest) - small;
  float series = static_cast<float>(kSeries[0]);
  for (int i = 1; i < 7; ++i) series = series * rest + static_cast<float>(kSeries[i]);
  const float total = 1.0f + rest;
  lost = lost + (rest - (total - 1.0f));
  const float known = twos >= -116.0f ? std::min(twos, 127.0f) : -116.0f;
  return (total + (lost + rest * rest * series)) * std::ldexp(1.0f, static_cast<int>(known));
}

// `box_ops.decode_boxes`.
Box Decode(const float *deltas, const Box &anchor, const float *weights) {
  constexpr float kMaxScaleLog = 4.135166556742356f;  // ln(1000 / 16)
  const float width = anchor.x2 - anchor.x1, height = anchor.y2 - anchor.y1;
  const float centre_x = anchor.x1 + 0.5f * width, centre_y = anchor.y1 + 0.5f * height;
  float grow_x = deltas[2] / weights[2], grow_y = deltas[3] / weights[3];
  grow_x = grow_x > kMaxScaleLog ? kMaxScaleLog : grow_x;
  grow_y = grow_y > kMaxScaleLog ? kMaxScaleLog : grow_y;
  const float new_x = deltas[0] / weights[0] * width + centre_x;
  const float new_y = deltas[1] / weights[1] * height + centre_y;
  const float half_x = 0.5f * (PreciseExp(grow_x) * width);
  const float half_y = 0.5f * (PreciseExp(grow_y) * height);
  return {new_x - half_x, new_y - half_y, new_x + half_x, new_y + half_y};
}

bool IsFinite(const Box &box) {
  return std::isfinite(box.x1) && std::isfinite(box.y1) && std::isfinite(box.x2) &&
         std::isfinite(box.y2);
}

// What is no number becomes 0, as by the operators of `box_ops.clip_boxes`.
float Clip(float value, float limit) { return std::min(std::max(0.0f, value), limit); }

struct ProposalSettings {
  explicit ProposalSettings(const double *values)
      : pre_nms_topk(static_cast<int64_t>(values[0])),
        nms_threshold(values[1]),
        min_box_size(static_cast<float>(values[2])) {
    for (int i = 0; i < 4; ++i) weights[i] = static_cast<float>(values[3 + i]);
  }

  int64_t pre_nms_topk;
  double nms_threshold;
  float min_box_size;
  float weights[4];
};

// Says of boxes from `begin` to `end` whether their IoU with one may be above a threshold, of which
// `low` is a little less: no division, and hardly ever true.
FOR_EACH_PROCESSOR void MayOverlap(const Box &box, float area, const Boxes &others, int64_t begin,
                                   int64_t end, float low, int32_t *may) {
  for (int64_t i = begin; i < end; ++i) {
    const float overlap = Overlap(box, others, i);
    may[i - begin] = overlap >= low * (area + others.area[i] - overlap);
  }
}

// Drops, of boxes from `begin` to `end`, those that overlap too much with box i.
void DropOverlapping(const Boxes &boxes, int64_t i, int64_t begin, int64_t end, double threshold,
                     std::vector<char> *kept) {
  constexpr int64_t kAtATime = 512;
  const float low = static_cast<float>(threshold) * 0.999f;
  const Box box = boxes.Get(i);
  int32_t may[kAtATime];
  for (int64_t first = begin; first < end; first += kAtATime) {
    const int64_t last = std::min(first + kAtATime, end);
    MayOverlap(box, boxes.area[i], boxes, first, last, low, may);
    for (int64_t j = first; j < last; ++j) {
      if (!may[j - first] || !(*kept)[j]) continue;
      // In double precision, as the official code: IoU float32(0.3) is above 0.3.
      (*kept)[j] = static_cast<double>(IoU(box, boxes.area[i], boxes, j)) <= threshold;
    }
  }
}

// Greedy suppression among usable boxes, best first; ends once `enough` are kept. Some boxes are
// compared with each other first, then all later ones with what is left of them.
std::vector<char> Suppress(const Boxes &boxes, const std::vector<char> &usable, double threshold,
                           int64_t enough) {
  constexpr int64_t kBlock = 128;
  const int64_t count = static_cast<int64_t>(usable.size());
  std::vector<char> kept(usable);
  int64_t total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    for (int64_t i = begin; i < end; ++i) {
      if (!kept[i]) continue;
      if (++total == enough) {
        std::fill(kept.begin() + i + 1, kept.end(), 0);
        return kept;
      }
      DropOverlapping(boxes, i, i + 1, end, threshold, &kept);
    }
    InParallel(count - end, 1024, [&](int64_t from, int64_t to) {
      for (int64_t i = begin; i < end; ++i) {
        if (kept[i]) DropOverlapping(boxes, i, end + from, end + to, threshold, &kept);
      }
    });
  }
  return kept;
}

// `ProposalGenerator.of_image`.
void ImageProposals(const float *logits, const Box *anchors, const float *deltas,
                    const bool *anchor_valid, const float *image_size, int64_t num_anchors,
                    const ProposalSettings &settings, int64_t num_proposals, Box *boxes_out,
                    float *scores_out, bool *valid_out) {
  constexpr float kLowestScore = -1e30f;
  std::vector<float> scores(logits, logits + num_anchors);
  for (int64_t i = 0; i < num_anchors; ++i) {
    if (!anchor_valid[i]) scores[i] = kLowestScore;
  }
  const auto order = BestFirst(scores.data(), num_anchors, settings.pre_nms_topk);
  const int64_t count = static_cast<int64_t>(order.size());
  Boxes boxes(count);
  std::vector<char> usable(count);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t place = order[i];
    Box box = Decode(deltas + 4 * place, anchors[place], settings.weights);
    usable[i] = IsFinite(box) && scores[place] > kLowestScore;
    if (!usable[i]) box = {0, 0, 0, 0};
    box = {Clip(box.x1, image_size[1]), Clip(box.y1, image_size[0]), Clip(box.x2, image_size[1]),
           Clip(box.y2, image_size[0])};
    usable[i] &= box.x2 - box.x1 > settings.min_box_size;
    usable[i] &= box.y2 - box.y1 > settings.min_box_size;
    boxes.Set(i, box);
  }
  const auto kept = Suppress(boxes, usable, settings.nms_threshold, num_proposals);
  // What was kept first, then the others, both in order; the last one again if there are few.
  std::vector<int64_t> rows;
  for (const char wanted : {1, 0}) {
    for (int64_t i = 0; i < count && static_cast<int64_t>(rows.size()) < num_proposals; ++i) {
      if (kept[i] == wanted) rows.push_back(i);
    }
  }
  const int64_t total = std::count(kept.begin(), kept.end(), 1);
  for (int64_t i = 0; i < num_proposals; ++i) {
    const int64_t row = rows[std::min<int64_t>(i, rows.size() - 1)];
    boxes_out[i] = boxes.Get(row);
    scores_out[i] = scores[order[row]];
    valid_out[i] = i < total;
  }
}

struct Matching {
  std::vector<int32_t> matched;
  std::vector<float> labels;  // 1, 0 or -1
};

// `bbox_assign_sample.match`; `valid` are the boxes that take part, all if null.
Matching Match(const Box *gt_boxes, const bool *gt_valid, int64_t num_gt, const Boxes &boxes,
               const bool *valid, float low, float high, bool allow_low_quality) {
  const int64_t count = static_cast<int64_t>(boxes.area.size());
  Matching found{std::vector<int32_t>(count, 0), std::vector<float>(count)};
  std::vector<float> best(count, -1.0f), iou(count);
  std::vector<char> reached(count, 0);
  for (int64_t g = 0; g < num_gt; ++g) {
    if (!gt_valid[g]) continue;
    const Box &gt = gt_boxes[g];
    IoUs(gt, (gt.x2 - gt.x1) * (gt.y2 - gt.y1), boxes, count, iou.data());
    float most = -1.0f;
    for (int64_t i = 0; i < count; ++i) {
      if (valid != nullptr && !valid[i]) iou[i] = -1.0f;
      most = std::max(most, iou[i]);
    }
    for (int64_t i = 0; i < count; ++i) {
      if (iou[i] > best[i]) {
        best[i] = iou[i];
        found.matched[i] = static_cast<int32_t>(g);
      }
      reached[i] |= allow_low_quality && iou[i] == most;
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    const bool foreground = best[i] >= high || reached[i];
    found.labels[i] = foreground ? 1.0f : best[i] >= low ? -1.0f : 0.0f;
  }
  return found;
}

struct Samples {
  std::vector<int32_t> index;
  int64_t num_positive, num_valid;
};

// `bbox_assign_sample.subsample`.
Samples Subsample(const std::vector<float> &labels, const float *noise, int64_t num_samples,
                  int64_t most_positive) {
  const int64_t count = static_cast<int64_t>(labels.size());
  std::vector<float> keys(count);
  for (int64_t i = 0; i < count; ++i) keys[i] = (labels[i] + 1.0f) + noise[i];
  const int64_t positives = std::count(labels.begin(), labels.end(), 1.0f);
  const int64_t negatives = std::count(labels.begin(), labels.end(), 0.0f);
  const auto order = BestFirst(keys.data(), count, positives + num_samples);
  Samples drawn{std::vector<int32_t>(num_samples), std::min(positives, most_positive), 0};
  drawn.num_valid = std::min(drawn.num_positive + negatives, num_samples);
  for (int64_t slot = 0; slot < num_samples; ++slot) {
    const bool positive = slot < drawn.num_positive;
    const int64_t place = positive ? slot : slot - drawn.num_positive + positives;
    drawn.index[slot] = order[std::min(place, count - 1)];
  }
  return drawn;
}

template <typename T>
T *As(void *data) {
  return static_cast<T *>(data);
}

using Shapes = std::vector<std::vector<int64_t>>;

}  // namespace

// The last input of each kernel is read by nobody: its shape (R,) says how many rows R each image
// has in the outputs, which MindSpore asks for by the functions called ...InferShape.

// In: logits (N, A), deltas (N, A, 4), anchors (A, 4), anchor_valid (A,) bool, image_sizes (N, 2),
// settings (7,) float64, rows (P,). Out: boxes (N, P, 4), scores (N, P), valid (N, P) bool.
extern "C" int Proposals(int, void **params, int *, int64_t **shapes, const char **, void *,
                         void *) {
  const int64_t images = shapes[0][0], anchors = shapes[0][1], proposals = shapes[6][0];
  if (anchors == 0) return 1;
  const ProposalSettings settings(As<double>(params[5]));
  for (int64_t i = 0; i < images; ++i) {
    ImageProposals(As<float>(params[0]) + i * anchors, As<Box>(params[2]),
                   As<float>(params[1]) + i * anchors * 4, As<bool>(params[3]),
                   As<float>(params[4]) + i * 2, anchors, settings, proposals,
                   As<Box>(params[7]) + i * proposals, As<float>(params[8]) + i * proposals,
                   As<bool>(params[9]) + i * proposals);
  }
  return 0;
}

extern "C" Shapes ProposalsInferShape(int *, int64_t **shapes, void *) {
  const int64_t images = shapes[0][0], proposals = shapes[6][0];
  return {{images, proposals, 4}, {images, proposals}, {images, proposals}};
}

// In: features (N, H, W, C), of which only the size counts, anchors of a cell (B, 4), settings (2,)
// float64: stride, offset. Out: (H * W * B, 4).
extern "C" int Anchors(int, void **params, int *, int64_t **shapes, const char **, void *, void *) {
  const int64_t height = shapes[0][1], width = shapes[0][2], each = shapes[1][0];
  const Box *cell = As<Box>(params[1]);
  const double *settings = As<double>(params[2]);
  const float stride = static_cast<float>(settings[0]), offset = static_cast<float>(settings[1]);
  Box *to = As<Box>(params[3]);
  for (int64_t row = 0; row < height; ++row) {
    const float y = (static_cast<float>(row) + offset) * stride;
    for (int64_t column = 0; column < width; ++column) {
      const float x = (static_cast<float>(column) + offset) * stride;
      for (int64_t i = 0; i < each; ++i)
        *to++ = {x + cell[i].x1, y + cell[i].y1, x + cell[i].x2, y + cell[i].y2};
    }
  }
  return 0;
}

extern "C" Shapes AnchorsInferShape(int *, int64_t **shapes, void *) {
  // While a graph is compiled for all sizes, these are -1.
  const int64_t height = shapes[0][1], width = shapes[0][2];
  return {{height < 0 || width < 0 ? -1 : height * width * shapes[1][0], 4}};
}

// In: proposals (N, P, 4), deltas (N * P, 4 * K), image_sizes (N, 2), settings (4,) float64: box
// weights. Out: (N, P, K, 4).
extern "C" int PredictedBoxes(int, void **params, int *, int64_t **shapes, const char **, void *,
                              void *) {
  const int64_t images = shapes[0][0], proposals = shapes[0][1], classes = shapes[1][1] / 4;
  float weights[4];
  for (int i = 0; i < 4; ++i) weights[i] = static_cast<float>(As<double>(params[3])[i]);
  InParallel(images * proposals, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const float *size = As<float>(params[2]) + i / proposals * 2;
      for (int64_t k = i * classes; k < (i + 1) * classes; ++k) {
        const Box box = Decode(As<float>(params[1]) + 4 * k, As<Box>(params[0])[i], weights);
        As<Box>(params[4])[k] = {Clip(box.x1, size[1]), Clip(box.y1, size[0]),
                                 Clip(box.x2, size[1]), Clip(box.y2, size[0])};
      }
    }
  });
  return 0;
}

extern "C" Shapes PredictedBoxesInferShape(int *, int64_t **shapes, void *) {
  return {{shapes[0][0], shapes[0][1], shapes[1][1] / 4, 4}};
}

// In: anchors (A, 4), anchor_valid (A,) bool, gt_boxes (N, G, 4), gt_valid (N, G) bool,
// noise (N, A), settings (3,) float64: low, high, most positives, rows (S,). Out: index (N, S)
// int32, positive (N, S) bool, valid (N, S) bool, target (N, S, 4).
extern "C" int RPNTargets(int, void **params, int *, int64_t **shapes, const char **, void *,
                          void *) {
  const int64_t anchors = shapes[0][0], images = shapes[2][0], slots = shapes[2][1];
  const int64_t samples = shapes[6][0];
  if (anchors == 0 || slots == 0) return 1;
  const double *settings = As<double>(params[5]);
  const bool *anchor_valid = As<bool>(params[1]);
  Boxes boxes(anchors);
  for (int64_t i = 0; i < anchors; ++i) boxes.Set(i, As<Box>(params[0])[i]);
  for (int64_t image = 0; image < images; ++image) {
    const Box *gt_boxes = As<Box>(params[2]) + image * slots;
    auto match = Match(gt_boxes, As<bool>(params[3]) + image * slots, slots, boxes, anchor_valid,
                       static_cast<float>(settings[0]), static_cast<float>(settings[1]), true);
    for (int64_t i = 0; i < anchors; ++i) {
      if (!anchor_valid[i]) match.labels[i] = -1.0f;
    }
    const auto drawn = Subsample(match.labels, As<float>(params[4]) + image * anchors, samples,
                                 static_cast<int64_t>(settings[2]));
    for (int64_t slot = 0; slot < samples; ++slot) {
      const int64_t to = image * samples + slot;
      As<int32_t>(params[7])[to] = drawn.index[slot];
      As<bool>(params[8])[to] = slot < drawn.num_positive;
      As<bool>(params[9])[to] = slot < drawn.num_valid;
      As<Box>(params[10])[to] = gt_boxes[match.matched[drawn.index[slot]]];
    }
  }
  return 0;
}

extern "C" Shapes RPNTargetsInferShape(int *, int64_t **shapes, void *) {
  const int64_t images = shapes[2][0], samples = shapes[6][0];
  return {{images, samples}, {images, samples}, {images, samples}, {images, samples, 4}};
}

// In: proposals (N, P, 4), proposal_valid (N, P) bool, gt_boxes (N, G, 4), gt_classes (N, G)
// int32, gt_valid (N, G) bool, noise (N, >= P + G), settings (4,) float64: threshold, most
// positives, class of the background, whether the ground truth is appended, rows (S,).
// Out: boxes (N, S, 4), classes (N, S) int32, valid (N, S) bool, target (N, S, 4).
extern "C" int ROITargets(int, void **params, int *, int64_t **shapes, const char **, void *,
                          void *) {
  const int64_t images = shapes[0][0], proposals = shapes[0][1], slots = shapes[2][1];
  const int64_t columns = shapes[5][1], samples = shapes[7][0];
  const double *settings = As<double>(params[6]);
  const float threshold = static_cast<float>(settings[0]);
  const int64_t count = proposals + (settings[3] != 0 ? slots : 0);
  if (count == 0 || slots == 0 || columns < count) return 1;
  Boxes boxes(count);
  std::vector<char> valid(count);
  for (int64_t image = 0; image < images; ++image) {
    const Box *gt_boxes = As<Box>(params[2]) + image * slots;
    const bool *gt_valid = As<bool>(params[4]) + image * slots;
    for (int64_t i = 0; i < count; ++i) {
      const bool own = i < proposals;
      boxes.Set(i, own ? As<Box>(params[0])[image * proposals + i] : gt_boxes[i - proposals]);
      valid[i] = own ? As<bool>(params[1])[image * proposals + i] : gt_valid[i - proposals];
    }
    auto match = Match(gt_boxes, gt_valid, slots, boxes, nullptr, threshold, threshold, false);
    std::vector<float> labels(match.labels);
    for (int64_t i = 0; i < count; ++i) {
      if (!valid[i]) labels[i] = -1.0f;
    }
    const auto drawn = Subsample(labels, As<float>(params[5]) + image * columns, samples,
                                 static_cast<int64_t>(settings[1]));
    for (int64_t slot = 0; slot < samples; ++slot) {
      const int64_t to = image * samples + slot;
      const int32_t from = drawn.index[slot];
      const int32_t own_class = As<int32_t>(params[3])[image * slots + match.matched[from]];
      As<Box>(params[8])[to] = boxes.Get(from);
      As<int32_t>(params[9])[to] =
          match.labels[from] == 1.0f ? own_class : static_cast<int32_t>(settings[2]);
      As<bool>(params[10])[to] = slot < drawn.num_valid;
      As<Box>(params[11])[to] = gt_boxes[match.matched[from]];
    }
  }
  return 0;
}

extern "C" Shapes ROITargetsInferShape(int *, int64_t **shapes, void *) {
  const int64_t images = shapes[0][0], samples = shapes[7][0];
  return {{images, samples, 4}, {images, samples}, {images, samples}, {images, samples, 4}};
}

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#ifndef DEFRCN_DRAWING_H_
#define DEFRCN_DRAWING_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "detections.h"
#include "picture.h"

namespace defrcn {

// A letter is so many pixels wide and high, each pixel enlarged with the picture.
constexpr int kGlyphWidth = 5;
constexpr int kGlyphHeight = 7;

// Rows from the top, the leftmost pixel in bit 4. Letters that are not known are a frame.
std::array<std::uint8_t, kGlyphHeight> GlyphOf(char letter);

// Draws boxes with "label 0.87" above them, the most certain last, in the picture's own pixels.
// `detections` are by falling score; `labels` are the classes' names.
void Draw(const std::vector<Detection> &detections, const std::vector<std::string> &labels,
          Picture *picture);

}  // namespace defrcn

#endif  // DEFRCN_DRAWING_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "drawing.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace defrcn {
namespace {

using Rgb = std::array<std::uint8_t, 3>;

constexpr double kGoldenRatio = 0.6180339887498949;  // its multiples come back close to none

// The same in every picture, neighbours far apart.
Rgb ClassColour(std::size_t label) {
  const double hue = std::fmod(0.02 + static_cast<double>(label) * kGoldenRatio, 1.0) * 6.0;
  Rgb colour = {};
  for (std::size_t channel = 0; channel < 3; ++channel) {
    const double apart = std::abs(std::fmod(hue + 6.0 - 2.0 * static_cast<double>(channel), 6.0));
    const double share = std::clamp(2.0 - std::min(apart, 6.0 - apart), 0.0, 1.0);
    colour[channel] = static_cast<std::uint8_t>(std::lround(40.0 + 200.0 * share));
  }
  return colour;
}

// Black on light colours, white on dark ones.
Rgb InkOn(const Rgb &colour) {
  const int light = 30 * colour[0] + 59 * colour[1] + 11 * colour[2];
  return light > 13000 ? Rgb{20, 20, 20} : Rgb{255, 255, 255};
}

// Pixels from `left`, `top` up to but without `right`, `bottom`, as far as they are in the picture.
void Fill(int left, int top, int right, int bottom, const Rgb &colour, Picture *picture) {
  const int columns = std::min(right, picture->size.width);
  for (int row = std::max(top, 0); row < std::min(bottom, picture->size.height); ++row) {
    for (int column = std::max(left, 0); column < columns; ++column) {
      std::copy(colour.begin(), colour.end(), picture->At(row, column));
    }
  }
}

void DrawFrame(const Box &box, int line, const Rgb &colour, Picture *picture) {
  const int left = static_cast<int>(std::lround(box[0])),
            top = static_cast<int>(std::lround(box[1]));
  const int right = std::max(static_cast<int>(std::lround(box[2])), left + 1);
  const int bottom = std::max(static_cast<int>(std::lround(box[3])), top + 1);
  Fill(left, top, right, std::min(top + line, bottom), colour, picture);
  Fill(left, std::max(bottom - line, top), right, bottom, colour, picture);
  Fill(left, top, std::min(left + line, right), bottom, colour, picture);
  Fill(std::max(right - line, left), top, right, bottom, colour, picture);
}

void DrawText(const std::string &text, int left, int top, int scale, const Rgb &ink,
              Picture *picture) {
  for (const char letter : text) {
    const auto rows = GlyphOf(letter);
    for (int row = 0; row < kGlyphHeight; ++row) {
      for (int column = 0; column < kGlyphWidth; ++column) {
        if ((rows[static_cast<std::size_t>(row)] >> (kGlyphWidth - 1 - column) & 1) != 0) {
          const int x = left + column * scale, y = top + row * scale;
          Fill(x, y, x + scale, y + scale, ink, picture);
        }
      }
    }
    left += (kGlyphWidth + 1) * scale;
  }
}

// Above the box, or inside where there is no room; moved left if it would leave the picture.
void DrawTag(const std::string &text, const Box &box, int scale, const Rgb &colour,
             Picture *picture) {
  const int width = (static_cast<int>(text.size()) * (kGlyphWidth + 1) + 1) * scale;
  const int height = (kGlyphHeight + 2) * scale;
  const int top = static_cast<int>(std::lround(box[1]));
  const int y = top >= height ? top - height : top;
  const int x =
      std::max(std::min(static_cast<int>(std::lround(box[0])), picture->size.width - width), 0);
  Fill(x, y, x + width, y + height, colour, picture);
  DrawText(text, x + scale, y + scale, scale, InkOn(colour), picture);
}

// One letter for each character: the bytes of one that is not ASCII count once.
std::string OneByteLetters(const std::string &text) {
  std::string letters;
  for (const char byte : text) {
    if ((static_cast<unsigned char>(byte) & 0xC0) != 0x80) {
      letters += byte;
    }
  }
  return letters;
}

}  // namespace

void Draw(const std::vector<Detection> &detections, const std::vector<std::string> &labels,
          Picture *picture) {
  const int edge = std::max(picture->size.height, picture->size.width);
  const int line = std::max(edge / 400, 1), scale = std::max(edge / 500, 1);
  for (auto one = detections.rbegin(); one != detections.rend(); ++one) {
    DrawFrame(one->box, line, ClassColour(one->label), picture);
  }
  for (auto one = detections.rbegin(); one != detections.rend(); ++one) {
    char score[32];
    std::snprintf(score, sizeof(score), " %.2f", static_cast<double>(one->score));
    DrawTag(OneByteLetters(labels[one->label]) + score, one->box, scale, ClassColour(one->label),
            picture);
  }
}

}  // namespace defrcn

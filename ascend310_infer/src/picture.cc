// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "picture.h"

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace defrcn {
namespace {

// Weights are whole numbers of 22 bits behind the point: 8 bits of a pixel and a spare one for
// rounding fit above them into 32.
constexpr int kWeightBits = 32 - 8 - 2;

// What one pixel of the result takes of a row (or column): `weights` from pixel `first` on.
struct Tap {
  int first = 0;
  int count = 0;
  std::size_t offset = 0;  // of the first of its weights
};

struct Taps {
  std::vector<Tap> places;
  std::vector<std::int32_t> weights;
};

// A triangle as wide as the pixels of the result, if these are larger than those of the source.
Taps BilinearTaps(int from, int to) {
  const double scale = static_cast<double>(from) / to;
  const double support = std::max(scale, 1.0);
  const double steepness = 1.0 / support;
  Taps taps;
  taps.places.reserve(static_cast<std::size_t>(to));
  std::vector<double> parts;
  for (int place = 0; place < to; ++place) {
    const double centre = (place + 0.5) * scale;
    const int first = std::max(static_cast<int>(centre - support + 0.5), 0);
    const int end = std::min(static_cast<int>(centre + support + 0.5), from);
    parts.clear();
    double total = 0.0;
    for (int source = 0; source < end - first; ++source) {
      const double distance = std::abs((source + first - centre + 0.5) * steepness);
      parts.push_back(std::max(1.0 - distance, 0.0));
      total += parts.back();
    }
    taps.places.push_back({first, end - first, taps.weights.size()});
    for (const double part : parts) {
      const double share = total != 0.0 ? part / total : part;
      taps.weights.push_back(static_cast<std::int32_t>(0.5 + share * (1 << kWeightBits)));
    }
  }
  return taps;
}

std::uint8_t ToByte(std::int32_t sum) {
  return static_cast<std::uint8_t>(std::clamp(sum >> kWeightBits, 0, 255));
}

constexpr std::int32_t kHalf = 1 << (kWeightBits - 1);

Picture ResizedAcross(const Picture &picture, int width) {
  const Taps taps = BilinearTaps(picture.size.width, width);
  Picture result({picture.size.height, width});
  for (int row = 0; row < picture.size.height; ++row) {
    std::uint8_t *target = result.At(row, 0);
    for (const Tap &tap : taps.places) {
      const std::int32_t *weight = taps.weights.data() + tap.offset;
      const std::uint8_t *source = picture.At(row, tap.first);
      std::int32_t red = kHalf, green = kHalf, blue = kHalf;
      for (int step = 0; step < tap.count; ++step, source += 3) {
        red += source[0] * weight[step];
        green += source[1] * weight[step];
        blue += source[2] * weight[step];
      }
      *target++ = ToByte(red);
      *target++ = ToByte(green);
      *target++ = ToByte(blue);
    }
  }
  return result;
}

Picture ResizedDown(const Picture &picture, int height) {
  const Taps taps = BilinearTaps(picture.size.height, height);
  Picture result({height, picture.size.width});
  const std::size_t bytes = static_cast<std::size_t>(picture.size.width) * 3;
  std::vector<std::int32_t> sums(bytes);
  for (int row = 0; row < height; ++row) {
    const Tap &tap = taps.places[static_cast<std::size_t>(row)];
    std::fill(sums.begin(), sums.end(), kHalf);
    for (int step = 0; step < tap.count; ++step) {
      const std::int32_t weight = taps.weights[tap.offset + static_cast<std::size_t>(step)];
      const std::uint8_t *source = picture.At(tap.first + step, 0);
      for (std::size_t place = 0; place < bytes; ++place) {
        sums[place] += source[place] * weight;
      }
    }
    std::transform(sums.begin(), sums.end(), result.At(row, 0), ToByte);
  }
  return result;
}

}  // namespace

std::string Describe(const Size &size) {
  return std::to_string(size.width) + " x " + std::to_string(size.height);
}

Picture Oriented(Picture picture, int orientation) {
  if (orientation < 2 || orientation > 8) {
    return picture;
  }
  // From 5 on rows and columns change places; where the first pixel of a row comes from follows.
  const bool turned = orientation >= 5;
  const bool from_right =
      orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
  const bool from_below =
      orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
  const int height = picture.size.height, width = picture.size.width;
  Picture result(turned ? Size{width, height} : picture.size);
  for (int row = 0; row < result.size.height; ++row) {
    std::uint8_t *target = result.At(row, 0);
    for (int column = 0; column < result.size.width; ++column, target += 3) {
      const int y = turned ? column : row, x = turned ? row : column;
      std::memcpy(target,
                  picture.At(from_below ? height - 1 - y : y, from_right ? width - 1 - x : x), 3);
    }
  }
  return result;
}

Size ResizedSize(Size size, int min_size, int max_size) {
  const double scale = static_cast<double>(min_size) / std::min(size.height, size.width);
  double height = min_size, width = min_size;
  if (size.height < size.width) {
    width = scale * size.width;
  } else {
    height = scale * size.height;
  }
  const double longest = std::max(height, width);
  if (longest > max_size) {
    const double shrink = max_size / longest;
    height *= shrink;
    width *= shrink;
  }
  // An extreme strip would round to nothing.
  return {std::max(static_cast<int>(height + 0.5), 1), std::max(static_cast<int>(width + 0.5), 1)};
}

Picture Resized(const Picture &picture, Size size) {
  // Rows first; only where the height alone shrinks, columns.
  if (size.height < picture.size.height && size.width > picture.size.width) {
    return ResizedAcross(ResizedDown(picture, size.height), size.width);
  }
  if (size.width == picture.size.width) {
    return size.height == picture.size.height ? picture : ResizedDown(picture, size.height);
  }
  if (size.height == picture.size.height) {
    return ResizedAcross(picture, size.width);
  }
  return ResizedDown(ResizedAcross(picture, size.width), size.height);
}

}  // namespace defrcn

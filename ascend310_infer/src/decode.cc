// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "decode.h"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include "error.h"
#include "exif.h"

namespace defrcn {
namespace {

constexpr std::array<std::uint8_t, 8> kPngStart = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};
constexpr std::array<std::uint8_t, 3> kJpegStart = {0xFF, 0xD8, 0xFF};

template <typename Start>
bool StartsWith(const Buffer &content, const Start &start) {
  return content.size() >= start.size() && std::equal(start.begin(), start.end(), content.begin());
}

// Pillow takes ink off 255: (255 - c) * (255 - k) / 255, where the file holds 255 minus the ink.
std::uint8_t PillowColour(int stored, int stored_black) {
  const int product = (255 - stored) * stored_black + 128;
  return static_cast<std::uint8_t>(
      std::clamp(stored_black - (((product >> 8) + product) >> 8), 0, 255));
}

// OpenCV divides by 256.
std::uint8_t OpenCvColour(int stored, int stored_black) {
  return static_cast<std::uint8_t>(stored_black - (((255 - stored) * stored_black) >> 8));
}

template <typename Colour>
Picture FromCmyk(const Raw &raw, Colour colour) {
  Picture picture(raw.size);
  const std::uint8_t *source = raw.pixels.data();
  for (std::size_t place = 0; place < picture.rgb.size(); place += 3, source += 4) {
    for (std::size_t channel = 0; channel < 3; ++channel) {
      picture.rgb[place + channel] = colour(source[channel], source[3]);
    }
  }
  return picture;
}

}  // namespace

void CheckPixels(std::int64_t height, std::int64_t width, std::int64_t max_pixels) {
  if (height < 1 || width < 1) {
    throw InputError("it has no pixels");
  }
  if (height > max_pixels / width) {
    throw InputError(std::to_string(width) + " x " + std::to_string(height) +
                     " pixels are over the limit of " + std::to_string(max_pixels));
  }
}

Decoded Decode(const Buffer &content, std::int64_t max_pixels) {
  Raw raw;
  if (StartsWith(content, kPngStart)) {
    raw = DecodePng(content, max_pixels);
  } else if (StartsWith(content, kJpegStart)) {
    raw = DecodeJpeg(content, max_pixels);
  } else {
    throw InputError("not a readable picture (neither JPEG nor PNG)");
  }
  const int orientation = OrientationOf(raw.exif, raw.xmp);
  Decoded decoded;
  if (raw.channels == 4) {
    decoded.by_opencv = Oriented(FromCmyk(raw, OpenCvColour), orientation);
    decoded.picture = FromCmyk(raw, PillowColour);
  } else {
    decoded.picture.size = raw.size;
    decoded.picture.rgb = std::move(raw.pixels);
  }
  decoded.picture = Oriented(std::move(decoded.picture), orientation);
  return decoded;
}

}  // namespace defrcn

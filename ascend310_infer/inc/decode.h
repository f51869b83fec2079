// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// From the bytes of a JPEG or PNG to pixels, and back to a PNG.
#ifndef DEFRCN_DECODE_H_
#define DEFRCN_DECODE_H_

#include <cstdint>
#include <optional>
#include <string>

#include "file_io.h"
#include "picture.h"

namespace defrcn {

struct Decoded {
  Picture picture;  // as src/data/transforms.py decodes it, with Pillow
  // As src/calibration/pictures.py reads it, with OpenCV, where that differs: CMYK.
  std::optional<Picture> by_opencv;
};

// Decodes a JPEG or PNG to 8 bits and three channels, turned as its EXIF orientation says. Throws
// InputError, which says what is wrong but not with which file: larger than `max_pixels`, damaged,
// or of another kind.
Decoded Decode(const Buffer &content, std::int64_t max_pixels);

Buffer EncodePng(const Picture &picture);

// What the two decoders find.
struct Raw {
  Size size;
  int channels = 3;
  Buffer pixels;     // height * width * channels; four channels are C, M, Y, K as in the file
  std::string exif;  // as a block of the file
  std::string xmp;
};

// Both throw InputError.
Raw DecodeJpeg(const Buffer &content, std::int64_t max_pixels);
Raw DecodePng(const Buffer &content, std::int64_t max_pixels);

// Throws InputError if there are more than `max_pixels`.
void CheckPixels(std::int64_t height, std::int64_t width, std::int64_t max_pixels);

}  // namespace defrcn

#endif  // DEFRCN_DECODE_H_

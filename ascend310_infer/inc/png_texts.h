// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// What the chunks of a PNG beside its pixels say of how the camera was held.
#ifndef DEFRCN_PNG_TEXTS_H_
#define DEFRCN_PNG_TEXTS_H_

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "decode.h"

namespace defrcn {

// Pillow's MAX_TEXT_CHUNK, of a text once it is unpacked, and MAX_TEXT_MEMORY, of all of them: a
// small file can unpack to a thousand times its size.
constexpr std::size_t kMaxPngText = std::size_t{1} << 20;
constexpr std::size_t kMaxPngTexts = 64 * kMaxPngText;

// Keeps EXIF, and the two texts in which programs put EXIF and XMP; of several the last counts, as
// with Pillow. All other chunks are passed over, still packed.
class PngTexts {
 public:
  // Looks at a chunk, of a name of four letters. Throws InputError, which says what is wrong but
  // not with which chunk, where Pillow refuses the picture for it.
  void Take(std::string_view kind, std::string_view data);

  void MoveTo(Raw *raw);

 private:
  void TakePacked(std::string_view packed, std::string *target);
  void TakeInternational(bool xmp, std::string_view data, std::string *target);
  std::optional<std::string> Unpacked(std::string_view packed);
  void Count(std::size_t bytes);

  std::optional<std::string> exif_;
  std::string profile_;  // EXIF in hexadecimal digits
  std::string xmp_;
  std::string raw_xmp_;  // of the last iTXt, also if it is no UTF-8
  std::size_t used_ = 0;
};

}  // namespace defrcn

#endif  // DEFRCN_PNG_TEXTS_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "utf8.h"

#include <string_view>

namespace defrcn {

bool IsUtf8(std::string_view text) {
  int following = 0;
  unsigned least = 0x80, most = 0xBF;  // of the next of them
  for (const char letter : text) {
    const unsigned byte = static_cast<unsigned char>(letter);
    if (following > 0) {
      if (byte < least || byte > most) {
        return false;
      }
      --following;
      least = 0x80;
      most = 0xBF;
    } else if (byte >= 0xC2 && byte <= 0xF4) {
      following = byte < 0xE0 ? 1 : byte < 0xF0 ? 2 : 3;
      least = byte == 0xE0 ? 0xA0 : byte == 0xF0 ? 0x90 : 0x80;
      most = byte == 0xED ? 0x9F : byte == 0xF4 ? 0x8F : 0xBF;
    } else if (byte >= 0x80) {
      return false;
    }
  }
  return following == 0;
}

}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "exif.h"

#include <cctype>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace defrcn {
namespace {

constexpr std::string_view kExifHead("Exif\0\0", 6);
constexpr std::uint32_t kOrientationTag = 0x0112;

// Numbers of a TIFF structure in its own order of bytes.
class Tiff {
 public:
  explicit Tiff(std::string_view data) : data_(data), little_(data.substr(0, 2) == "II") {}

  bool Good() const {
    const std::string_view order = data_.substr(0, 2);
    return data_.size() >= 8 && (order == "II" || order == "MM") && Number(2, 2) == 42;
  }

  // The value of the orientation; 0 if it has another type than a whole number.
  std::optional<std::int64_t> Orientation() const {
    const std::size_t first = Number(4, 4);
    std::optional<std::int64_t> found;
    const std::size_t count = Number(first, 2);
    for (std::size_t place = 0; place < count; ++place) {
      const std::size_t entry = first + 2 + 12 * place;
      if (entry + 12 > data_.size()) {
        break;
      }
      if (Number(entry, 2) == kOrientationTag) {
        const std::optional<std::int64_t> value = ValueOf(entry);
        found = value ? value : found;
      }
    }
    return found;
  }

 private:
  // `bytes` at `offset`; 0 beyond the end.
  std::uint64_t Number(std::size_t offset, std::size_t bytes) const {
    if (offset > data_.size() || bytes > data_.size() - offset) {
      return 0;
    }
    std::uint64_t value = 0;
    for (std::size_t place = 0; place < bytes; ++place) {
      const std::size_t from = little_ ? bytes - 1 - place : place;
      value = value << 8 | static_cast<std::uint8_t>(data_[offset + from]);
    }
    return value;
  }

  // The first number of an entry: its type, how many there are, and they or where they are.
  std::optional<std::int64_t> ValueOf(std::size_t entry) const {
    constexpr std::uint32_t kBytes[] = {0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8};
    const std::uint64_t type = Number(entry + 2, 2), count = Number(entry + 4, 4);
    if (type >= std::size(kBytes) || kBytes[type] == 0 || count == 0) {
      return std::nullopt;
    }
    const std::uint64_t bytes = kBytes[type] * count;
    const std::size_t offset = bytes > 4 ? Number(entry + 8, 4) : entry + 8;
    if (offset > data_.size() || bytes > data_.size() - offset) {
      return std::nullopt;
    }
    switch (type) {
      case 3:
      case 4:
      case 13:
      case 16:
        return static_cast<std::int64_t>(Number(offset, kBytes[type]));
      case 6:
        return static_cast<std::int8_t>(Number(offset, 1));
      case 8:
        return static_cast<std::int16_t>(Number(offset, 2));
      case 9:
        return static_cast<std::int32_t>(Number(offset, 4));
      default:
        return 0;
    }
  }

  std::string_view data_;
  bool little_;
};

// The digit behind the first tiff:Orientation=" or tiff:Orientation>.
int XmpOrientation(std::string_view xmp) {
  constexpr std::string_view kName = "tiff:Orientation";
  for (std::size_t at = xmp.find(kName); at != std::string_view::npos; at = xmp.find(kName, at)) {
    at += kName.size();
    const std::string_view rest = xmp.substr(at);
    const std::size_t digit = rest.substr(0, 2) == "=\"" ? 2 : rest.substr(0, 1) == ">" ? 1 : 0;
    if (digit != 0 && rest.size() > digit && rest[digit] >= '0' && rest[digit] <= '9') {
      return rest[digit] - '0';
    }
  }
  return 1;
}

}  // namespace

int OrientationOf(const std::string &exif, const std::string &xmp) {
  std::string_view data = exif;
  while (data.substr(0, kExifHead.size()) == kExifHead) {
    data.remove_prefix(kExifHead.size());
  }
  const Tiff tiff(data);
  const std::optional<std::int64_t> found = tiff.Good() ? tiff.Orientation() : std::nullopt;
  if (!found) {
    return XmpOrientation(xmp);
  }
  return *found >= 1 && *found <= 8 ? static_cast<int>(*found) : 1;
}

std::string RawProfile(const std::string &text) {
  std::size_t at = 0;
  for (int line = 0; line < 3; ++line) {
    at = text.find('\n', at);
    if (at == std::string::npos) {
      return "";
    }
    ++at;
  }
  std::string digits;
  for (const char letter : text.substr(at)) {
    const auto code = static_cast<unsigned char>(letter);
    if (std::isxdigit(code) != 0) {
      digits += letter;
    } else if (std::isspace(code) == 0) {
      return "";
    }
  }
  std::string bytes;
  for (std::size_t place = 0; place + 1 < digits.size(); place += 2) {
    bytes += static_cast<char>(std::stoi(digits.substr(place, 2), nullptr, 16));
  }
  return bytes;
}

}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "png_texts.h"

#include <zlib.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "error.h"
#include "exif.h"
#include "utf8.h"

namespace defrcn {
namespace {

constexpr std::string_view kXmpKey = "XML:com.adobe.xmp";
constexpr std::string_view kProfileKey = "Raw profile type exif";

// Takes the part before the first zero, and the zero, off the front; everything if there is none,
// which `found` says.
std::string_view TakeWord(std::string_view *rest, bool *found = nullptr) {
  const std::size_t zero = rest->find('\0');
  const std::string_view word = rest->substr(0, zero);
  rest->remove_prefix(std::min(word.size() + 1, rest->size()));
  if (found != nullptr) {
    *found = zero != std::string_view::npos;
  }
  return word;
}

}  // namespace

void PngTexts::Take(std::string_view kind, std::string_view data) {
  if (kind == "eXIf") {
    exif_.emplace(data);
    return;
  }
  if (kind != "tEXt" && kind != "zTXt" && kind != "iTXt") {
    return;
  }
  const std::string_view key = TakeWord(&data);
  if (key != kXmpKey && key != kProfileKey) {
    return;
  }
  std::string *target = key == kXmpKey ? &xmp_ : &profile_;
  if (kind == "tEXt") {
    Count(data.size());
    *target = data;
  } else if (kind == "zTXt") {
    TakePacked(data, target);
  } else {
    TakeInternational(key == kXmpKey, data, target);
  }
}

void PngTexts::MoveTo(Raw *raw) {
  raw->exif = exif_ ? std::move(*exif_) : RawProfile(profile_);
  raw->xmp = std::move(xmp_.empty() ? raw_xmp_ : xmp_);
}

// The method, then the text; a damaged one counts as an empty one.
void PngTexts::TakePacked(std::string_view packed, std::string *target) {
  if (!packed.empty() && packed[0] != 0) {
    throw InputError("a text that is packed in an unknown way");
  }
  packed.remove_prefix(std::min<std::size_t>(packed.size(), 1));
  *target = Unpacked(packed).value_or("");
}

// Whether it is packed, the method, a language, the key in that language, the text. A damaged one
// does not count; one that is no UTF-8 only as XMP, where there is no other.
void PngTexts::TakeInternational(bool xmp, std::string_view data, std::string *target) {
  if (data.size() < 2) {
    return;
  }
  const bool packed = data[0] != 0, known = data[1] == 0;
  data.remove_prefix(2);
  bool whole = false;
  const std::string_view language = TakeWord(&data);
  const std::string_view name = TakeWord(&data, &whole);
  if (!whole || (packed && !known)) {
    return;
  }
  std::optional<std::string> text;
  if (packed) {
    text = Unpacked(data);
  } else {
    Count(data.size());
    text.emplace(data);
  }
  if (!text) {
    return;
  }
  if (xmp) {
    raw_xmp_ = *text;
  }
  if (IsUtf8(language) && IsUtf8(name) && IsUtf8(*text)) {
    *target = std::move(*text);
  }
}

// As Python's zlib with a limit: of a text that breaks off what is there, of a damaged one nothing.
std::optional<std::string> PngTexts::Unpacked(std::string_view packed) {
  z_stream stream = {};
  if (inflateInit(&stream) != Z_OK) {
    throw std::bad_alloc();
  }
  const std::unique_ptr<z_stream, int (*)(z_stream *)> ended(&stream, inflateEnd);
  std::string text(kMaxPngText, '\0');
  stream.next_in = reinterpret_cast<Bytef *>(const_cast<char *>(packed.data()));
  stream.avail_in = static_cast<uInt>(packed.size());
  stream.next_out = reinterpret_cast<Bytef *>(text.data());
  stream.avail_out = static_cast<uInt>(text.size());
  const int status = inflate(&stream, Z_SYNC_FLUSH);
  text.resize(text.size() - stream.avail_out);
  Count(text.size());  // of a damaged one, too: it takes as long
  if (status != Z_OK && status != Z_BUF_ERROR && status != Z_STREAM_END) {
    return std::nullopt;
  }
  if (status != Z_STREAM_END && stream.avail_in > 0) {
    throw InputError("a text of more than 1 MiB, once it is unpacked");
  }
  return text;
}

void PngTexts::Count(std::size_t bytes) {
  used_ += bytes;
  if (used_ > kMaxPngTexts) {
    throw InputError("texts of more than 64 MiB in all");
  }
}

}  // namespace defrcn

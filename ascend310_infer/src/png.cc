// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Decoding and encoding with libpng, whose errors come back by longjmp: nothing that has a
// destructor may live in a function between a step and the setjmp.
#include <png.h>

#include <algorithm>
#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "decode.h"
#include "error.h"
#include "png_texts.h"

namespace defrcn {
namespace {

// Of a chunk beside the pixels: one of all the text that there may be. Larger ones are skipped.
constexpr std::size_t kMaxChunk = kMaxPngTexts + kMaxPngText;
constexpr int kCompression = 3;  // of drawn pictures: half the time of the usual 6

// What both directions share: the error's way back, and its text.
class PngUser {
 protected:
  template <typename Body>
  bool Completes(Body body) {
    return CompletesAt(&body);
  }

  template <typename Body>
  bool CompletesAt(Body *body) {
    if (setjmp(return_) != 0) {
      return false;
    }
    (*body)();
    return true;
  }

  static void OnError(png_structp png, png_const_charp message) {
    auto *self = static_cast<PngUser *>(png_get_error_ptr(png));
    std::snprintf(self->message_, sizeof(self->message_), "%s", message);
    std::longjmp(self->return_, 1);
  }

  static void OnWarning(png_structp, png_const_charp) {}

  std::jmp_buf return_ = {};
  char message_[200] = "no memory";
};

class PngDecoder : public PngUser {
 public:
  explicit PngDecoder(const Buffer &content) : data_(content.data()), left_(content.size()) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, static_cast<PngUser *>(this), OnError,
                                  OnWarning);
    info_ = png_ == nullptr ? nullptr : png_create_info_struct(png_);
  }
  PngDecoder(const PngDecoder &) = delete;
  PngDecoder &operator=(const PngDecoder &) = delete;
  ~PngDecoder() { png_destroy_read_struct(&png_, &info_, nullptr); }

  Raw Decode(std::int64_t max_pixels) {
    Step([this] { ReadHeader(); });
    CheckPixels(png_get_image_height(png_, info_), png_get_image_width(png_, info_), max_pixels);
    Raw raw;
    raw.size = {static_cast<int>(png_get_image_height(png_, info_)),
                static_cast<int>(png_get_image_width(png_, info_))};
    const bool palette = png_get_color_type(png_, info_) == PNG_COLOR_TYPE_PALETTE;
    const std::size_t row = static_cast<std::size_t>(raw.size.width) * (palette ? 1 : 3);
    raw.pixels.resize(row * static_cast<std::size_t>(raw.size.height));
    std::vector<png_bytep> rows;
    for (std::size_t place = 0; place < raw.pixels.size(); place += row) {
      rows.push_back(raw.pixels.data() + place);
    }
    png_bytep *targets = rows.data();
    Step([this, row, targets] { ReadPixels(row, targets); });
    if (palette) {
      raw.pixels = FromPalette(raw.pixels);
    }
    // What follows the pixels may turn them; if it is damaged, they are all there.
    if (!Completes([this] { png_read_end(png_, info_); }) && refused_) {
      Refuse();
    }
    texts_.MoveTo(&raw);
    return raw;
  }

 private:
  template <typename Body>
  void Step(Body body) {
    if (info_ == nullptr || !CompletesAt(&body)) {
      Refuse();
    }
  }

  [[noreturn]] void Refuse() const {
    throw InputError(std::string("not a readable picture (") + message_ + ")");
  }

  void ReadHeader() {
    png_set_read_fn(png_, this, OnRead);
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_crc_action(png_, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    // The library would unpack and keep texts, profiles and palettes, as many as there are. It gets
    // what makes the pixels; OnChunk sees all the rest, of which the library stores nothing.
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
    png_set_read_user_chunk_fn(png_, this, OnChunk);
    // A chunk gets its memory before it is read: none can be larger than the file.
    png_set_chunk_malloc_max(png_, std::min(kMaxChunk, left_));
    png_read_info(png_, info_);
  }

  void ReadPixels(std::size_t row, png_bytep *targets) {
    const int colours = png_get_color_type(png_, info_);
    png_set_packing(png_);
    if ((colours & PNG_COLOR_MASK_COLOR) == 0) {
      png_set_expand_gray_1_2_4_to_8(png_);
      png_set_gray_to_rgb(png_);
    }
    png_set_strip_16(png_);
    png_set_strip_alpha(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    if (png_get_rowbytes(png_, info_) != row) {
      png_error(png_, "its pixels are of an unknown kind");
    }
    png_read_image(png_, targets);
  }

  // The library would make a colour that the palette lacks black, Pillow a grey.
  Buffer FromPalette(const Buffer &places) const {
    png_colorp colours = nullptr;
    int count = 0;
    png_get_PLTE(png_, info_, &colours, &count);
    Buffer pixels;
    pixels.reserve(places.size() * 3);
    for (const std::uint8_t place : places) {
      if (place >= count) {
        throw InputError("not a readable picture (pixels of a colour that its palette lacks)");
      }
      pixels.insert(pixels.end(), {colours[place].red, colours[place].green, colours[place].blue});
    }
    return pixels;
  }

  // No exception may pass through the library; its error only comes when there is none any more.
  static int OnChunk(png_structp png, png_unknown_chunkp chunk) {
    constexpr png_byte kMayBeSkipped = 0x20;  // of the first letter
    if ((chunk->name[0] & kMayBeSkipped) == 0) {
      return 0;  // an error
    }
    auto *self = static_cast<PngDecoder *>(png_get_user_chunk_ptr(png));
    char reason[sizeof(self->message_)] = "no memory";
    try {
      const char *data = reinterpret_cast<const char *>(chunk->data);
      self->texts_.Take(reinterpret_cast<const char *>(chunk->name), {data, chunk->size});
    } catch (const InputError &error) {
      std::snprintf(reason, sizeof(reason), "%s", error.what());
      self->refused_ = true;
    } catch (const std::bad_alloc &) {
      self->refused_ = true;
    }
    if (self->refused_) {
      png_chunk_error(png, reason);
    }
    return 1;  // it is not to be stored
  }

  static void OnRead(png_structp png, png_bytep target, std::size_t bytes) {
    auto *self = static_cast<PngDecoder *>(png_get_io_ptr(png));
    if (bytes > self->left_) {
      png_error(png, "the file is truncated");
    }
    std::memcpy(target, self->data_, bytes);
    self->data_ += bytes;
    self->left_ -= bytes;
  }

  const std::uint8_t *data_;
  std::size_t left_;
  PngTexts texts_;
  bool refused_ = false;  // for one of them
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

class PngEncoder : public PngUser {
 public:
  PngEncoder() {
    png_ = png_create_write_struct(PNG_LIBPNG_VER_STRING, static_cast<PngUser *>(this), OnError,
                                   OnWarning);
    info_ = png_ == nullptr ? nullptr : png_create_info_struct(png_);
  }
  PngEncoder(const PngEncoder &) = delete;
  PngEncoder &operator=(const PngEncoder &) = delete;
  ~PngEncoder() { png_destroy_write_struct(&png_, &info_); }

  Buffer Encode(const Picture &picture) {
    if (info_ == nullptr || !Completes([this, &picture] { Write(picture); })) {
      throw std::runtime_error(std::string("a picture cannot be encoded as PNG: ") + message_);
    }
    return std::move(written_);
  }

 private:
  void Write(const Picture &picture) {
    png_set_write_fn(png_, this, OnWrite, nullptr);
    png_set_user_limits(png_, PNG_UINT_31_MAX, PNG_UINT_31_MAX);
    png_set_compression_level(png_, kCompression);
    png_set_IHDR(png_, info_, static_cast<png_uint_32>(picture.size.width),
                 static_cast<png_uint_32>(picture.size.height), 8, PNG_COLOR_TYPE_RGB,
                 PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png_, info_);
    for (int row = 0; row < picture.size.height; ++row) {
      png_write_row(png_, picture.At(row, 0));
    }
    png_write_end(png_, info_);
  }

  // No exception may pass through the library.
  static void OnWrite(png_structp png, png_bytep data, std::size_t bytes) {
    auto *self = static_cast<PngEncoder *>(png_get_io_ptr(png));
    bool stored = true;
    try {
      self->written_.insert(self->written_.end(), data, data + bytes);
    } catch (const std::bad_alloc &) {
      stored = false;
    }
    if (!stored) {
      png_error(png, "no memory");
    }
  }

  Buffer written_;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
};

}  // namespace

Raw DecodePng(const Buffer &content, std::int64_t max_pixels) {
  return PngDecoder(content).Decode(max_pixels);
}

Buffer EncodePng(const Picture &picture) { return PngEncoder().Encode(picture); }

}  // namespace defrcn

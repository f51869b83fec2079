// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Decoding with libjpeg-turbo, whose errors come back by longjmp: nothing that has a destructor may
// live in a function between a step and the setjmp.
#include <csetjmp>
#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <string_view>

// After cstdio, which it needs.
#include <jerror.h>
#include <jpeglib.h>

#include "decode.h"
#include "error.h"

namespace defrcn {
namespace {

constexpr std::string_view kExifBlock("Exif\0\0", 6);
constexpr std::string_view kXmpBlock("http://ns.adobe.com/xap/1.0/\0", 29);

class JpegDecoder {
 public:
  JpegDecoder() {
    info_.err = jpeg_std_error(&errors_);
    errors_.error_exit = OnError;
    errors_.output_message = [](j_common_ptr) {};
    info_.client_data = this;
    Step([this] { jpeg_create_decompress(&info_); });
  }
  JpegDecoder(const JpegDecoder &) = delete;
  JpegDecoder &operator=(const JpegDecoder &) = delete;
  ~JpegDecoder() { jpeg_destroy_decompress(&info_); }

  Raw Decode(const Buffer &content, std::int64_t max_pixels) {
    Step([this, &content] {
      jpeg_mem_src(&info_, content.data(), static_cast<unsigned long>(content.size()));  // NOLINT
      // The library would make up an end; a picture that lacks some of its rows is refused.
      info_.src->fill_input_buffer = OnEnd;
      jpeg_save_markers(&info_, JPEG_APP0 + 1, 0xFFFF);
      jpeg_read_header(&info_, TRUE);
    });
    CheckPixels(info_.image_height, info_.image_width, max_pixels);
    Raw raw;
    raw.channels = info_.num_components == 4 ? 4 : 3;
    if (info_.num_components == 2 || info_.num_components > 4) {
      throw InputError("not a readable picture (" + std::to_string(info_.num_components) +
                       " channels)");
    }
    info_.out_color_space = raw.channels == 4 ? JCS_CMYK : JCS_RGB;
    raw.size = {static_cast<int>(info_.image_height), static_cast<int>(info_.image_width)};
    const std::size_t row =
        static_cast<std::size_t>(info_.image_width) * static_cast<std::size_t>(raw.channels);
    raw.pixels.resize(row * info_.image_height);
    ReadBlocks(&raw);
    std::uint8_t *pixels = raw.pixels.data();
    Step([this, row, pixels] {
      jpeg_start_decompress(&info_);
      while (info_.output_scanline < info_.output_height) {
        JSAMPROW target = pixels + row * info_.output_scanline;
        jpeg_read_scanlines(&info_, &target, 1);
      }
      jpeg_finish_decompress(&info_);
    });
    return raw;
  }

 private:
  template <typename Body>
  void Step(Body body) {
    if (!Completes(&body)) {
      throw InputError(std::string("not a readable picture (") + message_ + ")");
    }
  }

  template <typename Body>
  bool Completes(Body *body) {
    if (setjmp(return_) != 0) {
      return false;
    }
    (*body)();
    return true;
  }

  static void OnError(j_common_ptr info) {
    auto *self = static_cast<JpegDecoder *>(info->client_data);
    (*info->err->format_message)(info, self->message_);
    std::longjmp(self->return_, 1);
  }

  static boolean OnEnd(j_decompress_ptr info) {
    auto *self = static_cast<JpegDecoder *>(info->client_data);
    std::snprintf(self->message_, sizeof(self->message_), "the file is truncated");
    std::longjmp(self->return_, 1);
  }

  // EXIF in several blocks is one; of several XMP blocks the last counts.
  void ReadBlocks(Raw *raw) const {
    for (const jpeg_marker_struct *one = info_.marker_list; one != nullptr; one = one->next) {
      const std::string_view data(reinterpret_cast<const char *>(one->data), one->data_length);
      if (data.substr(0, kExifBlock.size()) == kExifBlock) {
        raw->exif += raw->exif.empty() ? data : data.substr(kExifBlock.size());
      } else if (data.substr(0, kXmpBlock.size()) == kXmpBlock) {
        raw->xmp = data.substr(kXmpBlock.size());
      }
    }
  }

  jpeg_decompress_struct info_ = {};
  jpeg_error_mgr errors_ = {};
  std::jmp_buf return_ = {};
  char message_[JMSG_LENGTH_MAX] = "";
};

}  // namespace

Raw DecodeJpeg(const Buffer &content, std::int64_t max_pixels) {
  return JpegDecoder().Decode(content, max_pixels);
}

}  // namespace defrcn

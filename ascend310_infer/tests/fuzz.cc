// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Damages pictures and bundles at random and reads them, for builds with checks:
//   defrcn_fuzz PICTURES SECONDS SEED
// PICTURES is a folder of good ones. What is read must be read or refused in words; ends with the
// number of rounds, and of those that were read.
#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "bundle.h"
#include "bundle_detector.h"
#include "bundle_support.h"
#include "decode.h"
#include "error.h"
#include "exif.h"
#include "file_io.h"
#include "statistics.h"

namespace {

using defrcn::Buffer;
using nlohmann::json;

constexpr std::int64_t kMaxPixels = 1 << 20;

class Fuzzer {
 public:
  Fuzzer(const std::string &pictures, unsigned seed) : random_(seed) {
    for (const auto &entry : std::filesystem::directory_iterator(pictures)) {
      pictures_.push_back(defrcn::ReadRegular(entry.path(), UINTMAX_MAX));
    }
    whole_ = defrcn::testing::MakeBundle(folder_ / "bundle", /*calibrated=*/true);
    defrcn::testing::WritePng(folder_ / "a.png", defrcn::testing::Plain({40, 60}, 204, 3, 4));
  }

  void Round() {
    ++rounds;
    try {
      switch (Below(8)) {
        case 0:
          ReadBundle();
          break;
        case 1:
          ReadArrays();
          break;
        case 2:
          ReadMetadata();
          break;
        default:
          ReadPicture();
      }
      ++read;
    } catch (const defrcn::InputError &) {
    }
  }

  std::size_t rounds = 0;
  std::size_t read = 0;

 private:
  std::size_t Below(std::size_t count) { return count == 0 ? 0 : random_() % count; }

  void Damage(Buffer *bytes) {
    for (std::size_t change = 1 + Below(4); change > 0 && !bytes->empty(); --change) {
      const std::size_t at = Below(bytes->size());
      const auto place = bytes->begin() + static_cast<std::ptrdiff_t>(at);
      const std::size_t length = std::min(1 + Below(40), bytes->size() - at);
      switch (Below(5)) {
        case 0:
          *place = static_cast<std::uint8_t>(*place ^ (1U << Below(8)));
          break;
        case 1:
          *place = std::array<std::uint8_t, 5>{0, 0xFF, 0x7F, 0x80, 1}[Below(5)];
          break;
        case 2:
          bytes->erase(place, place + static_cast<std::ptrdiff_t>(length));
          break;
        case 3: {
          const Buffer piece(place, place + static_cast<std::ptrdiff_t>(length));
          const std::size_t target = Below(bytes->size());
          bytes->insert(bytes->begin() + static_cast<std::ptrdiff_t>(target), piece.begin(),
                        piece.end());
          break;
        }
        default:
          bytes->resize(at);
      }
    }
  }

  // Makes the sums of a PNG's chunks right, so that more than the sums is looked at.
  static void Repair(Buffer *png) {
    std::size_t at = 8;
    while (at + 12 <= png->size()) {
      const std::size_t length = std::size_t{(*png)[at]} << 24 | (*png)[at + 1] << 16 |
                                 (*png)[at + 2] << 8 | (*png)[at + 3];
      if (length > png->size() - at - 12) {
        return;
      }
      std::uint32_t sum = 0xFFFFFFFF;
      for (std::size_t place = at + 4; place < at + 8 + length; ++place) {
        sum ^= (*png)[place];
        for (int bit = 0; bit < 8; ++bit) {
          sum = sum >> 1 ^ ((sum & 1) != 0 ? 0xEDB88320 : 0);
        }
      }
      for (std::size_t byte = 0; byte < 4; ++byte) {
        (*png)[at + 8 + length + byte] = static_cast<std::uint8_t>(~sum >> (24 - 8 * byte));
      }
      at += 12 + length;
    }
  }

  void ReadPicture() {
    Buffer bytes = pictures_[Below(pictures_.size())];
    Damage(&bytes);
    if (Below(4) != 0 && bytes.size() > 8 && bytes[1] == 'P') {
      Repair(&bytes);
    }
    const defrcn::Decoded decoded = defrcn::Decode(bytes, kMaxPixels);
    defrcn::Resized(decoded.picture, defrcn::ResizedSize(decoded.picture.size, 20, 50));
  }

  // Blocks beside the pixels, in arrays of just their size.
  void ReadMetadata() {
    const std::string exif(
        "Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x04\0\0\0\x02\0\0\0\x1a"
        "\x01\x12\0\x03\0\0\0\x01\0\x06\0\0",
        40);
    const std::string xmp = "<a tiff:Orientation=\"6\" tiff:Orientation>5<";
    const std::string profile = "\nexif\n 4\n4578 6966\n";
    for (const std::string &one : {exif, xmp, profile}) {
      Buffer bytes(one.begin(), one.end());
      Damage(&bytes);
      const std::string text(bytes.begin(), bytes.end());
      defrcn::OrientationOf(text, text);
      defrcn::RawProfile(text);
    }
  }

  // One value of bundle.json is another, or its bytes are damaged.
  void ReadBundle() {
    std::string text = whole_.dump();
    if (Below(2) == 0) {
      json changed = whole_.flatten();
      auto entry = changed.begin();
      std::advance(entry, Below(changed.size()));
      const json values = {nullptr, true, -1,     0,      1, 2, 0.5, 1e300, 18446744073709551615U,
                           "",      "x",  "../x", "a.f32"};
      entry.value() = values[Below(values.size())];
      text = changed.unflatten().dump();
    } else {
      Buffer bytes(text.begin(), text.end());
      Damage(&bytes);
      text.assign(bytes.begin(), bytes.end());
    }
    defrcn::testing::WriteText(folder_ / "bundle" / "bundle.json", text);
    if (Below(8) != 0) {
      defrcn::testing::WriteSum(folder_ / "bundle");  // else it is refused before it is read
    }
    Detect();
  }

  // Other numbers in an array, listed as they are.
  void ReadArrays() {
    constexpr std::array<const char *, 3> kNames = {"projection_weight.f32", "projection_bias.f32",
                                                    "prototypes.f32"};
    defrcn::testing::MakeBundle(folder_ / "bundle", /*calibrated=*/true);
    const std::string name = kNames[Below(kNames.size())];
    Buffer bytes = defrcn::ReadRegular(folder_ / "bundle" / name, UINTMAX_MAX);
    const std::size_t size = bytes.size();
    Damage(&bytes);
    if (Below(4) != 0) {
      bytes.resize(size);
    }
    defrcn::testing::WriteListed(folder_ / "bundle", name, {bytes.begin(), bytes.end()});
    Detect();
  }

  void Detect() {
    const defrcn::Bundle bundle = defrcn::Bundle::Open(folder_ / "bundle");
    if (!bundle.encoder || bundle.classes.size() != 2 || bundle.Proposals() != 3 ||
        bundle.calibration.channels != 2) {
      return;  // the engines are for the bundle as it was
    }
    defrcn::BundleDetector detector(bundle, 0.0, defrcn::testing::FakeDetector(bundle),
                                    defrcn::testing::FakeEncoder(bundle));
    detector.Look(defrcn::ReadPicture(bundle, folder_ / "a.png", 0, /*draw=*/true));
  }

  std::mt19937 random_;
  defrcn::testing::Folder folder_;
  std::vector<Buffer> pictures_;
  json whole_;
};

}  // namespace

int main(int argc, char **argv) {
  if (argc != 4) {
    return 2;
  }
  Fuzzer fuzzer(argv[1], static_cast<unsigned>(std::stoul(argv[3])));
  const double seconds = std::stod(argv[2]);
  for (const auto start = defrcn::Clock::now(); defrcn::SecondsSince(start) < seconds;) {
    fuzzer.Round();
  }
  std::cout << fuzzer.rounds << " " << fuzzer.read << std::endl;
  return 0;
}

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// By hand; tests/programs/test_bundle_parts.py compares with Pillow, OpenCV and numpy.
#include "picture.h"

#include <array>
#include <cmath>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "bundle_support.h"
#include "calibration.h"
#include "decode.h"
#include "detections.h"
#include "drawing.h"
#include "error.h"
#include "exif.h"
#include "png_texts.h"
#include "sha256.h"
#include "utf8.h"

namespace defrcn {
namespace {

using testing::Plain;

// The red values of a picture, row by row.
std::vector<int> Reds(const Picture &picture) {
  std::vector<int> reds;
  for (std::size_t place = 0; place < picture.rgb.size(); place += 3) {
    reds.push_back(picture.rgb[place]);
  }
  return reds;
}

Picture OfReds(Size size, const std::vector<int> &reds) {
  Picture picture(size);
  for (std::size_t place = 0; place < reds.size(); ++place) {
    picture.rgb[place * 3] = static_cast<std::uint8_t>(reds[place]);
  }
  return picture;
}

TEST(Oriented, TurnsAllEightWays) {
  // 1 2 3
  // 4 5 6
  const Picture picture = OfReds({2, 3}, {1, 2, 3, 4, 5, 6});
  const struct {
    int orientation;
    Size size;
    std::vector<int> reds;
  } cases[] = {{1, {2, 3}, {1, 2, 3, 4, 5, 6}}, {2, {2, 3}, {3, 2, 1, 6, 5, 4}},
               {3, {2, 3}, {6, 5, 4, 3, 2, 1}}, {4, {2, 3}, {4, 5, 6, 1, 2, 3}},
               {5, {3, 2}, {1, 4, 2, 5, 3, 6}}, {6, {3, 2}, {4, 1, 5, 2, 6, 3}},
               {7, {3, 2}, {6, 3, 5, 2, 4, 1}}, {8, {3, 2}, {3, 6, 2, 5, 1, 4}},
               {0, {2, 3}, {1, 2, 3, 4, 5, 6}}, {9, {2, 3}, {1, 2, 3, 4, 5, 6}}};
  for (const auto &one : cases) {
    const Picture turned = Oriented(picture, one.orientation);
    EXPECT_EQ(turned.size, one.size) << one.orientation;
    EXPECT_EQ(Reds(turned), one.reds) << one.orientation;
  }
}

TEST(Resized, ByHand) {
  // Half the width: each pixel takes a triangle of four: 1/8, 3/8, 3/8, 1/8; less at the edges.
  const Picture row = OfReds({1, 4}, {0, 70, 140, 210});
  EXPECT_EQ(Reds(Resized(row, {1, 2})), (std::vector<int>{50, 160}));
  // Twice the width: quarters between neighbours.
  EXPECT_EQ(Reds(Resized(OfReds({1, 2}, {0, 100}), {1, 4})), (std::vector<int>{0, 25, 75, 100}));
  EXPECT_EQ(Reds(Resized(OfReds({2, 1}, {0, 100}), {4, 1})), (std::vector<int>{0, 25, 75, 100}));
  EXPECT_EQ(Resized(row, {1, 4}).rgb, row.rgb);
  EXPECT_EQ(Resized(Plain({7, 9}, 255, 0, 17), {3, 20}).rgb, Plain({3, 20}, 255, 0, 17).rgb);
}

TEST(ResizedSize, KeepsTheLongEdgeWithinItsLimit) {
  EXPECT_EQ(ResizedSize({480, 640}, 800, 1333), (Size{800, 1067}));
  EXPECT_EQ(ResizedSize({480, 1000}, 800, 1333), (Size{640, 1333}));
  EXPECT_EQ(ResizedSize({1000, 480}, 800, 1333), (Size{1333, 640}));
  EXPECT_EQ(ResizedSize({5000, 1}, 800, 1333), (Size{1333, 1}));
}

TEST(Orientation, IsExifsElseXmps) {
  const std::string head("Exif\0\0II*\0\x08\0\0\0\x01\0", 16);
  const std::string entry("\x12\x01\x03\0\x01\0\0\0\x06\0\0\0", 12);
  EXPECT_EQ(OrientationOf(head + entry, ""), 6);
  EXPECT_EQ(OrientationOf(head.substr(6) + entry, "tiff:Orientation=\"3\""), 6);
  EXPECT_EQ(OrientationOf(head, "tiff:Orientation=\"3\""), 3);
  EXPECT_EQ(OrientationOf("", "tiff:Orientation=3 tiff:Orientation>8<"), 8);
  EXPECT_EQ(OrientationOf("", "tiff:Orientation"), 1);
  EXPECT_EQ(OrientationOf("Exif", ""), 1);
  EXPECT_EQ(OrientationOf(head + entry.substr(0, 11), ""), 1);
  for (std::size_t size = 0; size < head.size() + entry.size(); ++size) {
    EXPECT_EQ(OrientationOf((head + entry).substr(0, size), ""), 1) << size;
  }
}

TEST(Utf8, IsAsStrictAsPythons) {
  for (const char *text :
       {"", "a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"}) {
    EXPECT_TRUE(IsUtf8(text)) << text;
  }
  for (const char *text :
       {"\xe9", "\x80", "\xc3", "\xc0\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf0\x8f\xbf\xbf",
        "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xe2\x82"}) {
    EXPECT_FALSE(IsUtf8(text)) << text;
  }
}

TEST(RawProfile, IsHexadecimal) {
  EXPECT_EQ(RawProfile("\nexif\n 3\n4142\n43\n"), "ABC");
  EXPECT_EQ(RawProfile("\nexif\n 3\nxy\n"), "");
  EXPECT_EQ(RawProfile("\nexif"), "");
}

TEST(PngTexts, OfSeveralTheLastCounts) {
  using std::string_view_literals::operator""sv;
  PngTexts texts;
  texts.Take("tEXt", "Raw profile type exif\0\nexif\n 3\n414243\n"sv);
  texts.Take("tEXt", "XML:com.adobe.xmp\0first"sv);
  texts.Take("iTXt", "XML:com.adobe.xmp\0\0\0en\0\0second"sv);
  texts.Take("iTXt", "XML:com.adobe.xmp\0\0\0\0\0\xFF"sv);  // no UTF-8
  texts.Take("tEXt", "Comment\0other"sv);
  Raw raw;
  PngTexts(texts).MoveTo(&raw);
  EXPECT_EQ(raw.exif, "ABC");
  EXPECT_EQ(raw.xmp, "second");
  texts.Take("zTXt", "XML:com.adobe.xmp\0\0not packed"sv);
  texts.Take("eXIf", "MM");
  texts.MoveTo(&raw);
  EXPECT_EQ(raw.exif, "MM");
  EXPECT_EQ(raw.xmp, "\xFF");
}

TEST(PngTexts, AreLimited) {
  const std::string key("XML:com.adobe.xmp\0", 18);
  const std::string text = key + std::string(kMaxPngTexts / 2, 'x');
  PngTexts texts;
  texts.Take("tEXt", text);
  texts.Take("tEXt", text);
  EXPECT_THROW(texts.Take("tEXt", key + "x"), InputError);
  EXPECT_THROW(PngTexts().Take("zTXt", key + '\1'), InputError);
}

TEST(Decode, RefusesWhatIsNeither) {
  EXPECT_THROW(Decode({}, 100), InputError);
  EXPECT_THROW(Decode({0xFF, 0xD8, 0xFF}, 100), InputError);
  const Buffer png = EncodePng(Plain({3, 4}, 9, 8, 7));
  EXPECT_EQ(Decode(png, 12).picture.rgb, Plain({3, 4}, 9, 8, 7).rgb);
  EXPECT_THROW(Decode(png, 11), InputError);
  for (std::size_t size = 0; size + 12 < png.size(); ++size) {  // the last 12 bytes may lack
    Buffer cut = png;
    cut.resize(size);
    EXPECT_THROW(Decode(cut, 12), InputError) << size;
  }
}

TEST(Sha256, OfAKnownFile) {
  const testing::Folder folder;
  testing::WriteText(folder / "a", "abc");
  EXPECT_EQ(Sha256OfFile(folder / "a"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_THROW(Sha256OfFile(folder / "none"), InputError);
}

DetectorOutputs OutputsOf(const std::vector<float> &boxes, const std::vector<float> &scores,
                          const std::vector<std::int32_t> &valid) {
  return {valid.size(), scores.size() / valid.size() - 1, boxes.data(), scores.data(),
          valid.data()};
}

TEST(FinalDetections, SuppressesWithinAClass) {
  // Two boxes that share 8 of 12 columns (IoU 2/3), and one apart; two classes.
  const std::vector<float> boxes = {0,  0, 10, 10, 0,  0, 10, 10,   // proposal 0
                                    2,  0, 12, 10, 2,  0, 12, 10,   // proposal 1
                                    20, 0, 30, 10, 20, 0, 30, 10};  // proposal 2
  const std::vector<float> scores = {0.6F, 0.3F, 0, 0.8F, 0.05F, 0, 0.6F, 0.2F, 0};
  const std::vector<std::int32_t> valid = {1, 1, 1};
  const auto outputs = OutputsOf(boxes, scores, valid);
  const auto found = FinalDetections(outputs, {0.05, 0.5, 100});
  ASSERT_EQ(found.size(), 4U);
  EXPECT_EQ(found[0].box, (Box{2, 0, 12, 10}));   // 0.8
  EXPECT_EQ(found[1].box, (Box{20, 0, 30, 10}));  // 0.6; the first proposal's is suppressed
  EXPECT_EQ(found[2].label, 1U);                  // 0.3: its rival scores no more than 0.05
  EXPECT_EQ(found[3].score, 0.2F);
  EXPECT_EQ(FinalDetections(outputs, {0.05, 0.7, 100}).size(), 5U);
  EXPECT_EQ(FinalDetections(outputs, {0.05, 0.7, 2}).size(), 2U);
  EXPECT_TRUE(FinalDetections(outputs, {0.9, 0.7, 2}).empty());
}

TEST(LowestScore, DependsOnCalibration) {
  EXPECT_EQ(LowestScore(0.05, 0.5, true), 0.05);
  EXPECT_EQ(LowestScore(0.05, 0.0, false), 0.05);
  const double below = LowestScore(0.05, 0.5, false);
  EXPECT_LT(below, 0.5);
  EXPECT_EQ(std::nextafter(static_cast<float>(below), 1.0F), 0.5F);
}

TEST(PoolBox, AveragesSamples) {
  // A map of 2 x 2 cells of 32 pixels with one channel; boxes in pixels.
  const std::vector<float> values = {1, 2, 3, 4};
  const FeatureMap map = {values.data(), 2, 2, 2};
  EXPECT_EQ(PoolBox(map, 1, 32, {0, 0, 32, 32}), std::vector<float>{1});
  EXPECT_EQ(PoolBox(map, 1, 32, {32, 32, 64, 64}), std::vector<float>{4});
  EXPECT_EQ(PoolBox(map, 1, 32, {0, 0, 64, 64}), std::vector<float>{2.5F});
  EXPECT_EQ(PoolBox(map, 1, 32, {16, 0, 48, 32}), std::vector<float>{1.5F});
  // The left column of a wider canvas.
  EXPECT_EQ(PoolBox({values.data(), 2, 1, 2}, 1, 32, {0, 0, 32, 64}), std::vector<float>{2});
}

TEST(Glyphs, AreAllDifferent) {
  const std::string letters =
      "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz .,-_/()&+:'?!";
  std::set<std::array<std::uint8_t, kGlyphHeight>> seen;
  for (const char letter : letters) {
    EXPECT_TRUE(seen.insert(GlyphOf(letter)).second) << letter;
  }
  EXPECT_TRUE(seen.insert(GlyphOf('\xC3')).second);
  EXPECT_EQ(GlyphOf('\n'), GlyphOf('\xC3'));
  EXPECT_EQ(GlyphOf('L'), (std::array<std::uint8_t, 7>{16, 16, 16, 16, 16, 16, 31}));
}

TEST(Draw, MarksTheFrameAndATagAboveIt) {
  Picture picture = Plain({60, 120}, 0, 0, 0);
  Draw({{{10, 20, 100, 50}, 0.87F, 0}}, {"cat"}, &picture);
  const auto black = [&picture](int row, int column) {
    const std::uint8_t *pixel = picture.At(row, column);
    return pixel[0] == 0 && pixel[1] == 0 && pixel[2] == 0;
  };
  for (const auto &[row, column] : {std::pair{20, 10}, {49, 99}, {30, 10}, {49, 50}, {12, 11}}) {
    EXPECT_FALSE(black(row, column)) << row << " " << column;
  }
  for (const auto &[row, column] : {std::pair{30, 50}, {50, 50}, {30, 9}, {10, 50}, {59, 119}}) {
    EXPECT_TRUE(black(row, column)) << row << " " << column;
  }
}

TEST(Draw, StaysInThePicture) {
  Picture picture = Plain({8, 5}, 0, 0, 0);
  Draw({{{-20, -20, 500, 500}, 1.0F, 1}, {{4, 7, 4.4F, 7.2F}, 0.5F, 0}}, {"a", "\xC3\xA9"},
       &picture);
  EXPECT_EQ(picture.size, (Size{8, 5}));
  const Picture before = picture;
  Draw({}, {}, &picture);
  EXPECT_EQ(picture.rgb, before.rgb);
}

}  // namespace
}  // namespace defrcn

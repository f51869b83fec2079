// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "bundle.h"

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "bundle_support.h"

namespace defrcn {
namespace {

using nlohmann::json;
using testing::Folder;
using testing::MakeBundle;
using testing::MessageOf;
using testing::WriteBundleJson;

class BundleTest : public ::testing::Test {
 protected:
  BundleTest() : content_(MakeBundle(folder_.Path(), /*calibrated=*/true)) {}
  std::string Problem() const {
    return MessageOf<InputError>([this] { Bundle::Open(folder_.Path()); });
  }
  // What is said if the value at a path is another one.
  std::string ProblemWith(const char *path, const json &value) const {
    json changed = content_;
    changed[json::json_pointer(path)] = value;
    WriteBundleJson(folder_.Path(), changed);
    return Problem();
  }
  std::string ProblemWithout(const char *parent, const char *key) const {
    json changed = content_;
    changed[json::json_pointer(parent)].erase(key);
    WriteBundleJson(folder_.Path(), changed);
    return Problem();
  }

  Folder folder_;
  json content_;
};

TEST_F(BundleTest, ReadsWhatIsThere) {
  const Bundle bundle = Bundle::Open(folder_.Path());
  ASSERT_EQ(bundle.classes.size(), 2U);
  EXPECT_EQ(bundle.classes[1].label, "dog");
  EXPECT_EQ(bundle.classes[1].category_id, 3);
  EXPECT_EQ(bundle.input, (Size{40, 50}));
  EXPECT_EQ(bundle.min_size, 20);
  EXPECT_EQ(bundle.max_size, 50);
  EXPECT_EQ(bundle.max_pixels, 20000);
  EXPECT_EQ(bundle.rules.score_threshold, 0.05);
  EXPECT_EQ(bundle.rules.nms_threshold, 0.5);
  EXPECT_EQ(bundle.rules.most, 100U);
  EXPECT_EQ(bundle.Proposals(), 3U);
  EXPECT_EQ(bundle.detector.file, folder_ / "detector.mindir");
  EXPECT_EQ(bundle.detector.inputs[0].bytes, 3U * 40 * 50 * 4);
  ASSERT_TRUE(bundle.encoder.has_value());
  EXPECT_EQ(bundle.encoder->canvas, (Size{64, 96}));
  EXPECT_EQ(bundle.calibration.stride, 32);
  EXPECT_EQ(bundle.calibration.weight, (std::vector<float>{1, 0, 0, 1}));
  EXPECT_EQ(bundle.calibration.bias, (std::vector<float>{0, 0.5F}));
  EXPECT_EQ(bundle.calibration.prototypes, (std::vector<float>{0, 1, 2, 1}));
  EXPECT_EQ(bundle.calibration.calibrated, (std::vector<bool>{true, false}));
}

TEST_F(BundleTest, WithoutCalibrationThereIsNoEncoder) {
  const Folder other;
  MakeBundle(other.Path(), /*calibrated=*/false);
  EXPECT_FALSE(Bundle::Open(other.Path()).encoder.has_value());
}

TEST_F(BundleTest, OtherFormatsAndVersionsAreRefused) {
  EXPECT_SAYS(ProblemWith("/format", "zip"), "is no bundle");
  EXPECT_SAYS(ProblemWithout("", "format"), "is no bundle");
  EXPECT_SAYS(ProblemWith("/format_version", 2),
              "has format_version 2, this program reads 1: take the program that belongs");
  EXPECT_SAYS(ProblemWith("/format_version", "1"), "format_version is not a whole number");
  EXPECT_SAYS(ProblemWith("/graph_format", "ONNX"), "format ONNX, this program runs MINDIR");
}

TEST_F(BundleTest, AFolderWithoutItIsNone) {
  const Folder other;
  EXPECT_SAYS(MessageOf<InputError>([&] { Bundle::Open(other.Path()); }),
              "bundle.json is missing: the folder is no bundle");
  testing::WriteText(other / "a.tar", "x");
  EXPECT_SAYS(MessageOf<InputError>([&] { Bundle::Open(other / "a.tar"); }), "unpack it");
}

TEST_F(BundleTest, DamagedJsonIsNamed) {
  for (const char *text : {"", "{", "[]", "\xff", "{\"format\": 1e999}"}) {
    testing::WriteText(folder_ / "bundle.json", text);
    EXPECT_SAYS(Problem(), "bundle.json");
  }
}

TEST_F(BundleTest, EveryFlippedBitIsFound) {
  for (const char *name : {"detector.mindir", "encoder.mindir", "projection_weight.f32",
                           "projection_bias.f32", "prototypes.f32"}) {
    const std::string whole = ReadText(folder_ / name);
    std::string damaged = whole;
    damaged[3] = static_cast<char>(damaged[3] ^ 1);
    testing::WriteText(folder_ / name, damaged);
    EXPECT_SAYS(Problem(), std::string(name) + " is damaged: its SHA-256 is not the one");
    testing::WriteText(folder_ / name, whole + "x");
    EXPECT_SAYS(Problem(), std::string(name) + " has ");
    testing::fs::remove(folder_ / name);
    EXPECT_SAYS(Problem(), std::string(name) + " is missing");
    testing::WriteText(folder_ / name, whole);
  }
  const std::string whole = ReadText(folder_ / "bundle.json");
  for (std::size_t place = 0; place < whole.size(); place += 7) {
    std::string damaged = whole;
    damaged[place] = static_cast<char>(damaged[place] ^ 1);
    testing::WriteText(folder_ / "bundle.json", damaged);
    EXPECT_SAYS(Problem(), "bundle");
  }
  std::string other = whole;
  other.replace(other.find("\"alpha\": 0.5"), 12, "\"alpha\": 0.7");
  testing::WriteText(folder_ / "bundle.json", other);
  EXPECT_SAYS(Problem(), "bundle.json is damaged: its SHA-256 is not the one in bundle.sha256");
  testing::WriteText(folder_ / "bundle.json", whole);
  EXPECT_NO_THROW(Bundle::Open(folder_.Path()));
  testing::fs::remove(folder_ / "bundle.sha256");
  EXPECT_SAYS(Problem(), "bundle.sha256 is missing");
  WriteBundleJson(folder_.Path(), content_);
  EXPECT_NO_THROW(Bundle::Open(folder_.Path()));
}

TEST_F(BundleTest, NamesStayInTheFolder) {
  for (const char *name : {"../x", "/etc/passwd", "a/b", "..", ""}) {
    json changed = content_;
    changed["files"][name] = {{"bytes", 1}, {"sha256", ""}};
    WriteBundleJson(folder_.Path(), changed);
    EXPECT_SAYS(Problem(), "is not that of a file in the folder");
  }
  EXPECT_SAYS(ProblemWith("/detector/file", "../detector.mindir"), "which 'files' does not list");
}

TEST_F(BundleTest, KeysAreNamedByTheirPath) {
  EXPECT_SAYS(ProblemWithout("/detection", "nms_threshold"), "detection.nms_threshold is missing");
  EXPECT_SAYS(ProblemWithout("", "calibration"), "calibration is missing");
  EXPECT_SAYS(ProblemWith("/detection/nms_threshold", 2),
              "detection.nms_threshold is not a number");
  EXPECT_SAYS(ProblemWith("/detection/score_threshold", true), "detection.score_threshold is not");
  EXPECT_SAYS(ProblemWith("/detection/detections_per_image", 0), "detections_per_image is not");
  EXPECT_SAYS(ProblemWith("/input/height", 40.5), "input.height is not a whole number");
  EXPECT_SAYS(ProblemWith("/input/max_pixels", 1e30), "input.max_pixels is not a whole number");
  EXPECT_SAYS(ProblemWith("/classes/1/label", 5), "classes[1].label is no text");
  EXPECT_SAYS(ProblemWith("/classes/1/category_id", 7),
              "classes[1].category_id stands there twice");
  EXPECT_SAYS(ProblemWith("/classes", json::array()), "classes is empty");
  EXPECT_SAYS(ProblemWith("/files", 3), "files is no object");
  EXPECT_SAYS(ProblemWith("/files/detector.mindir/bytes", -1), "files.detector.mindir.bytes");
  EXPECT_SAYS(ProblemWith("/calibration/calibrated/0", 1), "calibration.calibrated[0] is neither");
}

TEST_F(BundleTest, ShapesThatContradictAreRefused) {
  EXPECT_SAYS(ProblemWith("/input/height", 41),
              "detector.inputs[0] is image float32 (1, 3, 40, 50)");
  EXPECT_SAYS(ProblemWith("/detector/outputs/1/shape/2", 4), "it is scores float32 (1, 3, 3)");
  EXPECT_SAYS(ProblemWith("/detector/outputs/0/shape/2", 3), "it is boxes float32 (1, 3, 2, 4)");
  EXPECT_SAYS(ProblemWith("/detector/outputs/0/shape", json{1, 3, 2}), "detector.outputs[0]");
  EXPECT_SAYS(ProblemWith("/detector/outputs/2/dtype", "int64"), "detector.outputs[2] is valid");
  EXPECT_SAYS(ProblemWith("/detector/outputs", json::array()), "has 0 entries instead of 4");
  EXPECT_SAYS(ProblemWith("/calibration/encoder/height", 65), "calibration.encoder.inputs[0]");
  EXPECT_SAYS(ProblemWith("/calibration/encoder/stride", 16), "calibration.encoder.outputs[0]");
  EXPECT_SAYS(ProblemWith("/calibration/projection_weight/shape", json{2, 3}),
              "projection_weight.shape is (2, 3); by the other shapes it is (2, 2)");
  EXPECT_SAYS(ProblemWith("/calibration/prototypes/shape", json{3, 2}), "prototypes.shape is");
  EXPECT_SAYS(ProblemWith("/calibration/calibrated", json{true}), "has 1 entries for 2 classes");
  EXPECT_SAYS(ProblemWith("/detector/inputs/0/shape/2", 4000000000U), "detector.inputs[0].shape");
}

TEST_F(BundleTest, ArraysHaveTheSizeOfTheirShapeAndFiniteNumbers) {
  testing::WriteListed(folder_.Path(), "prototypes.f32", std::string(12, '\0'));
  EXPECT_SAYS(Problem(), "prototypes.f32 has 12 bytes, which is not float32 (2, 2)");
  testing::WriteListed(folder_.Path(), "prototypes.f32", std::string(20, '\0'));
  EXPECT_SAYS(Problem(), "prototypes.f32: cannot be read (20 bytes are more than 16)");
  testing::WriteListed(folder_.Path(), "prototypes.f32", std::string(16, '\xff'));
  EXPECT_SAYS(Problem(), "prototypes.f32 holds a number that is not finite");
}

}  // namespace
}  // namespace defrcn

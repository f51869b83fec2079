// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "bundle_detector.h"

#include <cmath>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "bundle_support.h"

namespace defrcn {
namespace {

using testing::FakeDetector;
using testing::FakeEncoder;
using testing::Folder;
using testing::FunctionEngine;
using testing::MessageOf;
using testing::Plain;
using testing::ValuesOf;

class BundleDetectorTest : public ::testing::Test {
 protected:
  // Opens a bundle with these engines, and keeps pointers to them.
  void Open(bool calibrated, double shown = 0.0, std::unique_ptr<FunctionEngine> detector = nullptr,
            float feature = 1.0F) {
    testing::MakeBundle(folder_ / "bundle", calibrated);
    bundle_ = Bundle::Open(folder_ / "bundle");
    detector = detector ? std::move(detector) : FakeDetector(bundle_);
    auto encoder = calibrated ? FakeEncoder(bundle_, feature) : nullptr;
    detector_engine_ = detector.get();
    encoder_engine_ = encoder.get();
    detector_ =
        std::make_unique<BundleDetector>(bundle_, shown, std::move(detector), std::move(encoder));
  }
  PictureOut Look(const Picture &picture) {
    testing::WritePng(folder_ / "a.png", picture);
    return detector_->Look(ReadPicture(bundle_, folder_ / "a.png", 5, /*draw=*/false));
  }

  Folder folder_;
  Bundle bundle_;
  std::unique_ptr<BundleDetector> detector_;
  FunctionEngine *detector_engine_ = nullptr;
  FunctionEngine *encoder_engine_ = nullptr;
};

TEST_F(BundleDetectorTest, BoxesComeBackToThePicture) {
  Open(/*calibrated=*/false);
  // 40 x 60 becomes 20 x 30: boxes are twice as large in the picture.
  const PictureOut found = Look(Plain({40, 60}, 204, 20, 30));
  EXPECT_EQ(found.problem, "");
  EXPECT_EQ(found.index, 5U);
  EXPECT_EQ(found.image, (Size{40, 60}));
  ASSERT_EQ(found.detections.size(), 2U);
  EXPECT_EQ(found.detections[0].label, 0U);
  EXPECT_FLOAT_EQ(found.detections[0].score, 0.8F);
  EXPECT_EQ(found.detections[0].box, (Box{4, 8, 24, 28}));
  EXPECT_EQ(found.detections[1].label, 1U);
  EXPECT_EQ(found.detections[1].box, (Box{0, 0, 16, 16}));
  EXPECT_GT(found.times.decode, 0.0);
  EXPECT_GT(found.times.detector, 0.0);
  EXPECT_EQ(found.times.encoder, 0.0);
}

TEST_F(BundleDetectorTest, TheInputIsBlueGreenRedAtTheTopLeft) {
  Open(false);
  std::vector<std::vector<Buffer>> seen;
  Open(false, 0.0,
       std::make_unique<FunctionEngine>(bundle_.detector.inputs,
                                        [&](const std::vector<Buffer> &inputs) {
                                          seen.push_back(inputs);
                                          return testing::Found(bundle_, inputs);
                                        }));
  Look(Plain({80, 100}, 1, 2, 3));  // fills 40 x 50, but 20 x 25 is what it becomes
  Look(Plain({20, 20}, 4, 5, 6));
  ASSERT_EQ(seen.size(), 2U);
  EXPECT_EQ(ValuesOf<float>(seen[0][2]), (std::vector<float>{20, 25, 80, 100}));
  EXPECT_EQ(ValuesOf<float>(seen[1][2]), (std::vector<float>{20, 20, 20, 20}));
  EXPECT_EQ(ValuesOf<std::int32_t>(seen[1][1]), (std::vector<std::int32_t>{5}));
  const auto pixels = ValuesOf<float>(seen[1][0]);  // nothing of the larger picture is left
  for (std::size_t channel = 0; channel < 3; ++channel) {
    for (std::size_t row = 0; row < 40; ++row) {
      for (std::size_t column = 0; column < 50; ++column) {
        const float wanted = row < 20 && column < 20 ? 6.0F - static_cast<float>(channel) : 0.0F;
        ASSERT_EQ(pixels[(channel * 40 + row) * 50 + column], wanted) << row << " " << column;
      }
    }
  }
}

TEST_F(BundleDetectorTest, WeakDetectionsAreLeftOut) {
  Open(false, 0.4);  // the second scores exactly that
  EXPECT_EQ(Look(Plain({20, 20}, 51, 0, 0)).detections.size(), 1U);
  Open(false, std::nextafter(0.4F, 1.0F));
  EXPECT_TRUE(Look(Plain({20, 20}, 51, 0, 0)).detections.empty());
}

TEST_F(BundleDetectorTest, CalibrationChangesOneClass) {
  Open(/*calibrated=*/true);
  const PictureOut found = Look(Plain({40, 60}, 51, 0, 0));
  ASSERT_EQ(found.detections.size(), 2U);
  // The map holds (1, 0) everywhere: the vector is (1, 0.5), and its cosine with (0, 1) known.
  const double cosine = 0.5 / std::sqrt(1.25);
  EXPECT_EQ(found.detections[0].label, 1U);  // stays, and leads or not by the other's new score
  EXPECT_FLOAT_EQ(found.detections[0].score, 0.4F);
  EXPECT_EQ(found.detections[1].label, 0U);
  EXPECT_NEAR(found.detections[1].score, 0.5 * 0.2 + 0.5 * cosine, 1e-6);
  EXPECT_EQ(encoder_engine_->calls, 1);
  EXPECT_GT(found.times.encoder, 0.0);
}

TEST_F(BundleDetectorTest, CalibratedOrderIsByTheNewScores) {
  Open(true);
  const PictureOut found = Look(Plain({40, 60}, 110, 0, 0));  // 0.431, then 0.439
  ASSERT_EQ(found.detections.size(), 2U);
  EXPECT_EQ(found.detections[0].label, 0U);
  EXPECT_GT(found.detections[0].score, found.detections[1].score);
}

TEST_F(BundleDetectorTest, TheEncoderRunsOnlyWhereAScoreMayChange) {
  Open(true);
  Look(Plain({40, 60}, 10, 0, 0));  // 0.04 of the class that changes
  EXPECT_EQ(encoder_engine_->calls, 0);
  // A picture that is too large for it is all right as long as it is not needed.
  EXPECT_EQ(Look(Plain({70, 100}, 10, 0, 0)).problem, "");
  EXPECT_SAYS(Look(Plain({70, 100}, 200, 0, 0)).problem,
              "the picture is 100 x 70, the input of the calibration block's encoder holds 96 x 64 "
              "(width x height)");
}

TEST_F(BundleDetectorTest, AnEncoderWithoutFiniteFeaturesIsAProblemOfThePicture) {
  for (const float number : {std::nanf(""), HUGE_VALF}) {
    Open(true, 0.0, nullptr, number);
    const PictureOut found = Look(Plain({40, 60}, 51, 0, 0));
    EXPECT_SAYS(found.problem, "the calibration block's encoder gives NaN or infinity");
    EXPECT_TRUE(found.detections.empty());
  }
}

TEST_F(BundleDetectorTest, PicturesThatDoNotFitAreNamed) {
  Open(false);
  bundle_.input = {20, 24};
  EXPECT_SAYS(Look(Plain({40, 60}, 1, 2, 3)).problem,
              "the picture after resizing is 30 x 20, the detector's input holds 24 x 20");
  bundle_.max_pixels = 2399;
  EXPECT_SAYS(Look(Plain({40, 60}, 1, 2, 3)).problem, "60 x 40 pixels are over the limit of 2399");
}

TEST_F(BundleDetectorTest, FilesThatAreNoPicturesAreNamed) {
  Open(false);
  EXPECT_EQ(ReadPicture(bundle_, folder_ / "none.png", 3, false).problem,
            "cannot be read (No such file or directory)");
  EXPECT_EQ(ReadPicture(bundle_, folder_.Path(), 3, false).problem,
            "cannot be read (not a regular file)");
  testing::WriteText(folder_ / "b.png", "");
  const PictureIn read = ReadPicture(bundle_, folder_ / "b.png", 3, false);
  EXPECT_SAYS(read.problem, "neither JPEG nor PNG");
  const PictureOut looked = detector_->Look(read);
  EXPECT_EQ(looked.problem, read.problem);
  EXPECT_EQ(looked.index, 3U);
  EXPECT_EQ(detector_engine_->calls, 0);
}

TEST_F(BundleDetectorTest, UndecidedSuppressionIsAProblemOfThePicture) {
  Open(false);
  Open(false, 0.0,
       std::make_unique<FunctionEngine>(
           bundle_.detector.inputs, [&](const std::vector<Buffer> &inputs) {
             auto outputs = testing::Found(bundle_, inputs);
             outputs[3] = testing::TensorOf(outputs[3].info, std::vector<std::int32_t>{0, 2, 4, 0});
             return outputs;
           }));
  EXPECT_SAYS(Look(Plain({40, 60}, 1, 2, 3)).problem, "not complete (4 undecided)");
}

TEST_F(BundleDetectorTest, AnotherGraphEndsTheRun) {
  Open(false);
  int spoiled = 0;
  Open(false, 0.0,
       std::make_unique<FunctionEngine>(
           bundle_.detector.inputs, [&](const std::vector<Buffer> &inputs) {
             auto outputs = testing::Found(bundle_, inputs);
             if (spoiled == 0) {
               outputs.pop_back();
             } else if (spoiled == 1) {
               outputs[1].info.shape = {1, 3, 4};
             } else {
               outputs[3] =
                   testing::TensorOf(outputs[3].info, std::vector<std::int32_t>{0, 2, 0, 1});
             }
             return outputs;
           }));
  const auto problem = [this] {
    return MessageOf<std::runtime_error>([this] { Look(Plain({40, 60}, 1, 2, 3)); });
  };
  EXPECT_SAYS(problem(), "detector.mindir gives 3 outputs");
  spoiled = 1;
  EXPECT_SAYS(problem(), "output 'scores' of detector.mindir is float32 (1, 3, 4) instead of");
  spoiled = 2;
  EXPECT_SAYS(problem(), "gives boxes in the picture's own frame");
}

TEST_F(BundleDetectorTest, EnginesWithOtherInputsAreRefused) {
  Open(false);
  auto inputs = bundle_.detector.inputs;
  inputs[0].shape = {1, 3, 8, 8};
  EXPECT_SAYS(MessageOf<InputError>([&] {
                BundleDetector(bundle_, 0.5,
                               std::make_unique<FunctionEngine>(inputs, FunctionEngine::Body()),
                               nullptr);
              }),
              "is float32 (1, 3, 8, 8), but 'image' in");
}

TEST_F(BundleDetectorTest, WarmUpRunsBoth) {
  Open(true);
  detector_->WarmUp();
  EXPECT_EQ(detector_engine_->calls, 1);
  EXPECT_EQ(encoder_engine_->calls, 1);
}

}  // namespace
}  // namespace defrcn

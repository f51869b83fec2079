// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "bundle_app.h"

#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "bundle_support.h"
#include "decode.h"

namespace defrcn {
namespace {

using nlohmann::json;
using testing::Folder;
using testing::MessageOf;
using testing::Plain;
using testing::ReadJson;

class BundleAppTest : public ::testing::Test {
 protected:
  BundleAppTest() {
    testing::MakeBundle(folder_ / "bundle", /*calibrated=*/true);
    bundle_ = Bundle::Open(folder_ / "bundle");
    for (int index = 0; index < 6; ++index) {
      Write("p" + std::to_string(index) + ".png", {40, 60 + index});
    }
    Write("sub/p.png", {30, 30});
    options_.bundle = (folder_ / "bundle").string();
    options_.input = (folder_ / "pictures").string();
    options_.output = options_.time_path = (folder_ / "results").string();
    options_.device_type = "CPU";
    options_.precision_mode = "preferred_fp32";
    options_.score_threshold = 0.3;
    options_.given = {"bundle", "input", "output"};
  }
  void Write(const std::string &name, Size size) const {
    testing::WriteText(folder_ / "pictures" / name, "");
    testing::WritePng(folder_ / "pictures" / name, Plain(size, 204, 0, 0));
  }
  std::size_t Run(const std::atomic<bool> *stop = nullptr) {
    return RunBundle(
        options_,
        [this](const Options &options) -> std::unique_ptr<Engine> {
          built_.push_back(options);
          if (options.mindir_path == bundle_.detector.file) {
            return testing::FakeDetector(bundle_);
          }
          return testing::FakeEncoder(bundle_);
        },
        stop, &out_, &problems_);
  }
  // The detector's engine fails after so many calls.
  void RunFailing(int calls) {
    const auto failing = [this, calls](const Options &options) -> std::unique_ptr<Engine> {
      if (options.mindir_path != bundle_.detector.file) {
        return testing::FakeEncoder(bundle_);
      }
      std::shared_ptr<Engine> whole = testing::FakeDetector(bundle_);
      return std::make_unique<testing::FunctionEngine>(
          bundle_.detector.inputs,
          [whole, left = calls](const std::vector<Buffer> &inputs) mutable -> std::vector<Tensor> {
            if (left-- <= 0) {
              throw std::runtime_error("the device is gone");
            }
            return whole->Run(inputs);
          });
    };
    RunBundle(options_, failing, nullptr, &out_, &problems_);
  }
  json Result(const char *name) const { return ReadJson(folder_ / "results" / name); }
  bool Exists(const char *name) const { return testing::fs::exists(folder_ / "results" / name); }

  Folder folder_;
  Bundle bundle_;
  Options options_;
  std::vector<Options> built_;
  std::ostringstream out_, problems_;
};

TEST_F(BundleAppTest, WritesCocosForm) {
  EXPECT_EQ(Run(), 0U);
  const json images = Result("images.json");
  EXPECT_EQ(images.at("categories"),
            json::parse(R"([{"id": 7, "name": "cat"}, {"id": 3, "name": "dog"}])"));
  ASSERT_EQ(images.at("images").size(), 7U);
  EXPECT_EQ(images.at("images").at(2),
            json::parse(R"({"id": 3, "file_name": "p2.png", "width": 62, "height": 40})"));
  EXPECT_EQ(images.at("images").at(6).at("file_name"), "sub/p.png");
  const json rows = Result("detections.json");
  ASSERT_EQ(rows.size(), 14U);
  // 0.8 * 0.5 + 0.5 * 0.5 / sqrt(1.25): the calibrated class leads.
  EXPECT_EQ(rows.at(0).at("image_id"), 1);
  EXPECT_EQ(rows.at(0).at("category_id"), 7);
  EXPECT_EQ(rows.at(0).at("bbox"), json::parse("[4.0, 8.0, 20.0, 20.0]"));
  EXPECT_NEAR(rows.at(0).at("score").get<double>(), 0.4 + 0.223606, 1e-5);
  EXPECT_EQ(rows.at(1).at("category_id"), 3);
  EXPECT_EQ(Result("problems.json"), json::array());
  const json done = Result("done.json");
  EXPECT_EQ(done.at("images"), 7);
  EXPECT_EQ(done.at("detections"), 14);
  EXPECT_EQ(done.at("bundle"), "bundle");
  EXPECT_EQ(done.at("ms").at("encoder").at("count"), 7);
  const std::string times = ReadText(folder_ / "results" / "test_perform_static.txt");
  for (const char *part : {"infer_count 7\n", "decoding: mean ",
                           "resizing: ", "detector: ", "encoder: ", "rest: ", "peak memory: "}) {
    EXPECT_SAYS(times, part);
  }
  EXPECT_FALSE(Exists("pictures"));
  EXPECT_EQ(built_.size(), 2U);
  EXPECT_EQ(built_[0].image_height, 40);
  EXPECT_EQ(built_[1].image_width, 96);
}

TEST_F(BundleAppTest, ResultsAreTheSameForAnyNumberOfInstances) {
  Run();
  const json one = Result("detections.json");
  options_.instances = 3;
  options_.queue = 1;
  EXPECT_EQ(Run(), 0U);
  EXPECT_EQ(Result("detections.json"), one);
  EXPECT_EQ(built_.size(), 2U + 6U);
}

TEST_F(BundleAppTest, BrokenPicturesAreNamedAndTheRestIsWritten) {
  testing::WriteText(folder_ / "pictures" / "p1.png", "no picture");
  Write("p3.png", {90, 90});  // fits into the detector's input, not into the encoder's
  testing::WriteText(folder_ / "pictures" / "notes.md", "x");
  EXPECT_EQ(Run(), 2U);
  EXPECT_SAYS(problems_.str(), "error: p1.png: not a readable picture (neither JPEG nor PNG)");
  EXPECT_SAYS(problems_.str(), "error: p3.png: the picture is 90 x 90, the input of");
  EXPECT_SAYS(problems_.str(), "notes.md is no picture (JPEG or PNG) and left out");
  const json problems = Result("problems.json");
  ASSERT_EQ(problems.size(), 2U);
  EXPECT_EQ(problems.at(0).at("file"), "p1.png");
  EXPECT_EQ(Result("images.json").at("images").size(), 5U);
  EXPECT_EQ(Result("images.json").at("images").at(1).at("id"), 3);
  EXPECT_EQ(Result("done.json").at("problems"), 2);
}

TEST_F(BundleAppTest, RepeatingChangesTimesAlone) {
  Run();
  const json once = Result("detections.json");
  options_.repeat = 3;
  options_.instances = 2;
  EXPECT_EQ(Run(), 0U);
  EXPECT_EQ(Result("detections.json"), once);
  EXPECT_EQ(Result("done.json").at("ms").at("detector").at("count"), 21);
  EXPECT_SAYS(out_.str(), "[21/21] ");
}

TEST_F(BundleAppTest, DrawsWhereItIsAskedFor) {
  options_.draw = true;
  Run();
  EXPECT_EQ(Result("images.json").at("images").at(6).at("drawn"), "pictures/sub/p.png.png");
  const Decoded drawn =
      Decode(ReadRegular(folder_ / "results" / "pictures" / "p0.png.png", 1 << 20), 1 << 20);
  EXPECT_EQ(drawn.picture.size, (Size{40, 60}));
  const Buffer plain = Plain({40, 60}, 204, 0, 0).rgb;
  EXPECT_NE(drawn.picture.rgb, plain);
  EXPECT_EQ(*drawn.picture.At(35, 50), 204);
}

TEST_F(BundleAppTest, ResultsOfAnEarlierRunGoAndNothingElse) {
  const testing::fs::path results = folder_ / "results", mine = results / "pictures" / "mine.png";
  options_.draw = true;
  Run();
  testing::WriteText(mine, "mine");
  testing::WriteText(results / "yolo" / "labels" / "a.txt", "of src.predict");
  testing::fs::create_symlink(mine, results / "pictures" / "linked.png");
  testing::WriteText(folder_ / "away" / "a.png", "away");
  testing::fs::create_directory_symlink(folder_ / "away", results / "pictures" / "away");
  json index = Result(".results.json");
  for (const char *name : {"pictures/../../away/a.png", "../away/a.png", "pictures/away/a.png",
                           "pictures/linked.png", "pictures", "", "yolo/labels/a.txt"}) {
    index["files"].push_back(name);
  }
  index["files"].push_back((folder_ / "away" / "a.png").string());
  index["files"].push_back(3);
  testing::WriteText(results / ".results.json", index.dump());
  options_.draw = false;
  EXPECT_EQ(Run(), 0U);
  EXPECT_FALSE(Exists("pictures/p0.png.png") || Exists("pictures/sub") || Exists("yolo"));
  EXPECT_TRUE(Exists("pictures/mine.png") && Exists("pictures/linked.png"));
  EXPECT_TRUE(testing::fs::exists(folder_ / "away" / "a.png"));
  EXPECT_EQ(Result(".results.json").at("files"),
            (json{"detections.json", "done.json", "images.json", "problems.json",
                  "test_perform_static.txt"}));
  for (const char *text : {"{", "[]", "{\"files\": 3}"}) {
    testing::WriteText(results / ".results.json", text);
    EXPECT_EQ(Run(), 0U);
  }
}

TEST_F(BundleAppTest, LongNamesAreDrawnByNumber) {
  const std::string name = std::string(240, 'n') + ".png";
  testing::fs::copy_file(folder_ / "pictures" / "p0.png", folder_ / "pictures" / name);
  testing::fs::create_directories(folder_ / "pictures" / "p1.png.png");
  testing::fs::copy_file(folder_ / "pictures" / "p0.png",
                         folder_ / "pictures" / "p1.png.png" / "a.png");
  options_.draw = true;
  EXPECT_EQ(Run(), 0U);
  const json images = Result("images.json").at("images");
  EXPECT_EQ(images.at(0).at("file_name"), name);
  EXPECT_EQ(images.at(0).at("drawn"), "pictures/1.png");
  EXPECT_EQ(images.at(2).at("drawn"), "pictures/_p1.png.png");
  EXPECT_TRUE(Exists("pictures/1.png") && Exists("pictures/_p1.png.png") &&
              Exists("pictures/p1.png.png/a.png.png"));
}

TEST_F(BundleAppTest, APictureWithoutAPlaceForItsDrawingIsLeftOut) {
  testing::fs::create_directories(folder_ / "results" / "pictures" / "p1.png.png");
  testing::WriteText(folder_ / "results" / "pictures" / "sub", "mine");
  options_.draw = true;
  EXPECT_EQ(Run(), 2U);
  EXPECT_SAYS(problems_.str(), "error: p1.png: its drawn picture has no place (Is a directory)");
  EXPECT_SAYS(problems_.str(), "error: sub/p.png: its drawn picture has no place (");
  EXPECT_EQ(Result("images.json").at("images").size(), 5U);
  EXPECT_EQ(Result("done.json").at("problems"), 2);
}

TEST_F(BundleAppTest, PicturesWhereDrawnOnesGoAreRefused) {
  const testing::fs::path drawn = folder_ / "results" / "pictures";
  testing::fs::create_directories(drawn);
  testing::fs::copy_file(folder_ / "pictures" / "p0.png", drawn / "a.png");
  testing::WriteText(folder_ / "list.txt", "results/pictures/a.png\n");
  testing::fs::create_directories(folder_ / "linked");
  testing::fs::create_directory_symlink(drawn, folder_ / "linked" / "there");
  for (const testing::fs::path &input :
       {drawn, drawn / "a.png", folder_ / "list.txt", folder_ / "linked"}) {
    options_.input = input.string();
    EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }),
                "a.png lies where drawn pictures go; name another folder");
  }
  options_.output = (folder_ / "other").string();
  testing::fs::create_directories(options_.output);
  testing::fs::create_directory_symlink(folder_ / "pictures", folder_ / "other" / "pictures");
  options_.input = (folder_ / "pictures" / "p0.png").string();
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "p0.png lies where drawn pictures go");
  options_.output = (folder_ / "results").string();
  testing::fs::copy_file(folder_ / "pictures" / "p0.png", folder_ / "results" / "sheet.png");
  options_.input = (folder_ / "results" / "sheet.png").string();
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "sheet.png lies where drawn pictures go");
  EXPECT_TRUE(built_.empty());
}

TEST_F(BundleAppTest, NamesThatAreNoTextAreLeftOut) {
  for (const char *name : {"bild\xe9.png", "bild\xe8.png"}) {
    testing::fs::copy_file(folder_ / "pictures" / "p0.png", folder_ / "pictures" / name);
  }
  options_.draw = true;
  EXPECT_EQ(Run(), 2U);
  EXPECT_SAYS(problems_.str(), "bild\xe9.png: this name is not UTF-8; rename it");
  EXPECT_EQ(Result("images.json").at("images").size(), 7U);
  EXPECT_FALSE(Exists("pictures/bild\xe9.png.png"));
}

TEST_F(BundleAppTest, WhatWasNotWrittenIsNotListed) {
  testing::WriteText(folder_ / "pictures" / "broken.png", "x");
  testing::WriteText(folder_ / "results" / "pictures" / "broken.png.png", "mine");
  options_.time_path = (folder_ / "times").string();
  testing::WriteText(folder_ / "results" / "test_perform_static.txt", "mine");
  options_.draw = true;
  for (int time = 0; time < 2; ++time) {
    EXPECT_EQ(Run(), 1U);
    const json files = Result(".results.json").at("files");
    for (const json &name : files) {
      EXPECT_TRUE(testing::fs::exists(folder_ / "results" / name.get<std::string>())) << name;
    }
    EXPECT_EQ(ReadText(folder_ / "results" / "pictures" / "broken.png.png"), "mine");
    EXPECT_EQ(ReadText(folder_ / "results" / "test_perform_static.txt"), "mine");
  }
}

TEST_F(BundleAppTest, APlaceForTimesThatIsNoneIsToldAtOnce) {
  options_.time_path = (folder_ / "times").string();
  testing::fs::create_directories(folder_ / "times" / "test_perform_static.txt");
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "is a folder; name another place");
  EXPECT_TRUE(built_.empty());
}

TEST_F(BundleAppTest, LinkedFoldersAreLookedAtOnce) {
  const testing::fs::path pictures = folder_ / "pictures";
  testing::fs::create_directory_symlink(pictures, pictures / "loop");
  testing::fs::create_directory_symlink(pictures / "sub", pictures / "again");
  testing::fs::create_directories(folder_ / "other");
  testing::fs::copy_file(pictures / "p0.png", folder_ / "other" / "q.JFIF");
  testing::fs::create_directory_symlink(folder_ / "other", pictures / "other");
  EXPECT_EQ(Run(), 0U);
  std::vector<std::string> names;
  const json images = Result("images.json").at("images");
  for (const json &image : images) {
    names.push_back(image.at("file_name"));
  }
  EXPECT_EQ(names, (std::vector<std::string>{"p0.png", "p1.png", "p2.png", "p3.png", "p4.png",
                                             "p5.png", "other/q.JFIF", "sub/p.png"}));
}

TEST_F(BundleAppTest, AThresholdBelowTheBundlesIsNamed) {
  options_.score_threshold = 0.0;
  EXPECT_EQ(Run(), 0U);
  EXPECT_SAYS(problems_.str(), "--score_threshold 0 is below ");
}

TEST_F(BundleAppTest, AListNamesPictures) {
  testing::WriteText(folder_ / "pictures" / "list.txt",
                     "sub/p.png\r\n\n  \n" + (folder_ / "pictures" / "p4.png").string() +
                         "\nnone.jpg\n../pictures/p1.png\n");
  options_.input = (folder_ / "pictures" / "list.txt").string();
  options_.draw = true;
  EXPECT_EQ(Run(), 1U);
  EXPECT_SAYS(problems_.str(), "error: none.jpg: cannot be read (No such file or directory)");
  const json images = Result("images.json").at("images");
  ASSERT_EQ(images.size(), 3U);
  EXPECT_EQ(images.at(0).at("file_name"), "sub/p.png");
  EXPECT_EQ(images.at(1).at("drawn"), "pictures/2_p4.png.png");
  EXPECT_EQ(images.at(2).at("id"), 4);
  EXPECT_TRUE(Exists("pictures/4_p1.png.png"));
  testing::WriteText(folder_ / "pictures" / "list.txt", "\xef\xbb\xbfp1.png\n");
  EXPECT_EQ(Run(), 0U);
  EXPECT_EQ(Result("images.json").at("images").at(0).at("file_name"), "p1.png");
  testing::WriteText(folder_ / "pictures" / "list.txt", "p1.png\n./p1.png\n");
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "names ./p1.png twice");
  testing::WriteText(folder_ / "pictures" / "list.txt", "\n");
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "names no picture");
}

TEST_F(BundleAppTest, OnePicture) {
  options_.input = (folder_ / "pictures" / "p2.png").string();
  EXPECT_EQ(Run(), 0U);
  EXPECT_EQ(Result("images.json").at("images").at(0).at("file_name"), "p2.png");
}

TEST_F(BundleAppTest, WhatCannotBeAnInputIsNamed) {
  testing::fs::create_directories(folder_ / "empty" / ".hidden");
  options_.input = (folder_ / "empty").string();
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }),
              "holds no picture (.jpg .jpeg .jpe .jfif .png .apng)");
  testing::WriteText(folder_ / "a.mp4", "x");
  options_.input = (folder_ / "a.mp4").string();
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "a.mp4 has no known type");
  options_.input = (folder_ / "pictures").string();
  options_.output = options_.input;
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "is a folder that is read from");
  EXPECT_TRUE(built_.empty());
}

TEST_F(BundleAppTest, ResultsInsideTheInputAreNotLookedAt) {
  options_.output = options_.time_path = (folder_ / "pictures" / "found").string();
  options_.draw = true;
  EXPECT_EQ(Run(), 0U);
  EXPECT_EQ(Run(), 0U);
  EXPECT_EQ(ReadJson(folder_ / "pictures" / "found" / "done.json").at("images"), 7);
}

TEST_F(BundleAppTest, ARunThatFailsAtOnceLeavesTheEarlierResults) {
  Run();
  const json before = Result("detections.json");
  options_.input = (folder_ / "pictures" / "p2.png").string();
  options_.warmup = 0;
  EXPECT_SAYS(MessageOf<std::runtime_error>([this] { RunFailing(0); }), "the device is gone");
  EXPECT_EQ(Result("detections.json"), before);
  EXPECT_EQ(Result("done.json").at("images"), 7);
  EXPECT_TRUE(Exists("test_perform_static.txt"));
}

TEST_F(BundleAppTest, ARunThatIsBrokenOffKeepsWhatItHas) {
  options_.draw = true;
  Run();
  options_.warmup = 0;
  options_.queue = 1;
  EXPECT_SAYS(MessageOf<std::runtime_error>([this] { RunFailing(3); }), "the device is gone");
  const json images = Result("images.json");
  EXPECT_EQ(images.at("info").at("complete"), false);
  const std::size_t count = images.at("images").size();
  EXPECT_GE(count, 1U);
  EXPECT_LE(count, 3U);
  EXPECT_TRUE(Exists("pictures/p0.png.png") && !Exists("pictures/sub"));
  for (const json &row : Result("detections.json")) {
    EXPECT_LE(row.at("image_id"), 3);
  }
  for (const char *name : {"done.json", "test_perform_static.txt"}) {
    EXPECT_FALSE(Exists(name)) << name;
  }
  EXPECT_EQ(Run(), 0U);
  EXPECT_EQ(Result("images.json").at("info").at("complete"), true);
}

TEST_F(BundleAppTest, ASignalEndsIt) {
  const std::atomic<bool> stop{true};
  EXPECT_THROW(Run(&stop), Interrupted);
  options_.warmup = 0;
  EXPECT_THROW(Run(&stop), Interrupted);
  EXPECT_FALSE(Exists("done.json"));
}

TEST_F(BundleAppTest, ADamagedBundleIsFoundBeforeAnythingIsBuilt) {
  testing::WriteText(folder_ / "bundle" / "prototypes.f32", std::string(16, 'x'));
  EXPECT_SAYS(MessageOf<InputError>([this] { Run(); }), "prototypes.f32 is damaged");
  EXPECT_TRUE(built_.empty());
  EXPECT_FALSE(Exists("done.json"));
}

}  // namespace
}  // namespace defrcn

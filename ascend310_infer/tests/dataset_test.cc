// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "dataset.h"

#include <nlohmann/json.hpp>
#include <string>

#include "support.h"

namespace defrcn {
namespace {

using nlohmann::json;
using testing::Folder;
using testing::MakeDataset;
using testing::Manifest;
using testing::MessageOf;
using testing::ModelInputs;
using testing::Stem;
using testing::WriteText;

std::string OpenProblem(const json &manifest) {
  const Folder folder;
  WriteText(folder / "manifest.json", manifest.dump());
  return MessageOf<InputError>([&] { Dataset::Open(folder.Path()); });
}

TEST(Dataset, ReadsWhatTheManifestLists) {
  const Folder folder;
  MakeDataset(folder.Path(), 3);
  const Dataset dataset = Dataset::Open(folder.Path());
  EXPECT_EQ(dataset.Stems(), (std::vector<std::string>{"000000", "000001", "000002"}));
  EXPECT_EQ(dataset.Height(), 4);
  EXPECT_EQ(dataset.Width(), 6);
  EXPECT_NO_THROW(dataset.CheckFiles());
  const Sample sample = dataset.Read(2);
  EXPECT_EQ(sample.index, 2U);
  ASSERT_EQ(sample.inputs.size(), 2U);
  float pixel = 0.0F;
  std::memcpy(&pixel, sample.inputs[0].data() + testing::kImageBytes - 4, 4);
  EXPECT_EQ(pixel, 2.0F);
  EXPECT_EQ(sample.inputs[1], (Buffer{102, 0, 0, 0}));
}

TEST(Dataset, WithoutManifestIsNotWhole) {
  const Folder folder;
  EXPECT_SAYS(MessageOf<InputError>([&] { Dataset::Open(folder.Path()); }),
              "manifest.json is missing: preprocess.py did not end");
}

TEST(Dataset, DamagedManifestIsNamed) {
  const Folder folder;
  for (const char *text : {"", "{", "[]", "7", "\xff"}) {
    WriteText(folder / "manifest.json", text);
    EXPECT_SAYS(MessageOf<InputError>([&] { Dataset::Open(folder.Path()); }), "manifest.json");
  }
}

TEST(Dataset, ManifestHasToMakeSense) {
  EXPECT_SAYS(OpenProblem(json::object()), "is no manifest of preprocess.py");
  EXPECT_SAYS(OpenProblem(Manifest(0)), "lists no image");

  json changed = Manifest(1);
  changed["inputs"] = json::array();
  EXPECT_SAYS(OpenProblem(changed), "its first input is no image");
  changed = Manifest(1);
  changed["inputs"][0]["shape"] = {1, 3, 4};
  EXPECT_SAYS(OpenProblem(changed), "its first input is no image");
  changed = Manifest(1);
  changed["inputs"][1]["dtype"] = "complex64";
  EXPECT_SAYS(OpenProblem(changed), "'complex64' is not known");
  changed = Manifest(1);
  changed["inputs"][0].erase("folder");
  EXPECT_SAYS(OpenProblem(changed), "is no manifest of preprocess.py");
  changed = Manifest(2);
  changed["images"][1]["stem"] = "000000";
  EXPECT_SAYS(OpenProblem(changed), "'000000' stands there twice");
}

TEST(Dataset, ShapesOfNoArrayAreRefused) {
  for (const json &shape :
       {json{1, 3, 0, 6}, json{1, 3, -4, 6}, json{1, 3, 4000000000, 4000000000}}) {
    json changed = Manifest(1);
    changed["inputs"][0]["shape"] = shape;
    EXPECT_SAYS(OpenProblem(changed), "inputs[0].shape");
  }
}

TEST(Dataset, NamesStayInTheFolder) {
  for (const char *name : {"../x", "/etc/passwd", "", "..", "a/b"}) {
    json changed = Manifest(1);
    changed["images"][0]["stem"] = name;
    EXPECT_SAYS(OpenProblem(changed), "is not that of a file in the folder");
    changed = Manifest(1);
    changed["inputs"][0]["folder"] = name;
    EXPECT_SAYS(OpenProblem(changed), "is not that of a file in the folder");
  }
}

TEST(Dataset, SizesThatWereAskedFor) {
  const Folder folder;
  MakeDataset(folder.Path(), 1);
  const Dataset dataset = Dataset::Open(folder.Path());
  EXPECT_NO_THROW(dataset.CheckSize(0, 0));
  EXPECT_NO_THROW(dataset.CheckSize(4, 6));
  EXPECT_SAYS(MessageOf<InputError>([&] { dataset.CheckSize(6, 4); }), "ask for 4x6");
  EXPECT_SAYS(MessageOf<InputError>([&] { dataset.CheckSize(0, 8); }),
              "ask for 8x4 (width x height)");
}

TEST(Dataset, AnotherModelIsRefused) {
  const Folder folder;
  MakeDataset(folder.Path(), 1);
  const Dataset dataset = Dataset::Open(folder.Path());
  EXPECT_NO_THROW(dataset.CheckModel(ModelInputs()));
  auto other = ModelInputs();
  other.pop_back();
  EXPECT_SAYS(MessageOf<InputError>([&] { dataset.CheckModel(other); }), "takes 1 inputs");
  other = ModelInputs();
  other[0].shape = {1, 3, 8, 6};
  const std::string text = MessageOf<InputError>([&] { dataset.CheckModel(other); });
  EXPECT_SAYS(text, "float32 (1, 3, 8, 6), but 'image'");
  EXPECT_SAYS(text, "is float32 (1, 3, 4, 6)");
  other = ModelInputs();
  other[1].dtype = "int64";
  EXPECT_SAYS(MessageOf<InputError>([&] { dataset.CheckModel(other); }), "input 1 of the model");
}

TEST(Dataset, WrongFilesAreNamedAndCounted) {
  const Folder folder;
  MakeDataset(folder.Path(), 4);
  const Dataset dataset = Dataset::Open(folder.Path());
  WriteText(folder / "eval_img_bin" / "000001.bin", "short");
  std::string text = MessageOf<InputError>([&] { dataset.CheckFiles(); });
  EXPECT_SAYS(text, "000001.bin has 5 bytes instead of 288");
  EXPECT_EQ(text.find("more"), std::string::npos);
  testing::fs::remove(folder / "eval_id_bin" / "000002.bin");
  testing::fs::remove(folder / "eval_id_bin" / "000003.bin");
  EXPECT_SAYS(MessageOf<InputError>([&] { dataset.CheckFiles(); }), "2 more input files are wrong");
  testing::fs::remove(folder / "eval_img_bin" / "000000.bin");
  text = MessageOf<InputError>([&] { dataset.CheckFiles(); });
  EXPECT_SAYS(text, "000000.bin is missing");
}

TEST(ModelNote, MayBeAbsent) {
  const Folder folder;
  const ModelNote note = ModelNote::Open(folder / "net.mindir");
  EXPECT_FALSE(note.restore_bbox.has_value());
  EXPECT_TRUE(note.output_names.empty());
  EXPECT_NO_THROW(note.CheckRestore(false));
}

TEST(ModelNote, NamesOutputsInBothForms) {
  const Folder folder;
  WriteText(folder / "net.mindir.json", R"({"outputs": ["boxes", {"name": "scores"}]})");
  const ModelNote note = ModelNote::Open(folder / "net.mindir");
  EXPECT_EQ(note.output_names, (std::vector<std::string>{"boxes", "scores"}));
}

TEST(ModelNote, HasToAgreeWithTheFlag) {
  const Folder folder;
  WriteText(folder / "net.mindir.json", R"({"restore_bbox": false})");
  const ModelNote note = ModelNote::Open(folder / "net.mindir");
  EXPECT_NO_THROW(note.CheckRestore(std::nullopt));
  EXPECT_NO_THROW(note.CheckRestore(false));
  EXPECT_SAYS(MessageOf<InputError>([&] { note.CheckRestore(true); }),
              "--RESTOREBBOX is true, but the model was exported with restore_bbox false");
}

TEST(ModelNote, DamagedIsNamed) {
  const Folder folder;
  for (const char *text : {"{", R"({"restore_bbox": 3})", R"({"outputs": [{}]})"}) {
    WriteText(folder / "net.mindir.json", text);
    EXPECT_SAYS(MessageOf<InputError>([&] { ModelNote::Open(folder / "net.mindir"); }),
                "net.mindir.json");
  }
}

}  // namespace
}  // namespace defrcn

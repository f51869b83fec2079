// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "result_writer.h"

#include <nlohmann/json.hpp>
#include <vector>

#include "support.h"

namespace defrcn {
namespace {

using nlohmann::json;
using testing::Folder;
using testing::MessageOf;
using testing::ReadJson;
using testing::ReadValues;

std::vector<Tensor> Outputs() {
  return {{{"op7", "float32", {1, 2}, 8}, Buffer{0, 0, 128, 63, 0, 0, 0, 64}},
          {{"op9", "int32", {1}, 4}, Buffer{5, 0, 0, 0}}};
}

TEST(ResultWriter, WritesOutputsThenTheirListThenDone) {
  const Folder folder;
  ResultWriter writer(folder / "results", {});
  writer.Write("000000", Outputs());
  EXPECT_FALSE(testing::fs::exists(folder / "results" / "done.json"));
  Timing timing;
  timing.predict_ms = Summarise({2.0});
  timing.wall_seconds = 0.5;
  writer.Finish({"000000"}, {"net.mindir", "CPU", 2, std::nullopt}, timing);

  EXPECT_EQ(ReadValues<float>(folder / "results" / "000000_0.bin"),
            (std::vector<float>{1.0F, 2.0F}));
  EXPECT_EQ(ReadValues<std::int32_t>(folder / "results" / "000000_1.bin"),
            (std::vector<std::int32_t>{5}));
  const json expected = json::parse(R"([
      {"index": 0, "name": "op7", "dtype": "float32", "shape": [1, 2]},
      {"index": 1, "name": "op9", "dtype": "int32", "shape": [1]}])");
  EXPECT_EQ(ReadJson(folder / "results" / "outputs.json").at("outputs"), expected);
  const json done = ReadJson(folder / "results" / "done.json");
  EXPECT_EQ(done.at("format"), "defrcn-infer");
  EXPECT_EQ(done.at("count"), 1);
  EXPECT_EQ(done.at("stems"), json::array({"000000"}));
  EXPECT_EQ(done.at("predict_ms").at("median"), 2.0);
  EXPECT_EQ(done.at("images_per_second"), 2.0);
  EXPECT_EQ(done.at("device"), "CPU");
  EXPECT_EQ(done.at("instances"), 2);
  EXPECT_TRUE(done.at("restore_bbox").is_null());
}

TEST(ResultWriter, TakesTheNamesOfTheNote) {
  const Folder folder;
  ResultWriter writer(folder.Path(), {"boxes", "id"});
  writer.Write("a", Outputs());
  writer.Finish({"a"}, {"net.mindir", "CPU", 1, true}, {});
  EXPECT_EQ(ReadJson(folder / "outputs.json").at("outputs").at(1).at("name"), "id");
  EXPECT_EQ(ReadJson(folder / "done.json").at("restore_bbox"), true);
}

TEST(ResultWriter, NamesOfAnotherModelAreRefused) {
  const Folder folder;
  ResultWriter writer(folder.Path(), {"boxes"});
  EXPECT_SAYS(MessageOf<std::runtime_error>([&] { writer.Write("a", Outputs()); }),
              "gives 2 outputs, the note beside it names 1");
}

TEST(ResultWriter, AnEarlierRunsEndIsRemoved) {
  const Folder folder;
  testing::WriteText(folder / "done.json", "{}");
  testing::WriteText(folder / "outputs.json", "{}");
  const ResultWriter writer(folder.Path(), {});
  EXPECT_TRUE(testing::fs::is_empty(folder.Path()));
}

TEST(ResultWriter, OutputsMayNotChange) {
  const Folder folder;
  ResultWriter writer(folder.Path(), {});
  writer.Write("a", Outputs());
  auto other = Outputs();
  other[0].info.shape = {1, 3};
  EXPECT_SAYS(MessageOf<std::runtime_error>([&] { writer.Write("b", other); }),
              "output 0 of image b is float32 (1, 3), before it was float32 (1, 2)");
  other.pop_back();
  EXPECT_SAYS(MessageOf<std::runtime_error>([&] { writer.Write("b", other); }),
              "the number of outputs changed at image b");
}

TEST(ResultWriter, NamesThatAreNoTextStayJson) {
  const Folder folder;
  ResultWriter writer(folder.Path(), {"\xff\"\n", "id"});
  writer.Write("a", Outputs());
  writer.Finish({"a"}, {"net", "CPU", 1, true}, {});
  EXPECT_EQ(ReadJson(folder / "outputs.json").at("outputs").size(), 2U);
}

}  // namespace
}  // namespace defrcn

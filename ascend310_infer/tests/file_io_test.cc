// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "file_io.h"

#include <unistd.h>

#include <string>
#include <system_error>

#include "support.h"

namespace defrcn {
namespace {

using testing::Folder;
using testing::MessageOf;
using testing::WriteText;

TEST(ReadExactly, GivesTheBytes) {
  const Folder folder;
  WriteText(folder / "a.bin", std::string("\x01\x00\xff", 3));
  EXPECT_EQ(ReadExactly(folder / "a.bin", 3), (Buffer{1, 0, 255}));
}

TEST(ReadExactly, NamesAMissingFile) {
  const Folder folder;
  const std::string text = MessageOf<InputError>([&] { ReadExactly(folder / "a.bin", 3); });
  EXPECT_SAYS(text, (folder / "a.bin").string());
  EXPECT_SAYS(text, "No such file");
}

TEST(ReadExactly, NamesAShortAndALongFile) {
  const Folder folder;
  WriteText(folder / "a.bin", "ab");
  for (const std::size_t bytes : {1, 3}) {
    const std::string text = MessageOf<InputError>([&] { ReadExactly(folder / "a.bin", bytes); });
    EXPECT_SAYS(text, "a.bin has 2 bytes, the model takes " + std::to_string(bytes));
  }
}

TEST(ReadExactly, RefusesAFolder) {
  const Folder folder;
  EXPECT_THROW(ReadExactly(folder.Path(), 4096), InputError);
}

TEST(WriteAtomically, ReplacesAndLeavesNothingBeside) {
  const Folder folder;
  WriteText(folder / "a.txt", "old");
  WriteAtomically(folder / "a.txt", "new");
  EXPECT_EQ(ReadText(folder / "a.txt"), "new");
  EXPECT_EQ(std::distance(testing::fs::directory_iterator(folder.Path()), {}), 1);
}

TEST(WriteAtomically, WritesAnEmptyFile) {
  const Folder folder;
  WriteAtomically(folder / "a.bin", nullptr, 0);
  EXPECT_EQ(testing::fs::file_size(folder / "a.bin"), 0U);
}

TEST(WriteAtomically, NamesWhatCannotBeWritten) {
  const Folder folder;
  const auto path = folder / "none" / "a.bin";
  EXPECT_SAYS(MessageOf<std::system_error>([&] { WriteAtomically(path, "text"); }), path.string());
}

TEST(WriteAtomically, FailingLeavesTheOldFile) {
  const Folder folder;
  testing::fs::create_directory(folder / "a.bin");  // a rename onto a folder fails
  WriteText(folder / "a.bin" / "inside", "x");
  EXPECT_THROW(WriteAtomically(folder / "a.bin", "text"), std::system_error);
  EXPECT_EQ(std::distance(testing::fs::directory_iterator(folder.Path()), {}), 1);
}

TEST(WriteAtomically, SaysThatTheDiskIsFull) {
  if (!testing::fs::exists("/dev/full")) {
    GTEST_SKIP() << "this system has no /dev/full";
  }
  const Folder folder;
  testing::fs::create_symlink("/dev/full", folder / "a.bin.partial");
  const std::string text =
      MessageOf<std::system_error>([&] { WriteAtomically(folder / "a.bin", "text"); });
  EXPECT_SAYS(text, "a.bin");
  EXPECT_SAYS(text, "No space left");
  EXPECT_FALSE(testing::fs::exists(folder / "a.bin"));
}

TEST(MakeFolder, MakesThoseAboveAndAcceptsWhatIsThere) {
  const Folder folder;
  MakeFolder(folder / "a" / "b");
  MakeFolder(folder / "a" / "b");
  EXPECT_TRUE(testing::fs::is_directory(folder / "a" / "b"));
}

TEST(MakeFolder, NamesAFileInItsPlace) {
  const Folder folder;
  WriteText(folder / "a", "");
  EXPECT_SAYS(MessageOf<InputError>([&] { MakeFolder(folder / "a"); }), (folder / "a").string());
}

}  // namespace
}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "folder_lock.h"

#include <unistd.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "file_io.h"
#include "support.h"

namespace defrcn {
namespace {

using testing::Folder;
using testing::MessageOf;
using testing::WriteText;

std::string Refusal(const testing::fs::path &folder) {
  return MessageOf<InputError>([&] { const FolderLock lock(folder); });
}

TEST(FolderLock, RefusesTheSecondAndNamesTheFirst) {
  const Folder folder;
  auto first = std::make_unique<FolderLock>(folder / "new");
  const std::string text = Refusal(folder / "new");
  EXPECT_SAYS(text, (folder / "new").string() + " is in use by main, process " +
                        std::to_string(::getpid()) + " on ");
  EXPECT_SAYS(text, "; wait for its end, or name another folder");
  first.reset();
  const FolderLock again(folder / "new");
}

TEST(FolderLock, WhatAKilledProcessLeftKeepsNobodyOut) {
  const Folder folder;
  for (const char *left : {"", "{", "[1]", "{\"pid\": 7}", "\xff"}) {
    WriteText(folder / ".results.lock", left);
    const FolderLock lock(folder.Path());
    const auto owner = nlohmann::json::parse(ReadText(folder / ".results.lock"));
    EXPECT_EQ(owner.at("pid"), ::getpid()) << left;
    EXPECT_EQ(owner.at("since").get<std::string>().size(), 19U);
  }
}

TEST(FolderLock, RefusesAlsoWhereNobodySigned) {
  const Folder folder;
  const FolderLock lock(folder.Path());
  WriteText(folder / ".results.lock", "\xff");
  EXPECT_SAYS(Refusal(folder.Path()), "is in use by another process; wait");
}

TEST(FolderLock, NamesAFolderThatCannotBe) {
  const Folder folder;
  WriteText(folder / "file", "");
  EXPECT_SAYS(Refusal(folder / "file"), (folder / "file").string() + " cannot be made");
  testing::fs::create_directories(folder / "taken" / ".results.lock");
  EXPECT_SAYS(Refusal(folder / "taken"), "cannot be written to (Is a directory)");
}

}  // namespace
}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// One writer a folder of results, be it this program or the Python side.
#ifndef DEFRCN_FOLDER_LOCK_H_
#define DEFRCN_FOLDER_LOCK_H_

#include <filesystem>

namespace defrcn {

// Keeps other processes from writing into a folder while it lives. The file `.results.lock` stays;
// what counts is the system's lock on it, so that a killed process keeps nobody out.
class FolderLock {
 public:
  // Makes the folder if it is missing. Throws InputError, which names the folder and who writes
  // there, or says that the folder cannot be written to.
  explicit FolderLock(const std::filesystem::path &folder);
  FolderLock(const FolderLock &) = delete;
  FolderLock &operator=(const FolderLock &) = delete;
  ~FolderLock();

 private:
  int descriptor_;
};

}  // namespace defrcn

#endif  // DEFRCN_FOLDER_LOCK_H_

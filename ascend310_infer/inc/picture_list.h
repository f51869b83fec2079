// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Which pictures --input means.
#ifndef DEFRCN_PICTURE_LIST_H_
#define DEFRCN_PICTURE_LIST_H_

#include <filesystem>
#include <string>
#include <vector>

namespace defrcn {

struct PictureFile {
  std::filesystem::path path;
  std::string name;   // in the results: below the folder, or as the list has it
  std::string drawn;  // below the results' folder "pictures"; unlike that of any other
};

struct PictureList {
  std::vector<PictureFile> pictures;
  std::vector<std::string> skipped;  // files of the folder that are no pictures
};

// A picture; a folder with those below it (JPEG and PNG by their suffixes; hidden ones and
// `leave_out` are not looked at; linked folders are, each folder once; a folder's own files in
// order of their names, then its subfolders); or a .txt file with one path a line, below its own
// folder or absolute. Throws InputError if there is none, or a list names one twice.
PictureList FindPictures(const std::filesystem::path &input,
                         const std::filesystem::path &leave_out);

}  // namespace defrcn

#endif  // DEFRCN_PICTURE_LIST_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "picture_list.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <sstream>
#include <string>
#include <system_error>
#include <vector>

#include "error.h"
#include "file_io.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;

constexpr char kKinds[] = ".jpg .jpeg .png";

std::string LowerSuffix(const fs::path &path) {
  std::string suffix = path.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char letter) { return std::tolower(letter); });
  return suffix;
}

bool IsPicture(const fs::path &path) {
  const std::string suffix = LowerSuffix(path);
  return suffix == ".jpg" || suffix == ".jpeg" || suffix == ".png";
}

// Files of a folder, then its subfolders, both by name; links to folders are not followed.
void Walk(const fs::path &folder, const std::string &prefix, const fs::path &leave_out,
          PictureList *list) {
  std::vector<std::string> files, folders;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    std::error_code unknown;
    if (name.empty() || name[0] == '.') {
      continue;
    }
    if (!entry->is_directory(unknown)) {
      files.push_back(name);
    } else if (!entry->is_symlink(unknown) && !fs::equivalent(entry->path(), leave_out, unknown)) {
      folders.push_back(name);
    }
  }
  if (error) {
    throw InputError("--input: the folder " + folder.string() + " cannot be read (" +
                     error.message() + ")");
  }
  std::sort(files.begin(), files.end());
  std::sort(folders.begin(), folders.end());
  for (const std::string &name : files) {
    if (IsPicture(name)) {
      list->pictures.push_back({folder / name, prefix + name, prefix + name + ".png"});
    } else {
      list->skipped.push_back(prefix + name);
    }
  }
  for (const std::string &name : folders) {
    Walk(folder / name, prefix + name + "/", leave_out, list);
  }
}

bool LeavesItsFolder(const fs::path &path) {
  return path.is_absolute() || path.empty() || *path.begin() == "..";
}

PictureList ReadList(const fs::path &file) {
  PictureList list;
  std::set<std::string> names, drawn;
  const Buffer content = ReadRegular(file, std::uintmax_t{1} << 30);
  std::istringstream lines(std::string(content.begin(), content.end()));
  for (std::string line; std::getline(lines, line);) {
    while (!line.empty() && std::isspace(static_cast<unsigned char>(line.back())) != 0) {
      line.pop_back();
    }
    if (line.empty()) {
      continue;
    }
    const fs::path path = fs::path(line).lexically_normal();
    if (!names.insert(path.string()).second) {
      throw InputError("--input: " + file.string() + " names " + line + " twice");
    }
    PictureFile one{file.parent_path() / line, line, path.string() + ".png"};
    if (LeavesItsFolder(path)) {
      one.drawn = std::to_string(names.size()) + "_" + path.filename().string() + ".png";
    }
    while (!drawn.insert(one.drawn).second) {
      one.drawn = "_" + one.drawn;
    }
    list.pictures.push_back(one);
  }
  if (list.pictures.empty()) {
    throw InputError("--input: " + file.string() + " names no picture: write one path a line");
  }
  return list;
}

}  // namespace

PictureList FindPictures(const fs::path &input, const fs::path &leave_out) {
  std::error_code error;
  if (fs::is_directory(input, error)) {
    PictureList list;
    Walk(input, "", leave_out, &list);
    if (list.pictures.empty()) {
      throw InputError("--input: the folder " + input.string() + " holds no picture (" + kKinds +
                       ")");
    }
    return list;
  }
  if (LowerSuffix(input) == ".txt") {
    return ReadList(input);
  }
  if (!IsPicture(input)) {
    throw InputError("--input: " + input.string() + " has no known type; give a picture (" +
                     kKinds + "), a folder of pictures, or a list of paths (.txt)");
  }
  const std::string name = input.filename().string();
  return {{{input, name, name + ".png"}}, {}};
}

}  // namespace defrcn

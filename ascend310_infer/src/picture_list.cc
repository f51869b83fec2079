// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "picture_list.h"

#include <algorithm>
#include <cctype>
#include <cstring>
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

constexpr char kKinds[] = ".jpg .jpeg .jpe .jfif .png .apng";
constexpr char kByteOrderMark[] = "\xef\xbb\xbf";  // Windows' editors begin a text with it
constexpr std::size_t kLongestDrawn = 200;         // bytes; most systems take names of 255

std::string LowerSuffix(const fs::path &path) {
  std::string suffix = path.extension().string();
  std::transform(suffix.begin(), suffix.end(), suffix.begin(),
                 [](unsigned char letter) { return std::tolower(letter); });
  return suffix;
}

bool IsPicture(const fs::path &path) {
  const std::string suffix = LowerSuffix(path);
  return !suffix.empty() && (std::string(kKinds) + " ").find(suffix + " ") != std::string::npos;
}

// Names of drawn pictures, each used once.
class DrawnNames {
 public:
  // For a picture's name; `number` takes the place of one that is too long for most systems.
  std::string For(const fs::path &name, std::size_t number) {
    std::string file = name.filename().string() + ".png";
    if (file.size() > kLongestDrawn) {
      file = std::to_string(number) + ".png";
    }
    while (!Take(name.parent_path() / file)) {
      file = "_" + file;
    }
    return (name.parent_path() / file).string();
  }

  bool Take(const fs::path &name) { return taken_.insert(name).second; }

 private:
  std::set<fs::path> taken_;
};

bool LeavesItsFolder(const fs::path &path) {
  return path.is_absolute() || path.empty() || *path.begin() == "..";
}

// Files of a folder, then its subfolders, both by name. Each folder once, wherever links lead, by
// its own name if it lies inside: `seen` holds the real paths of those that are done or are the
// results'.
void Walk(const fs::path &root, const std::string &prefix, std::set<fs::path> *seen,
          DrawnNames *drawn, PictureList *list) {
  const fs::path folder = root / prefix;
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
    } else {
      folders.push_back(name);
    }
  }
  if (error) {
    throw InputError("--input: the folder " + folder.string() + " cannot be read (" +
                     error.message() + ")");
  }
  std::sort(files.begin(), files.end());
  std::sort(folders.begin(), folders.end());
  std::vector<std::string> others;
  for (const std::string &name : folders) {
    drawn->Take(prefix + name);
    const fs::path real = fs::canonical(folder / name, error);
    const bool inside = fs::is_symlink(folder / name, error) &&
                        !LeavesItsFolder(real.lexically_relative(fs::canonical(root)));
    if (!inside && seen->insert(real).second) {
      others.push_back(name);
    }
  }
  for (const std::string &name : files) {
    if (IsPicture(name)) {
      const std::size_t number = list->pictures.size() + 1;
      list->pictures.push_back({folder / name, prefix + name, drawn->For(prefix + name, number)});
    } else {
      list->skipped.push_back(prefix + name);
    }
  }
  for (const std::string &name : others) {
    Walk(root, prefix + name + "/", seen, drawn, list);
  }
}

PictureList ReadList(const fs::path &file) {
  PictureList list;
  std::set<std::string> names;
  DrawnNames drawn;
  const Buffer content = ReadRegular(file, std::uintmax_t{1} << 30);
  std::string text(content.begin(), content.end());
  if (text.rfind(kByteOrderMark, 0) == 0) {
    text.erase(0, std::strlen(kByteOrderMark));
  }
  std::istringstream lines(text);
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
    PictureFile one{file.parent_path() / line, line, ""};
    const std::string alone = std::to_string(names.size()) + "_" + path.filename().string();
    one.drawn = drawn.For(LeavesItsFolder(path) ? fs::path(alone) : path, names.size());
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
    std::set<fs::path> seen = {fs::canonical(input), fs::weakly_canonical(leave_out, error)};
    DrawnNames drawn;
    Walk(input, "", &seen, &drawn, &list);
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
  return {{{input, name, DrawnNames().For(name, 1)}}, {}};
}

}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "file_io.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <iterator>
#include <string>
#include <system_error>
#include <utility>

#include "error.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void Fail(const std::string &what, const fs::path &path) {
  throw std::system_error(errno, std::generic_category(), what + " " + path.string());
}

// An open descriptor; closed, and the file removed, unless Commit moved it to its place.
class PartialFile {
 public:
  explicit PartialFile(fs::path target) : target_(std::move(target)), partial_(target_) {
    partial_ += ".partial";
    descriptor_ = ::open(partial_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor_ < 0) {
      Fail("cannot write", target_);
    }
  }
  PartialFile(const PartialFile &) = delete;
  PartialFile &operator=(const PartialFile &) = delete;
  ~PartialFile() {
    if (descriptor_ >= 0) {
      ::close(descriptor_);
    }
    if (!committed_) {
      ::unlink(partial_.c_str());
    }
  }

  void Write(const char *data, std::size_t bytes) {
    while (bytes > 0) {
      const ssize_t written = ::write(descriptor_, data, bytes);
      if (written < 0) {
        if (errno == EINTR) {
          continue;
        }
        Fail("cannot write", target_);
      }
      data += written;
      bytes -= static_cast<std::size_t>(written);
    }
  }

  void Commit(bool durable) {
    if (durable && ::fsync(descriptor_) != 0) {
      Fail("cannot write", target_);
    }
    if (::close(std::exchange(descriptor_, -1)) != 0) {
      Fail("cannot write", target_);
    }
    if (::rename(partial_.c_str(), target_.c_str()) != 0) {
      Fail("cannot write", target_);
    }
    committed_ = true;
  }

 private:
  fs::path target_;
  fs::path partial_;
  int descriptor_ = -1;
  bool committed_ = false;
};

}  // namespace

Buffer ReadExactly(const fs::path &path, std::size_t bytes) {
  std::error_code error;
  const std::uintmax_t found = fs::file_size(path, error);
  if (error) {
    throw InputError(path.string() + " cannot be read (" + error.message() +
                     "): run preprocess.py again");
  }
  if (found != bytes) {
    throw InputError(path.string() + " has " + std::to_string(found) + " bytes, the model takes " +
                     std::to_string(bytes) +
                     ": run preprocess.py with the size that the model was exported for");
  }
  Buffer buffer(bytes);
  std::ifstream stream(path, std::ios::binary);
  stream.read(reinterpret_cast<char *>(buffer.data()), static_cast<std::streamsize>(bytes));
  if (!stream || static_cast<std::size_t>(stream.gcount()) != bytes) {
    throw InputError(path.string() + " cannot be read whole: run preprocess.py again");
  }
  return buffer;
}

std::string ReadText(const fs::path &path) {
  std::ifstream stream(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(stream), std::istreambuf_iterator<char>()};
  if (!stream.is_open() || stream.bad()) {
    throw InputError(path.string() + " cannot be read");
  }
  return text;
}

void WriteAtomically(const fs::path &path, const void *data, std::size_t bytes, bool durable) {
  PartialFile file(path);
  file.Write(static_cast<const char *>(data), bytes);
  file.Commit(durable);
}

void WriteAtomically(const fs::path &path, std::string_view text) {
  WriteAtomically(path, text.data(), text.size(), /*durable=*/true);
}

void MakeFolder(const fs::path &folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error || !fs::is_directory(folder)) {
    throw InputError("the folder " + folder.string() + " cannot be made" +
                     (error ? " (" + error.message() + ")" : "") + ": name another one");
  }
}

}  // namespace defrcn

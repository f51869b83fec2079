// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "file_io.h"

#include <fcntl.h>
#include <sys/stat.h>
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

// A descriptor that is closed in the end.
class Descriptor {
 public:
  explicit Descriptor(int number) : number_(number) {}
  Descriptor(const Descriptor &) = delete;
  Descriptor &operator=(const Descriptor &) = delete;
  ~Descriptor() {
    if (number_ >= 0) {
      ::close(number_);
    }
  }
  int Number() const { return number_; }

 private:
  int number_;
};

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

Buffer ReadRegular(const fs::path &path, std::uintmax_t most) {
  const auto refuse = [&path](const std::string &reason) {
    throw InputError(path.string() + ": cannot be read (" + reason + ")");
  };
  // Without O_NONBLOCK opening a pipe waits for somebody who writes.
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC));
  struct stat status = {};
  if (file.Number() < 0 || ::fstat(file.Number(), &status) != 0) {
    refuse(std::generic_category().message(errno));
  }
  if (!S_ISREG(status.st_mode)) {
    refuse("not a regular file");
  }
  if (static_cast<std::uintmax_t>(status.st_size) > most) {
    refuse(std::to_string(status.st_size) + " bytes are more than " + std::to_string(most));
  }
  Buffer buffer(static_cast<std::size_t>(status.st_size));
  std::size_t filled = 0;
  while (filled < buffer.size()) {
    const ssize_t bytes = ::read(file.Number(), buffer.data() + filled, buffer.size() - filled);
    if (bytes < 0 && errno == EINTR) {
      continue;
    }
    if (bytes <= 0) {
      refuse(bytes < 0 ? std::generic_category().message(errno) : "it became shorter");
    }
    filled += static_cast<std::size_t>(bytes);
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
  if (error || !fs::is_directory(folder, error)) {
    throw InputError("the folder " + folder.string() + " cannot be made" +
                     (error ? " (" + error.message() + ")" : "") + ": name another one");
  }
}

}  // namespace defrcn

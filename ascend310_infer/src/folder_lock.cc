// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <ctime>
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>
#include <system_error>
#include <thread>

#include "error.h"
#include "file_io.h"

namespace defrcn {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Name and content are those of src/model_utils/folder_lock.py.
constexpr char kLock[] = ".results.lock";
// A process that only looks whether a folder is free has its lock for a moment.
constexpr int kAttempts = 10;
constexpr std::chrono::milliseconds kPause(100);

bool Lock(int descriptor) {
  for (int attempt = 0;; ++attempt) {
    if (::flock(descriptor, LOCK_EX | LOCK_NB) == 0) {
      return true;
    }
    if (errno == EINTR) {
      continue;
    }
    if (errno == ENOLCK || errno == ENOSYS || errno == EOPNOTSUPP || errno == EINVAL) {
      std::cerr << "warning: the folder of results cannot be locked ("
                << std::generic_category().message(errno)
                << "): see to it that nothing else writes there" << std::endl;
      return true;
    }
    if (errno != EWOULDBLOCK) {
      return false;
    }
    if (attempt == kAttempts) {
      return false;
    }
    std::this_thread::sleep_for(kPause);
  }
}

// Who has the lock, in words.
std::string Owner(const fs::path &path) {
  const json owner = json::parse(ReadText(path), nullptr, /*allow_exceptions=*/false);
  if (owner.is_object()) {
    const auto word = [&owner](const char *key) {
      const json value = owner.value(key, json());
      return value.is_string() ? value.get<std::string>() : value.dump();
    };
    return word("program") + ", process " + word("pid") + " on " + word("host") + " since " +
           word("since");
  }
  return "another process";
}

void Sign(int descriptor) {
  char host[256] = {};
  ::gethostname(host, sizeof(host) - 1);
  const std::time_t now = std::time(nullptr);
  std::tm local = {};
  ::localtime_r(&now, &local);
  char since[32] = {};
  std::strftime(since, sizeof(since), "%Y-%m-%d %H:%M:%S", &local);
  const json owner = {{"program", "main"}, {"pid", ::getpid()}, {"host", host}, {"since", since}};
  const std::string text = owner.dump(-1, ' ', false, json::error_handler_t::replace);
  // Only a message of others gets worse if this fails.
  if (::ftruncate(descriptor, 0) == 0) {
    [[maybe_unused]] const ssize_t written = ::pwrite(descriptor, text.data(), text.size(), 0);
  }
}

}  // namespace

FolderLock::FolderLock(const fs::path &folder) {
  MakeFolder(folder);
  const fs::path path = folder / kLock;
  descriptor_ = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) {
    throw InputError("the folder " + folder.string() + " cannot be written to (" +
                     std::generic_category().message(errno) + "): name another one");
  }
  if (!Lock(descriptor_)) {
    const std::string owner = Owner(path);
    ::close(descriptor_);
    throw InputError(folder.string() + " is in use by " + owner +
                     "; wait for its end, or name another folder");
  }
  Sign(descriptor_);
}

FolderLock::~FolderLock() { ::close(descriptor_); }

}  // namespace defrcn

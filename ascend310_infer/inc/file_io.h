// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Files that are read whole, and files that appear whole or not at all.
#ifndef DEFRCN_FILE_IO_H_
#define DEFRCN_FILE_IO_H_

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace defrcn {

using Buffer = std::vector<std::uint8_t>;

// Reads a file that must have exactly `bytes` bytes. Throws InputError, which names the file.
Buffer ReadExactly(const std::filesystem::path &path, std::size_t bytes);

// Reads a whole file that is one: a pipe or a device may never end. Throws InputError, which names
// the file, also if it has more than `most` bytes.
Buffer ReadRegular(const std::filesystem::path &path, std::uintmax_t most);

// Reads a text file. Throws InputError, which names the file.
std::string ReadText(const std::filesystem::path &path);

// Writes beside `path`, then renames; a failure leaves the old file or none. `durable` waits until
// the bytes are on the disk. Throws std::system_error, which names the file (for instance: disk
// full).
void WriteAtomically(const std::filesystem::path &path, const void *data, std::size_t bytes,
                     bool durable = false);
void WriteAtomically(const std::filesystem::path &path, std::string_view text);

// Makes a folder and those above it. Throws InputError, which names it.
void MakeFolder(const std::filesystem::path &folder);

}  // namespace defrcn

#endif  // DEFRCN_FILE_IO_H_

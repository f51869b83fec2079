// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#ifndef DEFRCN_SHA256_H_
#define DEFRCN_SHA256_H_

#include <filesystem>
#include <string>

namespace defrcn {

// 64 hexadecimal digits in small letters. Throws InputError, which names a file that cannot be
// read.
std::string Sha256OfFile(const std::filesystem::path &path);

}  // namespace defrcn

#endif  // DEFRCN_SHA256_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "sha256.h"

#include <openssl/evp.h>

#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "error.h"

namespace defrcn {
namespace {

constexpr std::size_t kPiece = std::size_t{1} << 20;

void MustWork(int status) {
  if (status != 1) {
    throw std::runtime_error("OpenSSL cannot compute SHA-256");
  }
}

}  // namespace

std::string Sha256OfFile(const std::filesystem::path &path) {
  const std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                        EVP_MD_CTX_free);
  MustWork(context == nullptr ? 0 : EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr));
  std::ifstream stream(path, std::ios::binary);
  std::vector<char> piece(kPiece);
  while (stream) {
    stream.read(piece.data(), static_cast<std::streamsize>(piece.size()));
    MustWork(
        EVP_DigestUpdate(context.get(), piece.data(), static_cast<std::size_t>(stream.gcount())));
  }
  if (!stream.eof()) {
    throw InputError(path.string() + " cannot be read");
  }
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int bytes = 0;
  MustWork(EVP_DigestFinal_ex(context.get(), digest, &bytes));
  std::string text;
  for (unsigned int place = 0; place < bytes; ++place) {
    constexpr char kDigits[] = "0123456789abcdef";
    text += kDigits[digest[place] >> 4];
    text += kDigits[digest[place] & 15];
  }
  return text;
}

}  // namespace defrcn

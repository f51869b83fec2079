// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// What a user can put right: the message is one sentence that names the file or flag.
#ifndef DEFRCN_ERROR_H_
#define DEFRCN_ERROR_H_

#include <stdexcept>

namespace defrcn {

class InputError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// The run was stopped by a signal; what was written stays, the closing file is missing.
class Interrupted : public std::runtime_error {
 public:
  Interrupted() : std::runtime_error("interrupted") {}
};

}  // namespace defrcn

#endif  // DEFRCN_ERROR_H_

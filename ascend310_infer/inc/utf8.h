// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#ifndef DEFRCN_UTF8_H_
#define DEFRCN_UTF8_H_

#include <string_view>

namespace defrcn {

// Whether bytes are UTF-8, which texts in JSON and PNG have to be and names of files need not be.
// As strict as Python: nothing longer than it need be, no halves of UTF-16 pairs.
bool IsUtf8(std::string_view text);

}  // namespace defrcn

#endif  // DEFRCN_UTF8_H_

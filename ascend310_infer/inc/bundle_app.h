// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// The program on a bundle and pictures, between its command line and its engines.
#ifndef DEFRCN_BUNDLE_APP_H_
#define DEFRCN_BUNDLE_APP_H_

#include <atomic>
#include <cstddef>
#include <ostream>

#include "app.h"
#include "options.h"

namespace defrcn {

// Checks flags, bundle and pictures' names, builds the engines, looks at all pictures, and writes
// detections and times. Pictures that cannot be used are named on `problems`, and left out; returns
// how many. Throws InputError, Interrupted or another std::exception.
//
// Where the program was built without libraries for pictures it throws InputError, which says what
// to install.
std::size_t RunBundle(const Options &options, const EngineMaker &make_engine,
                      const std::atomic<bool> *stop, std::ostream *out, std::ostream *problems);

}  // namespace defrcn

#endif  // DEFRCN_BUNDLE_APP_H_

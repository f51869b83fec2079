// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// Instead of bundle_app.cc where the libraries for pictures are missing.
#include "bundle_app.h"
#include "error.h"

namespace defrcn {

std::size_t RunBundle(const Options& /*options*/, const EngineMaker& /*make_engine*/,
                      const std::atomic<bool>* /*stop*/, std::ostream* /*out*/,
                      std::ostream* /*problems*/) {
  throw InputError(
      "--bundle: this program was built without libjpeg, libpng and OpenSSL; Debian, Ubuntu: "
      "apt-get install -y libjpeg-dev libpng-dev libssl-dev, then build it again "
      "(ascend310_infer/build.sh)");
}

}  // namespace defrcn

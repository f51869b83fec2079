// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// An engine that runs a MINDIR with MindSpore Lite's cloud-side API.
#ifndef DEFRCN_LITE_ENGINE_H_
#define DEFRCN_LITE_ENGINE_H_

#include <memory>

#include "engine.h"
#include "options.h"

namespace defrcn {

// Builds the model for the device that the options name. Throws InputError if Lite refuses.
std::unique_ptr<Engine> MakeLiteEngine(const Options &options);

}  // namespace defrcn

#endif  // DEFRCN_LITE_ENGINE_H_

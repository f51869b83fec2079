// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// The program between its command line and its engine.
#ifndef DEFRCN_APP_H_
#define DEFRCN_APP_H_

#include <atomic>
#include <functional>
#include <memory>
#include <ostream>

#include "engine.h"
#include "options.h"

namespace defrcn {

// The text of the times, in --time_path.
constexpr char kTimeFile[] = "test_perform_static.txt";

// How the options make an engine; called once an instance.
using EngineMaker = std::function<std::unique_ptr<Engine>(const Options &)>;

// Checks everything that can be checked without a model, then builds the engines, runs all images
// and writes results and times. Throws InputError, Interrupted or another std::exception.
void RunApp(Options options, const EngineMaker &make_engine, const std::atomic<bool> *stop,
            std::ostream *out);

// Threads of one instance on a CPU: what was asked for, or a fair share of the cores.
int ThreadsOf(const Options &options, unsigned cores);

}  // namespace defrcn

#endif  // DEFRCN_APP_H_

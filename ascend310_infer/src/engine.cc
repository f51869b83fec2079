// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
#include "engine.h"

#include <string>
#include <vector>

#include "error.h"

namespace defrcn {

std::string Describe(const TensorInfo &info) {
  std::string text = info.dtype + " (";
  for (std::size_t place = 0; place < info.shape.size(); ++place) {
    text += (place == 0 ? "" : ", ") + std::to_string(info.shape[place]);
  }
  return text + ")";
}

void CheckModelInputs(const std::vector<TensorInfo> &model, const std::vector<TensorInfo> &ours,
                      const std::string &source, const std::string &remedy) {
  if (model.size() != ours.size()) {
    throw InputError("the model takes " + std::to_string(model.size()) + " inputs, " + source +
                     " lists " + std::to_string(ours.size()));
  }
  for (std::size_t place = 0; place < ours.size(); ++place) {
    const TensorInfo &mine = ours[place];
    const TensorInfo &theirs = model[place];
    if (mine.dtype != theirs.dtype || mine.shape != theirs.shape || mine.bytes != theirs.bytes) {
      throw InputError("input " + std::to_string(place) + " of the model, '" + theirs.name +
                       "', is " + Describe(theirs) + ", but '" + mine.name + "' in " + source +
                       " is " + Describe(mine) + ": " + remedy);
    }
  }
}

}  // namespace defrcn

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// The results of a bundle: detections.json (COCO's list), images.json (COCO's images and
// categories), problems.json, drawn pictures, and done.json as the last file.
#ifndef DEFRCN_DETECTION_WRITER_H_
#define DEFRCN_DETECTION_WRITER_H_

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "bundle.h"
#include "bundle_detector.h"
#include "picture_list.h"
#include "result_writer.h"
#include "statistics.h"

namespace defrcn {

class DetectionWriter {
 public:
  // Makes the folder and removes the files of an earlier run, so that a run which does not end
  // cannot pass for a whole one.
  DetectionWriter(std::filesystem::path folder, const Bundle &bundle,
                  const std::vector<PictureFile> &pictures, bool draw);

  // Takes one picture's detections, and draws them. Returns the milliseconds that this took.
  double Add(PictureOut picture);

  // Writes everything that is left to write.
  void Finish(const RunInfo &run, const Timing &timing, double threshold) const;

  // "NAME: what is wrong", in the order of the pictures.
  std::vector<std::string> Problems() const;

 private:
  void RemoveDrawn() const;

  std::filesystem::path folder_;
  const Bundle &bundle_;
  const std::vector<PictureFile> &pictures_;
  bool draw_;
  std::vector<std::string> labels_;
  std::vector<PictureOut> found_;  // by index; without pixels
};

}  // namespace defrcn

#endif  // DEFRCN_DETECTION_WRITER_H_

// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// The results of a bundle: detections.json (COCO's list), images.json (COCO's images and
// categories), problems.json, drawn pictures, and done.json as the last file.
#ifndef DEFRCN_DETECTION_WRITER_H_
#define DEFRCN_DETECTION_WRITER_H_

#include <cstddef>
#include <filesystem>
#include <optional>
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
  // Makes the folder. Earlier results in it stay until the first picture is done. `times_too`: the
  // file of times is to lie there and is one of the results.
  DetectionWriter(std::filesystem::path folder, const Bundle &bundle,
                  const std::vector<PictureFile> &pictures, bool draw, bool times_too);

  // Takes one picture's detections, and draws them. Returns the milliseconds that this took. The
  // first one removes what `.results.json` lists of an earlier run.
  double Add(PictureOut picture);

  // Writes everything that is left to write.
  void Finish(const RunInfo &run, const Timing &timing, double threshold);

  // For a run that is broken off: what was found so far, without done.json. Nothing if that is
  // nothing, or if it cannot be written: what broke the run off is to be told.
  void WritePart(double threshold) noexcept;

  // "NAME: what is wrong", in the order of the pictures.
  std::vector<std::string> Problems() const;

 private:
  void Begin();
  void WriteIndex(std::vector<std::string> drawn) const;
  void Write(double threshold, bool complete);

  std::filesystem::path folder_;
  const Bundle &bundle_;
  const std::vector<PictureFile> &pictures_;
  bool draw_;
  bool times_too_;
  bool begun_ = false;
  std::vector<std::string> labels_;
  std::vector<std::optional<PictureOut>> found_;  // by index; without pixels
  std::size_t num_images_ = 0;
  std::size_t num_detections_ = 0;
};

}  // namespace defrcn

#endif  // DEFRCN_DETECTION_WRITER_H_

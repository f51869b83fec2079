// Copyright 2026 The DeFRCN on MindSpore authors. Licensed under the Apache License 2.0.
// How a camera was held, from the data beside the pixels.
#ifndef DEFRCN_EXIF_H_
#define DEFRCN_EXIF_H_

#include <string>

namespace defrcn {

// The orientation, 1 to 8: of EXIF (a TIFF structure, with "Exif\0\0" before it or not), else of
// XMP; 1 if neither has one. Other values are handed on as they stand, and mean nothing. Damaged
// data count as none.
int OrientationOf(const std::string &exif, const std::string &xmp);

// What ImageMagick puts into a PNG's text: a line of its own, a name, a length, then hexadecimal
// digits. Empty if there is anything else.
std::string RawProfile(const std::string &text);

}  // namespace defrcn

#endif  // DEFRCN_EXIF_H_

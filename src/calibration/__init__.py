"""The calibration block's pictures, support set and stored prototypes."""

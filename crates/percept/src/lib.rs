//! Perceptual grouping with vision-language models: segment, group, classify and embed photos.

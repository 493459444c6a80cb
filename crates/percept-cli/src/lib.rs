//! The percept command line.

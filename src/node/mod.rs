//! the built-in vector node: a program of its own, met only over HTTP.

//! samples -> observation. Pure.

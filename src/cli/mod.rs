//! one file per command.

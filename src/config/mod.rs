//! the file as written and as believed.

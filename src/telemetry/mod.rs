//! one struct per event: its log line and its metrics.

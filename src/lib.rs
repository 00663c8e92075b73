//! vecscale watches a distributed vector database and grows, shrinks and rebalances it, shards included.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod controller;
pub mod decide;
pub mod handle;
pub mod http;
pub mod model;
pub mod node;
pub mod observe;
pub mod operate;
pub mod record;
pub mod scrape;
pub mod serve;
pub mod spelling;
pub mod telemetry;
pub mod units;

//! Datastore driver for Qdrant, over the REST API of its nodes.

pub mod api;

//! /metrics, REST API. IO.

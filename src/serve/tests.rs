//! Requests over real TCP against a controller that is played: every answer that a client can get.

mod access;
mod stage;
mod stories;
mod table;
mod webhook;

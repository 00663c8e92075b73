//! What real Alertmanagers sent, and the desk over a journal: what is on disk, who may wait for whom.

mod desk;
mod recorded;

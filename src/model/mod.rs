//! The nouns of vecscale. Pure data and plain functions; knows no other module.

mod alert;
mod decision;
mod history;
mod ids;
mod inventory;
mod observation;
mod operation;
mod order;
mod sample;
mod thresholds;
pub mod time;
mod view;
mod window;

pub use alert::*;
pub use decision::*;
pub use history::*;
pub use ids::*;
pub use inventory::*;
pub use observation::*;
pub use operation::*;
pub use order::*;
pub use sample::*;
pub use thresholds::*;
pub use time::Timestamp;
pub use view::*;
pub use window::*;

//! One direction of one path: parameters, model, and the random processes inside it.

mod corruption;
mod frame;
mod loss;
mod model;
mod profile;
pub(crate) mod random;

pub use corruption::{Corruption, FLIPS_MAX};
pub use frame::FrameShape;
pub use loss::LossProcess;
pub use model::{Departure, Departures, DropCause, PathCounters, PathModel, Verdict};
pub use profile::{
    DELAY_MS_MAX, InvalidProfile, MTU_DEFAULT, MTU_MAX, MTU_MIN, PathProfile, QUEUE_FRAMES_MAX,
    QUEUE_FRAMES_MIN, RATE_MAX, RATE_MIN,
};

//! Lanes: buckets of inner flows that keep their order.

/// How long a lane's frames may wait behind a hole, and what they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Somebody waits for each frame: voice, names, echo.
    Interactive,
    /// Throughput counts.
    Bulk,
}

/// How many classes there are.
pub const CLASSES: usize = 2;

impl Class {
    /// Both classes, in the order of their indices.
    pub const ALL: [Class; CLASSES] = [Class::Interactive, Class::Bulk];

    /// An index below [`CLASSES`].
    #[inline]
    pub fn index(self) -> usize {
        match self {
            Class::Interactive => 0,
            Class::Bulk => 1,
        }
    }
}

/// How many lanes a stream has.
pub const LANES: usize = 256;

/// Lanes below this are bulk, the others interactive: the class is the lane's, never a frame's.
pub const BULK_LANES: u8 = 192;

/// A bucket of inner flows: order is kept inside it, never across.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lane(pub u8);

impl Lane {
    /// The lane of class `class` for a flow with this hash.
    #[inline]
    pub fn for_flow(class: Class, hash: u64) -> Self {
        // The product's high bits: no bias worth counting, and no division.
        let bucket = |count: u64| ((u128::from(hash) * u128::from(count)) >> 64) as u8;
        match class {
            Class::Bulk => Self(bucket(u64::from(BULK_LANES))),
            Class::Interactive => Self(BULK_LANES + bucket(256 - u64::from(BULK_LANES))),
        }
    }

    /// The lane's class.
    #[inline]
    pub fn class(self) -> Class {
        if self.0 < BULK_LANES {
            Class::Bulk
        } else {
            Class::Interactive
        }
    }

    /// An index below [`LANES`].
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

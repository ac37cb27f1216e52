//! Train, valid and test: the split of a thing is a function of its hash, never of chance.

use serde::{Deserialize, Serialize};

/// A part of the world. No structure of one part occurs in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// What models are trained on: 80 %.
    Train,
    /// For choosing settings: 10 %.
    Valid,
    /// For the figures that are published: 10 %.
    Test,
}

impl Split {
    /// The split of a thing with this hash.
    pub(crate) fn of_hash(hash: u64) -> Self {
        match hash % 10 {
            0 => Self::Test,
            1 => Self::Valid,
            _ => Self::Train,
        }
    }

    /// The word used in file names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Valid => "valid",
            Self::Test => "test",
        }
    }
}

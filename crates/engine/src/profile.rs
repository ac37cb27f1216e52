//! Where the time of a step goes, part by part. Off unless asked for; then it costs two readings of the clock per part and layer.
//!
//! Time is given to the part that ended last: `Profile::lap` stands after each piece of a step, so nothing is counted twice and
//! nothing is left out. Times are those of the calling thread, which takes part in all work and waits for the others at its end.

use std::time::{Duration, Instant};

/// A part of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Part {
    /// Scheduling, copies of blocks, the layout of the batch.
    Plan,
    /// Embedding rows and the angles of RoPE.
    Embed,
    /// Residual sums, norms, and the quantization of their rows.
    Norm,
    /// q, k and v, with the A products of adapters.
    Qkv,
    /// q and k rotated, k and v written to their blocks.
    Store,
    /// Attention over the blocks.
    Attend,
    /// Heads laid side by side and quantized.
    Gather,
    /// The output projection, with the A products of adapters.
    Output,
    /// Gate and up, with the A products of adapters; without adapters on packed matrices what comes next, too.
    GateUp,
    /// silu(gate) · up, and its quantization.
    Gated,
    /// The down projection, with the A products of adapters.
    Down,
    /// The B products of adapters, in all linear layers.
    LoraB,
    /// The lm_head.
    Head,
    /// Choosing tokens from logits.
    Choose,
    /// Everything after that: events and bookkeeping.
    Report,
}

impl Part {
    /// All parts, in the order in which a step comes to them.
    pub const ALL: [Self; 15] = [
        Self::Plan,
        Self::Embed,
        Self::Norm,
        Self::Qkv,
        Self::Store,
        Self::Attend,
        Self::Gather,
        Self::Output,
        Self::GateUp,
        Self::Gated,
        Self::Down,
        Self::LoraB,
        Self::Head,
        Self::Choose,
        Self::Report,
    ];

    /// A short name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Embed => "embed",
            Self::Norm => "norm",
            Self::Qkv => "q k v",
            Self::Store => "rope, kv write",
            Self::Attend => "attention",
            Self::Gather => "gather",
            Self::Output => "o",
            Self::GateUp => "gate up",
            Self::Gated => "swiglu",
            Self::Down => "down",
            Self::LoraB => "lora B",
            Self::Head => "lm_head",
            Self::Choose => "choose",
            Self::Report => "report",
        }
    }
}

/// What one part took since the profile was last taken.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartTime {
    /// How often the part was done; once per layer for most.
    pub calls: u64,
    /// Time of the calling thread.
    pub time: Duration,
    /// Bytes of weights, adapters or KV that it read, each once per call.
    pub bytes: u64,
    /// Multiply-adds.
    pub macs: u64,
}

/// Times of all parts.
#[derive(Debug, Default)]
pub(crate) struct Profile {
    /// When the last part ended; `None` while the profile is off.
    last: Option<Instant>,
    parts: [PartTime; Part::ALL.len()],
}

impl Profile {
    /// Switches it on or off, and forgets what was measured.
    pub(crate) fn switch(&mut self, on: bool) {
        *self = Self {
            last: on.then(Instant::now),
            ..Self::default()
        };
    }

    /// The next part begins now; the time since the last lap belongs to nothing.
    pub(crate) fn begin(&mut self) {
        if let Some(last) = &mut self.last {
            *last = Instant::now();
        }
    }

    /// `part` ends now.
    pub(crate) fn lap(&mut self, part: Part) {
        self.lap_with(part, || (0, 0));
    }

    /// `part` ends now; it read some bytes and did some multiply-adds.
    pub(crate) fn lap_with(&mut self, part: Part, work: impl FnOnce() -> (usize, usize)) {
        let Some(last) = self.last else { return };
        let now = Instant::now();
        let (bytes, macs) = work();
        let entry = &mut self.parts[part as usize];
        entry.calls += 1;
        entry.time += now - last;
        entry.bytes += bytes as u64;
        entry.macs += macs as u64;
        self.last = Some(now);
    }

    /// What was measured, in the order of [`Part::ALL`], without parts that were never done. Starts anew.
    pub(crate) fn take(&mut self) -> Vec<(Part, PartTime)> {
        let parts = std::mem::take(&mut self.parts);
        Part::ALL
            .into_iter()
            .zip(parts)
            .filter(|(_, time)| time.calls > 0)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_belong_to_their_parts_and_only_while_it_is_on() {
        let mut profile = Profile::default();
        profile.begin();
        profile.lap_with(Part::Head, || unreachable!("it is off"));
        assert_eq!(profile.take(), []);
        profile.switch(true);
        profile.begin();
        std::thread::sleep(Duration::from_millis(2));
        profile.lap(Part::Norm);
        profile.lap_with(Part::Head, || (3, 5));
        profile.lap_with(Part::Head, || (3, 5));
        let taken = profile.take();
        let parts: Vec<Part> = taken.iter().map(|(part, _)| *part).collect();
        assert_eq!(parts, [Part::Norm, Part::Head]);
        assert!(taken[0].1.time >= Duration::from_millis(2));
        let head = taken[1].1;
        assert_eq!((head.calls, head.bytes, head.macs), (2, 6, 10));
        assert_eq!(profile.take(), []);
    }

    #[test]
    fn every_part_is_listed_at_its_place() {
        for (index, part) in Part::ALL.into_iter().enumerate() {
            assert_eq!(part as usize, index, "{}", part.name());
        }
    }
}

//! The two limits of a machine, measured with its own instructions: how fast it reads, and how fast it multiplies small integers.
//!
//! A decode step reads every weight once and a prefill multiplies every weight with every row; what these two loops reach is the
//! most that any kernel here could.

use crate::isa::{Isa, dispatch};

/// Independent chains of multiply-adds: enough to hide the latency of the instruction.
pub(crate) const CHAINS: usize = 12;

/// Reads all of `data` once, in order, and returns a sum, so that the reads are not left out. The caller takes the time.
///
/// # Panics
/// If the machine lacks `isa`.
#[must_use]
pub fn read_all(isa: Isa, data: &[f32]) -> f32 {
    dispatch!(isa, roofline::read_all(data))
}

/// Does the int8 multiply-adds of the packed kernels in registers, `steps` times [`multiply_adds_per_step`]. The caller takes the time.
///
/// # Panics
/// If the machine lacks `isa`.
#[must_use]
pub fn multiply_adds(isa: Isa, steps: usize) -> i32 {
    dispatch!(isa, roofline::multiply_adds(steps))
}

/// Multiply-adds of one step of [`multiply_adds`].
#[must_use]
pub fn multiply_adds_per_step(isa: Isa) -> usize {
    CHAINS
        * match isa {
            Isa::Scalar => 1,
            Isa::Avx2 | Isa::AvxVnni | Isa::NeonI8mm => 32,
            Isa::Avx512Vnni => 64,
            Isa::AmxInt8 => 16 * 16 * 64,
            Isa::NeonDot => 16,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read() {
        // 0 + 1 + .. + 1,023, and a part of a vector; whole numbers are exact in f32.
        let data: Vec<f32> = (0..1024u16).map(f32::from).chain([0.5, 0.25]).collect();
        for isa in Isa::available() {
            assert_eq!(read_all(isa, &data), 523_776.75, "{isa}");
            assert_eq!(read_all(isa, &[]), 0.0, "{isa}");
            assert_eq!(read_all(isa, &data[..3]), 3.0, "{isa}");
        }
    }

    #[test]
    fn multiply_adds_take_time_with_their_number() {
        for isa in Isa::available() {
            let time = |steps: usize| {
                let start = std::time::Instant::now();
                std::hint::black_box(multiply_adds(isa, std::hint::black_box(steps)));
                start.elapsed()
            };
            // In turn: others on the machine then hold up both or neither.
            let runs: [_; 10] = std::array::from_fn(|_| [time(20_000), time(400_000)]);
            let [short, long] = [0, 1].map(|i| runs.iter().map(|run| run[i]).min().expect("ten"));
            assert!(long > short * 5, "{isa}: {short:?} and {long:?}");
        }
    }
}

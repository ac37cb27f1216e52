//! The loops of `roofline.rs`, one element at a time.

use std::hint::black_box;

use crate::roofline::CHAINS;

/// The sum of `data`.
pub(crate) fn read_all(data: &[f32]) -> f32 {
    let mut sums = [0.0; 8];
    let (blocks, tail) = data.as_chunks::<8>();
    for block in blocks {
        for (sum, x) in sums.iter_mut().zip(block) {
            *sum += x;
        }
    }
    sums.iter().sum::<f32>() + tail.iter().sum::<f32>()
}

/// Multiply-adds that the compiler must do one by one.
pub(crate) fn multiply_adds(steps: usize) -> i32 {
    let mut sums = [0i32; CHAINS];
    for _ in 0..steps {
        let x = black_box(3i32);
        for sum in &mut sums {
            *sum = sum.wrapping_mul(x).wrapping_add(1);
        }
    }
    sums.iter().fold(0, |a, b| a.wrapping_add(*b))
}

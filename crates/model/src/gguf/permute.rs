//! The row order of q and k in files of architecture `llama`.
//!
//! Hugging Face rotates the pairs (i, i + D/2) of a head, llama.cpp's `llama` architecture the pairs (2 i, 2 i + 1). Its converter
//! therefore reorders the rows of q and k within each head, and we put them back: row h D + p D/2 + i of ours is row h D + 2 i + p of the
//! file, p in {0, 1}. Rows are whole runs of blocks, so this works on quantized weights as well. LoRA's B has the same rows as its base.

use crate::{Bytes, Tensor};

/// Direction of the reordering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// From the file's order to Hugging Face's.
    ToHf,
    /// From Hugging Face's order to the file's.
    ToGguf,
}

/// A copy of `tensor` with the rows of each head of `head_dim` rows reordered; a vector (a bias) counts as one value per row.
///
/// `None` if the rows are no whole number of heads, `head_dim` is odd, or it is a quantized vector.
pub(crate) fn permute_heads(tensor: &Tensor, head_dim: usize, order: Order) -> Option<Tensor> {
    let tensor = &*tensor.floats();
    let rows = tensor.shape.first().copied()?;
    // The blocks of a quantized vector hold several rows.
    let whole_rows = tensor.shape.len() > 1 || tensor.dtype.is_float();
    if head_dim == 0 || !head_dim.is_multiple_of(2) || !rows.is_multiple_of(head_dim) || !whole_rows
    {
        return None;
    }
    let bytes = tensor.bytes();
    let row_bytes = bytes.len() / rows.max(1);
    let mut out = Vec::with_capacity(bytes.len());
    for row in 0..rows {
        let source = source_row(row, head_dim, order);
        out.extend_from_slice(&bytes[source * row_bytes..][..row_bytes]);
    }
    Tensor::new(tensor.dtype, tensor.shape.clone(), Bytes::copy_of(&out)).ok()
}

/// The row that comes to stand at `row`, in heads of `head_dim` rows (even).
pub(crate) fn source_row(row: usize, head_dim: usize, order: Order) -> usize {
    let (first, r, half) = (row / head_dim * head_dim, row % head_dim, head_dim / 2);
    match order {
        Order::ToHf => first + 2 * (r % half) + r / half,
        Order::ToGguf => first + r % 2 * half + r / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_go_back_to_their_place() {
        // Two heads of 4 rows; the converter writes rows 0 2 1 3 of each head as 0 1 2 3.
        let hf: Vec<f32> = (0..16).map(|v| v as f32).collect();
        let hf = Tensor::from_f32(vec![8, 2], &hf).expect("8x2");
        let file = permute_heads(&hf, 4, Order::ToGguf).expect("whole heads");
        assert_eq!(
            file.to_f32(),
            [
                0., 1., 4., 5., 2., 3., 6., 7., 8., 9., 12., 13., 10., 11., 14., 15.
            ]
        );
        assert_eq!(
            permute_heads(&file, 4, Order::ToHf)
                .expect("whole heads")
                .to_f32(),
            hf.to_f32()
        );
    }

    #[test]
    fn partial_heads_are_refused() {
        let t = Tensor::from_f32(vec![6, 1], &[0.0; 6]).expect("6x1");
        assert!(permute_heads(&t, 4, Order::ToHf).is_none());
        assert!(permute_heads(&t, 3, Order::ToHf).is_none());
        assert!(permute_heads(&t, 0, Order::ToHf).is_none());
    }
}

//! The weights of one layer as f32, to be transformed and rounded.

use std::io;

use edgethink_model::{Bytes, Config, LayerWeights, Linear, Tensor};

use crate::parallel;
use crate::transforms::Orthogonal;

/// A matrix `[rows, cols]`, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// Output features.
    pub rows: usize,
    /// Input features.
    pub cols: usize,
    /// The weights.
    pub values: Vec<f32>,
}

/// One layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Indexed by `Linear as usize`.
    pub linears: [Matrix; 7],
    /// `[out]` each.
    pub biases: [Option<Vec<f32>>; 7],
    /// `[E]`
    pub input_layernorm: Vec<f32>,
    /// `[E]`
    pub post_attention_layernorm: Vec<f32>,
    /// `[D]` each, of queries and keys (Qwen3).
    pub qk_norm: Option<(Vec<f32>, Vec<f32>)>,
    /// A `[R, in]` and B `[out, R]` of an adapter that goes along with the transforms; none where there is no adapter.
    pub lora: [Option<(Matrix, Matrix)>; 7],
}

/// Reads rows of a tensor as f32 without making its file resident.
pub(crate) fn read_rows(tensor: &Tensor, rows: std::ops::Range<usize>) -> io::Result<Vec<f32>> {
    let mut bytes = Vec::new();
    tensor.read_rows_into(rows.clone(), &mut bytes)?;
    let shape = vec![rows.len(), tensor.cols()];
    let part = Tensor::new(tensor.dtype, shape, Bytes::copy_of(&bytes));
    Ok(part.expect("whole rows of a valid tensor").to_f32())
}

impl Layer {
    /// Reads a layer.
    ///
    /// # Errors
    /// The system's error for a failed read.
    pub fn read(config: &Config, weights: &LayerWeights) -> io::Result<Self> {
        let mut linears = Vec::with_capacity(7);
        for linear in Linear::ALL {
            let (rows, cols) = config.linear_shape(linear);
            let values = read_rows(weights.linear(linear), 0..rows)?;
            linears.push(Matrix { rows, cols, values });
        }
        let small = |tensor: &Option<Tensor>| tensor.as_ref().map(Tensor::to_f32);
        Ok(Self {
            linears: linears.try_into().expect("seven were pushed"),
            biases: weights.biases.each_ref().map(small),
            input_layernorm: weights.input_layernorm.to_f32(),
            post_attention_layernorm: weights.post_attention_layernorm.to_f32(),
            qk_norm: small(&weights.q_norm).zip(small(&weights.k_norm)),
            lora: Default::default(),
        })
    }

    /// A matrix.
    pub fn linear(&self, linear: Linear) -> &Matrix {
        &self.linears[linear as usize]
    }

    /// A matrix, to be changed.
    pub fn linear_mut(&mut self, linear: Linear) -> &mut Matrix {
        &mut self.linears[linear as usize]
    }

    /// Multiplies row `row` of a linear layer and its bias.
    pub(crate) fn scale_row(&mut self, linear: Linear, row: usize, factor: f32) {
        for matrix in self.outputs_mut(linear) {
            let cols = matrix.cols;
            let row = &mut matrix.values[row * cols..][..cols];
            row.iter_mut().for_each(|w| *w *= factor);
        }
        if let Some(bias) = &mut self.biases[linear as usize] {
            bias[row] *= factor;
        }
    }

    /// Rotates the plane of two rows of a linear layer and its bias by an angle given as (cos, sin).
    pub(crate) fn rotate_rows(
        &mut self,
        linear: Linear,
        (i, j): (usize, usize),
        (c, s): (f32, f32),
    ) {
        let turn = |a: &mut f32, b: &mut f32| (*a, *b) = (c * *a - s * *b, s * *a + c * *b);
        for matrix in self.outputs_mut(linear) {
            let (low, high) = matrix.values.split_at_mut(j * matrix.cols);
            let low = &mut low[i * matrix.cols..][..matrix.cols];
            low.iter_mut().zip(high).for_each(|(a, b)| turn(a, b));
        }
        if let Some(bias) = &mut self.biases[linear as usize] {
            let (low, high) = bias.split_at_mut(j);
            turn(&mut low[i], &mut high[0]);
        }
    }

    /// Multiplies every column of a linear layer by its factor.
    pub(crate) fn scale_cols(&mut self, linear: Linear, factors: &[f32]) {
        for matrix in self.inputs_mut(linear) {
            for row in matrix.values.chunks_exact_mut(matrix.cols) {
                row.iter_mut().zip(factors).for_each(|(w, f)| *w *= f);
            }
        }
    }

    /// W -> W Q^T for every run of Q's size in the inputs: what it computes from Q x is what it computed from x.
    pub(crate) fn rotate_inputs(&mut self, linear: Linear, q: &Orthogonal, threads: usize) {
        for matrix in self.inputs_mut(linear) {
            parallel::rows_mut(threads, &mut matrix.values, q.size(), |run| q.apply(run));
        }
    }

    /// W -> Q W for every run of Q's size in the outputs, and the bias: it computes Q y where it computed y.
    pub(crate) fn rotate_outputs(&mut self, linear: Linear, q: &Orthogonal) {
        let mut column = vec![0.0; q.size()];
        for matrix in self.outputs_mut(linear) {
            let cols = matrix.cols;
            for run in matrix.values.chunks_exact_mut(q.size() * cols) {
                for c in 0..cols {
                    for (x, row) in column.iter_mut().zip(run.chunks_exact(cols)) {
                        *x = row[c];
                    }
                    q.apply(&mut column);
                    for (x, row) in column.iter().zip(run.chunks_exact_mut(cols)) {
                        row[c] = *x;
                    }
                }
            }
        }
        if let Some(bias) = &mut self.biases[linear as usize] {
            bias.chunks_exact_mut(q.size()).for_each(|run| q.apply(run));
        }
    }

    /// The matrices that read the inputs of a linear layer: W, and A of its adapter.
    fn inputs_mut(&mut self, linear: Linear) -> impl Iterator<Item = &mut Matrix> {
        let lora = self.lora[linear as usize].as_mut().map(|(a, _)| a);
        std::iter::once(&mut self.linears[linear as usize]).chain(lora)
    }

    /// The matrices that write its outputs: W, and B of its adapter.
    fn outputs_mut(&mut self, linear: Linear) -> impl Iterator<Item = &mut Matrix> {
        let lora = self.lora[linear as usize].as_mut().map(|(_, b)| b);
        std::iter::once(&mut self.linears[linear as usize]).chain(lora)
    }
}

impl Matrix {
    /// A copy of a tensor.
    pub fn of(tensor: &Tensor) -> Self {
        Self {
            rows: tensor.rows(),
            cols: tensor.cols(),
            values: tensor.to_f32(),
        }
    }

    /// One row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.cols..][..self.cols]
    }

    /// The largest magnitude of every column, the larger of it and what `most` holds.
    pub(crate) fn column_most(&self, most: &mut [f32]) {
        for row in self.values.chunks_exact(self.cols) {
            most.iter_mut()
                .zip(row)
                .for_each(|(m, w)| *m = m.max(w.abs()));
        }
    }
}

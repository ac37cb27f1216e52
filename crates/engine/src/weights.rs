//! The weights of a model as the engine holds them: matrices ready to multiply, small vectors as f32.

use edgethink_kernels::Bits;
use edgethink_model::{Config, Linear, Model, Tensor};
use edgethink_pool::Pool;

use crate::error::EngineError;
use crate::matrix::{Hold, Matrix};
use crate::options::WeightFormat;
use crate::packed::{self, Item};

/// All weights.
#[derive(Debug)]
pub(crate) struct EngineWeights {
    embedding: Embedding,
    pub(crate) layers: Vec<Layer>,
    /// Final norm `[E]`.
    pub(crate) norm: Vec<f32>,
    /// `[V, E]`.
    pub(crate) lm_head: Matrix,
}

/// Where the rows of the embedding are.
#[derive(Debug)]
enum Embedding {
    /// They are the lm_head's, stored once.
    Tied,
    /// A table in the file, read row by row.
    Table(Tensor),
}

/// One layer.
#[derive(Debug)]
pub(crate) struct Layer {
    /// Indexed by `Linear as usize`.
    pub(crate) linears: [Matrix; 7],
    /// `[out]` each.
    pub(crate) biases: [Option<Vec<f32>>; 7],
    /// `[E]`
    pub(crate) input_layernorm: Vec<f32>,
    /// `[E]`
    pub(crate) post_attention_layernorm: Vec<f32>,
    /// `[D]` each.
    pub(crate) qk_norm: Option<(Vec<f32>, Vec<f32>)>,
}

impl EngineWeights {
    /// Takes the weights of a model. Integer formats are repacked by all threads of the pool.
    pub(crate) fn load(
        model: &Model,
        format: WeightFormat,
        pool: &Pool,
    ) -> Result<Self, EngineError> {
        let hold = match format {
            WeightFormat::Stored => Hold::Stored,
            WeightFormat::Q8 => Hold::Rounded(Bits::B8),
            WeightFormat::Q4 => Hold::Rounded(Bits::B4),
        };
        let weights = &model.weights;
        let mut items = Vec::new();
        for (index, layer) in weights.layers.iter().enumerate() {
            for (linear, tensor) in Linear::ALL.into_iter().zip(&layer.linears) {
                let name = format!("model.layers.{index}.{}.weight", linear.hf_name());
                items.push(Item { name, tensor, hold });
            }
        }
        let embedding = match &weights.lm_head {
            Some(head) => {
                items.push(Item {
                    name: "lm_head.weight".to_owned(),
                    tensor: head,
                    hold,
                });
                Embedding::Table(weights.embed_tokens.clone())
            }
            None => {
                // Embedding rows at 4 bits would hurt every token, so a tied head gets 8.
                let eight = hold == Hold::Rounded(Bits::B4);
                let hold = if eight { Hold::Rounded(Bits::B8) } else { hold };
                let name = "model.embed_tokens.weight".to_owned();
                items.push(Item {
                    name,
                    tensor: &weights.embed_tokens,
                    hold,
                });
                Embedding::Tied
            }
        };
        let mut matrices = packed::load(&items, pool)?.into_iter();
        let mut next = || matrices.next().expect("one matrix per item");
        let mut layers = Vec::with_capacity(weights.layers.len());
        for layer in &weights.layers {
            let qk_norm = layer.q_norm.as_ref().zip(layer.k_norm.as_ref());
            layers.push(Layer {
                linears: std::array::from_fn(|_| next()),
                biases: layer
                    .biases
                    .each_ref()
                    .map(|bias| bias.as_ref().map(Tensor::to_f32)),
                input_layernorm: layer.input_layernorm.to_f32(),
                post_attention_layernorm: layer.post_attention_layernorm.to_f32(),
                qk_norm: qk_norm.map(|(q, k)| (q.to_f32(), k.to_f32())),
            });
        }
        let lm_head = next();
        Ok(EngineWeights {
            embedding,
            layers,
            norm: weights.norm.to_f32(),
            lm_head,
        })
    }

    /// The embedding of a token, `[E]`. One that can no longer be read from the file is NaN, which fails the rows that use it.
    pub(crate) fn embed(&self, token: u32, out: &mut [f32]) {
        let row = token as usize;
        match &self.embedding {
            Embedding::Tied => self.lm_head.row_into(row, out),
            // On the mapping each row would make the page around it resident, and pages of a file may be 2 MiB.
            Embedding::Table(table) => {
                if table.read_rows_f32(row..row + 1, out).is_err() {
                    out.fill(f32::NAN);
                }
            }
        }
    }

    /// Bytes in memory when every weight has been used, without an untied embedding (of which only used rows are resident).
    pub(crate) fn size_bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(Layer::size_bytes).sum();
        layers + 4 * self.norm.len() + self.lm_head.size_bytes()
    }
}

impl Layer {
    /// Whether the group of linear layers that share an input needs it quantized.
    pub(crate) fn needs_quants(&self, group: &[Linear]) -> bool {
        group
            .iter()
            .any(|&linear| self.linears[linear as usize].is_packed())
    }

    /// A matrix `[out, in]` and its bias `[out]`.
    pub(crate) fn linear(&self, linear: Linear) -> (&Matrix, Option<&[f32]>) {
        let index = linear as usize;
        (&self.linears[index], self.biases[index].as_deref())
    }

    /// Whether all of them multiply quantized rows.
    pub(crate) fn all_packed(&self, group: &[Linear]) -> bool {
        let packed = |&linear| self.linears[linear as usize].is_packed();
        group.iter().all(packed)
    }

    fn size_bytes(&self) -> usize {
        let matrices: usize = self.linears.iter().map(Matrix::size_bytes).sum();
        let biases: usize = self.biases.iter().flatten().map(Vec::len).sum();
        let norms = self.input_layernorm.len() + self.post_attention_layernorm.len();
        let qk_norm = self.qk_norm.as_ref().map_or(0, |(q, k)| q.len() + k.len());
        matrices + 4 * (biases + norms + qk_norm)
    }
}

/// The largest head dim that the attention kernels take.
pub(crate) const MAX_HEAD_DIM: usize = 256;

/// Checks what the kernels cannot do.
pub(crate) fn check_config(config: &Config) -> Result<(), EngineError> {
    if config.head_dim > MAX_HEAD_DIM {
        return Err(EngineError::HeadDim {
            found: config.head_dim,
        });
    }
    Ok(())
}

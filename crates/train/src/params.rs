//! Parameters as named vectors of f32: what the optimizer updates and the files hold.

use edgethink_model::Tensor;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::net::{LINEARS, Spec};

/// One tensor and whether weight decay applies to it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Param {
    /// Name in the file.
    pub name: String,
    /// Sizes, outermost first.
    pub shape: Vec<usize>,
    /// Values in row order.
    pub values: Vec<f32>,
    /// Matrices decay; norms, biases and embeddings do not.
    pub decay: bool,
}

impl Param {
    /// A tensor of a model, in f32.
    pub(crate) fn read(name: String, tensor: &Tensor) -> Self {
        Self {
            decay: decays(&name, &tensor.shape),
            values: tensor.to_f32(),
            shape: tensor.shape.clone(),
            name,
        }
    }

    /// The same as a tensor of a model.
    ///
    /// # Panics
    /// If there are more or fewer values than the shape has.
    pub(crate) fn stored(self) -> (String, Tensor) {
        let tensor = Tensor::from_f32(self.shape, &self.values);
        (self.name, tensor.expect("as many values as the shape has"))
    }
}

/// Parameters as the tensors of a model.
#[cfg(test)]
pub(crate) fn stored(params: &[Param]) -> Vec<(String, Tensor)> {
    params.iter().cloned().map(Param::stored).collect()
}

/// A standard normal draw pair by Box and Muller, from two uniform draws.
pub(crate) fn normal(rng: &mut ChaCha8Rng, std: f32, n: usize) -> Vec<f32> {
    use rand::Rng;
    (0..n)
        .map(|_| {
            let u: f64 = 1.0 - rng.random::<f64>();
            let v: f64 = rng.random();
            let z = (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos();
            (z * f64::from(std)) as f32
        })
        .collect()
}

/// A generator for one named thing under a seed: the same whatever else is drawn.
pub(crate) fn generator(seed: u64, name: &str) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    // FNV-1a over the name, in two halves with different starts.
    for (i, start) in [0xcbf2_9ce4_8422_2325u64, 0x8422_2325_cbf2_9ce4]
        .into_iter()
        .enumerate()
    {
        let hash = name.bytes().fold(start, |h, b| {
            (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        key[8 + 8 * i..16 + 8 * i].copy_from_slice(&hash.to_le_bytes());
    }
    ChaCha8Rng::from_seed(key)
}

/// Fresh parameters of a network: normal with `std`; `o_proj` and `down_proj`, which add to the residual, with
/// `std / sqrt(2 L)`; norms one, biases zero.
pub(crate) fn init(spec: &Spec, std: f32, seed: u64) -> Vec<Param> {
    let residual = std / ((2 * spec.layers) as f32).sqrt();
    spec.tensors()
        .into_iter()
        .map(|(name, shape)| {
            let n = shape.iter().product();
            let values = if name.ends_with("bias") {
                vec![0.0; n]
            } else if name.ends_with("norm.weight") {
                vec![1.0; n]
            } else {
                let writes_residual = [LINEARS[3], LINEARS[6]].iter().any(|l| name.contains(l));
                let std = if writes_residual { residual } else { std };
                normal(&mut generator(seed, &name), std, n)
            };
            let decay = decays(&name, &shape);
            Param {
                name,
                shape,
                values,
                decay,
            }
        })
        .collect()
}

/// Whether weight decay applies: matrices, but not the embedding table.
pub(crate) fn decays(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && !name.contains("embed_tokens")
}

//! An adapter that was made for the model as it was, for the model with transforms folded in.
//!
//! Where W becomes L W R^-1, its update B A becomes (L B)(A R^-1): the same operations, A with the inputs and B with the outputs. What model
//! and adapter compute together stays the same; an adapter that is not taken along reads a basis that is no longer there.

use edgethink_model::{Adapter, Linear, LoraPair, Model, Tensor};

use crate::error::QuantizeError;
use crate::layer::{Layer, Matrix};
use crate::scheme::Transforms;
use crate::trained::Trained;
use crate::transforms::Plan;

/// Folds the transforms of `model`, and what training added to them, into an adapter of it. One layer is in memory at a time.
///
/// # Errors
/// [`QuantizeError::Transform`] for a transform that does not fit, or a failed read.
pub fn fold_adapter(
    model: &Model,
    adapter: &Adapter,
    transforms: Transforms,
    trained: Option<&Trained>,
    threads: usize,
) -> Result<Adapter, QuantizeError> {
    let plan = Plan::new(&model.config, transforms)?;
    let mut layers = Vec::with_capacity(adapter.layers.len());
    let config = plan.config();
    for (i, (pairs, weights)) in adapter.layers.iter().zip(&model.weights.layers).enumerate() {
        let mut layer =
            Layer::read(&model.config, weights).map_err(|source| QuantizeError::Io {
                path: "the model".into(),
                source,
            })?;
        let matrices = |pair: &LoraPair| (Matrix::of(&pair.a), Matrix::of(&pair.b));
        layer.lora = pairs.each_ref().map(|pair| pair.as_ref().map(matrices));
        plan.fold_layer(&mut layer, threads);
        if let Some(trained) = trained.and_then(|trained| trained.layers.get(i)) {
            trained.fold(&mut layer, &config);
        }
        let tensor = |m: &Matrix| {
            Tensor::from_f32(vec![m.rows, m.cols], &m.values).expect("as long as its shape")
        };
        layers.push(Linear::ALL.map(|linear| {
            let (a, b) = layer.lora[linear as usize].as_ref()?;
            let scale = pairs[linear as usize].as_ref()?.scale;
            Some(LoraPair {
                a: tensor(a),
                b: tensor(b),
                scale,
            })
        }));
    }
    Ok(Adapter::new(
        adapter.name.clone(),
        adapter.invocation.clone(),
        layers,
        &config,
    )?)
}

//! The tape, with or without running the layers again, for any device.
//!
//! Checkpointing keeps the input of each layer only, on the device or on the host. The backward pass then takes one layer at a time, runs it
//! again on a tape, and feeds it the gradient of its output as `sum(output * gradient)`.

use std::{any::Any, fmt::Debug};

use burn_autodiff::Autodiff;
use burn_backend::{
    AutodiffBackend, Shape, TensorMetadata, ops::FloatTensorOps, tensor::FloatTensor,
};
use edgethink_model::Tensor as Stored;

use super::Pass;
use crate::{
    base_model::NamedTensors,
    device::{Compute, rounded},
    error::TrainError,
    net::{self, AdapterPass, MicroBatch},
    ops::{Lesson, NetOps, Score, Tensor},
    params::Param,
    recipe::{BaseFormat, Checkpointing},
};

/// What can be asked of a network on a device; [`super`] says what each gives.
pub(super) trait Held: Any + Debug + Send + Sync {
    fn with_adapter(self: Box<Self>, adapter: &[Param], bf16_weights: bool) -> Box<dyn Held>;
    fn fork(&self) -> Box<dyn Held>;
    fn accumulate(
        &self,
        pass: &Pass<'_>,
        batch: &MicroBatch,
        sums: &mut [Vec<f32>],
    ) -> Result<f64, TrainError>;
    fn evaluate(&self, pass: &Pass<'_>, batch: &MicroBatch) -> Result<f64, TrainError>;
    fn score(&self, pass: &Pass<'_>, batch: &MicroBatch) -> Result<Vec<Score>, TrainError>;
    #[cfg(test)]
    fn logits(&self, pass: &Pass<'_>, batch: &MicroBatch) -> Result<Vec<f32>, TrainError>;
}

/// A tensor without a tape.
type Plain<C> = FloatTensor<<C as Compute>::Inner>;
/// A tensor on the tape.
type Taped<C> = FloatTensor<Autodiff<<C as Compute>::Inner>>;
/// The backend that records the tape.
type Tape<C> = Autodiff<<C as Compute>::Inner>;

/// The input of a layer until the layer is run again.
enum Kept<C: Compute> {
    OnDevice(Plain<C>),
    OnHost(Vec<f32>, Shape),
}

/// The parameters on a device.
#[derive(Debug)]
pub(super) struct Tensors<C: Compute> {
    at: C,
    base: Vec<Taped<C>>,
    adapter: Vec<Taped<C>>,
}

/// Tensors that are trained.
fn trained<C: Compute>(at: &C, params: &[Param], bf16_weights: bool) -> Vec<Taped<C>> {
    let leaf = |p: &Param| tracked::<C>(at.put(rounded(p.values.clone(), bf16_weights), &p.shape));
    params.iter().map(leaf).collect()
}

fn tracked<C: Compute>(x: Plain<C>) -> Taped<C> {
    Tape::<C>::float_set_require_grad(Tape::<C>::from_inner(x), true)
}

fn inner<C: Compute>(tensors: &[Taped<C>]) -> Vec<Plain<C>> {
    tensors.iter().map(|t| t.primitive().clone()).collect()
}

fn adapter_pass<'a, O: NetOps>(
    pass: &Pass<'a>,
    tensors: &'a [Tensor<O>],
) -> Option<AdapterPass<'a, O>> {
    pass.adapter.as_ref().map(|side| AdapterPass {
        tensors,
        slots: side.slots,
        scale: side.scale,
        dropout: side.dropout,
        compute: side.compute,
    })
}

impl<C: Compute> Tensors<C> {
    pub(super) fn base(at: C, base: &[Param], bf16_weights: bool) -> Self {
        Self {
            base: trained(&at, base, bf16_weights),
            adapter: Vec::new(),
            at,
        }
    }

    pub(super) fn frozen(at: C, base: NamedTensors, rounds: bool, dtype: BaseFormat) -> Self {
        let leaf = |(name, tensor): (String, Stored)| {
            let shape = &tensor.shape;
            Tape::<C>::from_inner(match dtype.of(&name, shape) {
                BaseFormat::F32 => at.put(rounded(tensor.to_f32(), rounds), shape),
                BaseFormat::Bf16 => at.put_bf16(tensor.to_f32(), shape),
                BaseFormat::Stored => at.put_stored(&tensor),
            })
        };
        Self {
            base: base.into_iter().map(leaf).collect(),
            adapter: Vec::new(),
            at,
        }
    }

    fn trained(&self) -> &[Taped<C>] {
        if self.adapter.is_empty() {
            &self.base
        } else {
            &self.adapter
        }
    }

    /// The tensor of the output head `[V, E]`.
    fn head(&self, pass: &Pass<'_>) -> &Taped<C> {
        &self.base[pass.slots.output()]
    }

    /// Final hidden states `[T, E]`, without a tape.
    fn hidden(&self, pass: &Pass<'_>, batch: &MicroBatch) -> Plain<C> {
        let (base, adapter) = (inner::<C>(&self.base), inner::<C>(&self.adapter));
        let adapter = adapter_pass::<C::Plain>(pass, &adapter);
        net::hidden::<C::Plain>(pass.spec, pass.slots, &base, adapter.as_ref(), batch)
    }

    /// What the teacher of a pass says, where there is one.
    fn lesson(&self, pass: &Pass<'_>, batch: &MicroBatch) -> Option<Lesson<C::Inner>> {
        let teacher = pass.teacher?;
        let held: &dyn Any = &*teacher.leaves.0;
        let held: &Self = held
            .downcast_ref()
            .expect("a teacher is on the device of the network that learns from it");
        let (spec, slots) = (&teacher.spec, &teacher.slots);
        let base = inner::<C>(&held.base);
        Some(Lesson {
            hidden: net::hidden::<C::Plain>(spec, slots, &base, None, batch),
            head: base[slots.output()].clone(),
        })
    }

    /// Runs the tape back from `root`, adds the gradients of the trained tensors to `sums`, and returns that of `input`.
    fn backward(
        &self,
        root: Taped<C>,
        input: Option<&Taped<C>>,
        sums: &mut [Vec<f32>],
    ) -> Result<Option<Plain<C>>, TrainError> {
        let mut grads = root.backward();
        let below = input.and_then(|input| input.grad_remove(&mut grads));
        let leaves = self.trained().iter().zip(sums);
        self.at.add(leaves.filter_map(|(leaf, sum)| {
            leaf.grad_remove(&mut grads)
                .map(|gradient| (gradient, sum.as_mut_slice()))
        }))?;
        Ok(below)
    }

    fn accumulate_by_layer(
        &self,
        pass: &Pass<'_>,
        batch: &MicroBatch,
        sums: &mut [Vec<f32>],
    ) -> Result<f64, TrainError> {
        let (spec, slots) = (pass.spec, pass.slots);
        let (base, low) = (inner::<C>(&self.base), inner::<C>(&self.adapter));
        let plain = adapter_pass::<C::Plain>(pass, &low);
        let taped = adapter_pass::<C::Taped>(pass, &self.adapter);

        let mut x = C::Plain::embed(base[slots.embed].clone(), &batch.ids);
        let mut inputs: Vec<Kept<C>> = Vec::with_capacity(spec.layers);
        for layer in 0..spec.layers {
            inputs.push(match pass.checkpointing {
                Checkpointing::Offload => Kept::OnHost(self.at.values(x.clone())?, x.shape()),
                _ => Kept::OnDevice(x.clone()),
            });
            x = net::block::<C::Plain>(spec, slots, layer, &base, plain.as_ref(), batch, x);
        }

        let input = tracked::<C>(x);
        let norm = self.base[slots.norm].clone();
        let normed = C::Taped::rms_norm(input.clone(), norm, spec.eps);
        let (head, lesson) = (self.head(pass).clone(), self.lesson(pass, batch));
        let root = C::Taped::cross_entropy(normed, head, &batch.targets, lesson.as_ref());
        drop(lesson);
        let loss = self.at.scalar(root.primitive().clone())?;
        let fed = |out: Taped<C>, g: Plain<C>| {
            Tape::<C>::float_sum(Tape::<C>::float_mul(out, Tape::<C>::from_inner(g)))
        };
        // `root` always depends on `input`; its gradient is the gradient of the layer below's output.
        let mut gradient = self.backward(root, Some(&input), sums)?;
        for (layer, x) in inputs.into_iter().enumerate().rev() {
            let Some(g) = gradient else { return Ok(loss) };
            let input = tracked::<C>(match x {
                Kept::OnDevice(x) => x,
                Kept::OnHost(values, shape) => self.at.put(values, &shape),
            });
            let out = net::block::<C::Taped>(
                spec,
                slots,
                layer,
                &self.base,
                taped.as_ref(),
                batch,
                input.clone(),
            );
            gradient = self.backward(fed(out, g), Some(&input), sums)?;
        }
        if let (None, Some(g)) = (&pass.adapter, gradient) {
            let embedded = C::Taped::embed(self.base[slots.embed].clone(), &batch.ids);
            self.backward(fed(embedded, g), None, sums)?;
        }
        Ok(loss)
    }
}

impl<C: Compute> Held for Tensors<C> {
    fn with_adapter(self: Box<Self>, adapter: &[Param], bf16_weights: bool) -> Box<dyn Held> {
        Box::new(Self {
            adapter: trained(&self.at, adapter, bf16_weights),
            base: self.base,
            at: self.at,
        })
    }

    fn fork(&self) -> Box<dyn Held> {
        let copy = |list: &[Taped<C>]| {
            list.iter()
                .map(|t| {
                    if t.is_tracked() {
                        tracked::<C>(t.primitive().clone())
                    } else {
                        Tape::<C>::from_inner(t.primitive().clone())
                    }
                })
                .collect()
        };
        Box::new(Self {
            at: self.at.clone(),
            base: copy(&self.base),
            adapter: copy(&self.adapter),
        })
    }

    fn accumulate(
        &self,
        pass: &Pass<'_>,
        batch: &MicroBatch,
        sums: &mut [Vec<f32>],
    ) -> Result<f64, TrainError> {
        if pass.checkpointing.is_on() {
            return self.accumulate_by_layer(pass, batch, sums);
        }
        let adapter = adapter_pass::<C::Taped>(pass, &self.adapter);
        let (spec, slots) = (pass.spec, pass.slots);
        let (adapter, lesson) = (adapter.as_ref(), self.lesson(pass, batch));
        let loss = net::loss::<C::Taped>(spec, slots, &self.base, adapter, batch, lesson.as_ref());
        let value = self.at.scalar(loss.primitive().clone())?;
        self.backward(loss, None, sums)?;
        Ok(value)
    }

    fn evaluate(&self, pass: &Pass<'_>, batch: &MicroBatch) -> Result<f64, TrainError> {
        let head = self.head(pass).primitive().clone();
        let (hidden, lesson) = (self.hidden(pass, batch), self.lesson(pass, batch));
        let loss = C::Plain::cross_entropy(hidden, head, &batch.targets, lesson.as_ref());
        self.at.scalar(loss)
    }

    fn score(&self, pass: &Pass<'_>, batch: &MicroBatch) -> Result<Vec<Score>, TrainError> {
        let head = self.head(pass).primitive();
        let hidden = self.hidden(pass, batch);
        self.at.score(hidden, head.clone(), &batch.targets)
    }

    #[cfg(test)]
    fn logits(&self, pass: &Pass<'_>, batch: &MicroBatch) -> Result<Vec<f32>, TrainError> {
        let head = self.head(pass).primitive().clone();
        let logits = C::Plain::project(
            self.hidden(pass, batch),
            head,
            None,
            crate::recipe::FloatType::F32,
        );
        self.at.values(logits)
    }
}

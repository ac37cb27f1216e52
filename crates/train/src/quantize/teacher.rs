//! The model as it was, which says what the quantized one should: its distribution of every next token.

use std::sync::Arc;

use burn_flex::{Flex, FlexTensor};

use crate::{
    net::{self, MicroBatch, Slots, Spec},
    ops::{self, Lesson},
    params::Param,
};

/// A frozen network that is asked, never trained.
#[derive(Debug)]
pub(crate) struct Teacher {
    spec: Spec,
    slots: Slots,
    base: Vec<FlexTensor>,
}

impl Teacher {
    /// A network with its parameters.
    pub(crate) fn new(spec: Spec, params: Vec<Param>) -> Self {
        let slots = spec.numbered_slots();
        let tensor = |p: Param| ops::tensor(p.values, &p.shape);
        Self {
            slots,
            spec,
            base: params.into_iter().map(tensor).collect(),
        }
    }

    /// Puts its distributions in the place of a micro-batch's target tokens. The weights of the targets stay.
    pub(crate) fn teach(&self, batch: &mut MicroBatch) {
        let hidden = net::hidden::<Flex>(&self.spec, &self.slots, &self.base, None, batch);
        let head = self.base[self.slots.head.unwrap_or(self.slots.embed)].clone();
        let targets = Arc::make_mut(&mut batch.targets);
        targets.lesson = Some(Lesson {
            hidden: ops::dense(hidden),
            head,
        });
    }
}

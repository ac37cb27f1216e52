//! The engine's numbers against `model::reference`: every family, plain and masked LoRA, every weight and KV format.

use std::sync::Arc;

use crate::support::*;
use edgethink_engine::{
    AdapterFormat, AdapterId, AdapterSpan, Engine, EngineOptions, HiddenStates, Isa, KvFormat,
    Request, WeightFormat,
};
use edgethink_model::{Adapter, Bytes, Config, Family, Linear, Model, Tensor, Weights, reference};
use edgethink_testkit::{Tol, assert_close, tiny_config};

/// f32 weights and KV: only the order of sums differs.
const FLOAT: Tol = Tol::RelToMax(2e-5);
/// f16 KV: keys and values are rounded by up to 2^-12 each, which random adapters amplify.
const HALF_KV: Tol = Tol::RelToMax(2e-3);

#[test]
fn every_family_on_every_instruction_set() {
    for family in Family::ALL {
        let model = model(family, 3);
        let tokens = prompt(1, 75);
        let want = reference::forward(&model, &tokens, None).expect("a good model");
        for isa in Isa::available() {
            let mut engine = engine(&model, &EngineOptions { isa, ..options() });
            let got = engine.logits(&tokens, None).expect("finite logits");
            let report = assert_close(&got, &want.logits, FLOAT);
            eprintln!(
                "{family:?} {isa}: {:.1e} of the largest logit",
                report.max_rel_to_max
            );
        }
    }
}

/// So long that attention goes through it in parts.
#[test]
fn a_long_sequence() {
    for family in [Family::Qwen2, Family::Mistral] {
        let model = model(family, 3);
        let tokens = prompt(1, 600);
        let want = reference::forward(&model, &tokens, None).expect("a good model");
        for isa in Isa::available() {
            let mut engine = engine(&model, &EngineOptions { isa, ..options() });
            let got = engine.logits(&tokens, None).expect("finite logits");
            assert_close(&got, &want.logits, FLOAT);
        }
    }
}

/// A model, an adapter of rank 5 for it, and an engine that has loaded both.
fn adapted(family: Family) -> (Arc<Model>, Adapter, Engine, AdapterId) {
    let model = model(family, 4);
    let adapter = adapter(&model.config, 9, 5);
    let mut engine = engine(&model, &options());
    let id = engine.load_adapter(&adapter).expect("it fits");
    (model, adapter, engine, id)
}

#[test]
fn plain_and_masked_lora() {
    for family in Family::ALL {
        let (model, adapter, mut engine, id) = adapted(family);
        let tokens = prompt(2, 70);
        let base = reference::forward(&model, &tokens, None).expect("a good model");
        for from in [0, 1, 31, 32, 50, 69, 70] {
            let want =
                reference::forward(&model, &tokens, Some((&adapter, from))).expect("a good model");
            let got = engine
                .logits(&tokens, Some(AdapterSpan::starting(id, from)))
                .expect("finite logits");
            assert_close(&got, &want.logits, FLOAT);
            let v = model.config.vocab_size;
            assert_close(
                &got[..from * v]
                    .iter()
                    .copied()
                    .chain([1.0])
                    .collect::<Vec<_>>(),
                &base.logits[..from * v]
                    .iter()
                    .copied()
                    .chain([1.0])
                    .collect::<Vec<_>>(),
                FLOAT,
            );
            let mut halves = self::engine(
                &model,
                &EngineOptions {
                    kv: KvFormat::F16,
                    ..options()
                },
            );
            let id = halves.load_adapter(&adapter).expect("it fits");
            let rounded = halves
                .logits(&tokens, Some(AdapterSpan::starting(id, from)))
                .expect("finite logits");
            assert_close(&rounded, &want.logits, HALF_KV);
            if from < 70 {
                let changed = got[from * v..]
                    .iter()
                    .zip(&base.logits[from * v..])
                    .any(|(g, b)| (g - b).abs() > 0.1);
                assert!(changed, "the adapter acts");
            }
        }
    }
}

#[test]
fn the_base_reads_what_an_adapter_wrote() {
    for family in Family::ALL {
        let (model, adapter, mut engine, id) = adapted(family);
        let tokens = prompt(2, 70);
        for (from, until) in [(20, 60), (0, 33), (32, 64), (40, 40), (50, 90), (60, 10)] {
            let range = from..until;
            let want = reference::forward_with(&model, &tokens, Some((&adapter, &range)))
                .expect("a good model");
            let span = AdapterSpan { id, from, until };
            let got = engine.logits(&tokens, Some(span)).expect("finite logits");
            assert_close(&got, &want.logits, FLOAT);
        }
    }
}

/// The model whose weights are what the engine rounds to, as floats.
fn rounded(model: &Model, format: WeightFormat) -> Model {
    use edgethink_kernels::{Bits, quantize_weights};
    let round = |tensor: &Tensor, bits: Bits| {
        let values = tensor.to_f32();
        let (mut codes, mut scales) = (vec![0; values.len()], vec![0.0; values.len() / 32]);
        quantize_weights(bits, tensor.cols(), &values, &mut codes, &mut scales)
            .expect("finite weights");
        let value =
            |(i, &code): (usize, &u8)| scales[i / 32] * (f32::from(code) - f32::from(bits.zero()));
        let values: Vec<f32> = codes.iter().enumerate().map(value).collect();
        Tensor::from_f32(tensor.shape.clone(), &values).expect("the same shape")
    };
    let bits = if format == WeightFormat::Q4 {
        Bits::B4
    } else {
        Bits::B8
    };
    let mut weights: Weights = model.weights.clone();
    for layer in &mut weights.layers {
        for linear in Linear::ALL {
            let tensor = &mut layer.linears[linear as usize];
            *tensor = round(tensor, bits);
        }
    }
    match &mut weights.lm_head {
        Some(head) => *head = round(head, bits),
        None => weights.embed_tokens = round(&weights.embed_tokens, Bits::B8),
    }
    let generation = model.generation.clone();
    Model::from_parts(
        model.config.clone(),
        weights,
        None,
        None,
        generation,
        model.source.clone(),
    )
    .expect("the same parts")
}

/// Quantized formats against the reference on the rounded weights. What is left is the rounding of activations to 8 bits per 32 (at
/// most 1/254 of the group's largest value each) and of the KV, through two layers of random weights: 1 to 3.5 % of the largest logit in the
/// worst of 19,200 logits, as printed.
#[test]
fn quantized_weights_and_kv() {
    for family in Family::ALL {
        let model = model(family, 5);
        let tokens = prompt(3, 60);
        for (weights, kv, tol) in [
            (WeightFormat::Stored, KvFormat::Int8, 0.02),
            (WeightFormat::Q8, KvFormat::F16, 0.05),
            (WeightFormat::Q8, KvFormat::Int8, 0.05),
            (WeightFormat::Q4, KvFormat::Int8, 0.05),
        ] {
            let truth = if weights == WeightFormat::Stored {
                None
            } else {
                Some(rounded(&model, weights))
            };
            let want = reference::forward(truth.as_ref().unwrap_or(&model), &tokens, None)
                .expect("a good model");
            for isa in Isa::available() {
                let mut engine = engine(
                    &model,
                    &EngineOptions {
                        weights,
                        kv,
                        isa,
                        ..options()
                    },
                );
                let got = engine.logits(&tokens, None).expect("finite logits");
                let report = assert_close(&got, &want.logits, Tol::RelToMax(tol));
                eprintln!(
                    "{family:?} {weights:?} {kv:?} {isa}: {:.1e} of the largest logit",
                    report.max_rel_to_max
                );
            }
        }
    }
}

/// Adapters in 8 bits against the reference with their floats, of ranks that do not fill a group or fill one and a part. Matrices of very
/// small values with a large scale are the same adapter, bit for bit.
#[test]
fn adapters_in_8_bits() {
    let tokens = prompt(3, 60);
    for (family, rank) in [(Family::Qwen2, 5), (Family::Llama, 40)] {
        let model = model(family, 5);
        let truth = rounded(&model, WeightFormat::Q8);
        let adapter = adapter(&model.config, 9, rank);
        let mut layers = adapter.layers.clone();
        for pair in layers.iter_mut().flatten().flatten() {
            for tensor in [&mut pair.a, &mut pair.b] {
                let small: Vec<f32> = tensor.to_f32().iter().map(|x| x * 2f32.powi(-20)).collect();
                *tensor = Tensor::from_f32(tensor.shape.clone(), &small).expect("the same shape");
            }
            pair.scale *= 2f32.powi(40);
        }
        let small = adapter_of(layers);
        let want = reference::forward(&truth, &tokens, Some((&adapter, 20))).expect("a good model");
        for isa in Isa::available() {
            let mut engine = engine(
                &model,
                &EngineOptions {
                    weights: WeightFormat::Q8,
                    adapters: AdapterFormat::Q8,
                    isa,
                    ..options()
                },
            );
            let [one, two] = [&adapter, &small].map(|a| engine.load_adapter(a).expect("it fits"));
            let [got, same] = [one, two].map(|id| {
                engine
                    .logits(&tokens, Some(AdapterSpan::starting(id, 20)))
                    .expect("finite logits")
            });
            assert_close(&got, &want.logits, Tol::RelToMax(0.05));
            assert_eq!(got, same, "{isa}");
        }
    }
}

/// An adapter whose file has 8-bit codes with a scale per row: its codes in place, as near to the reference with the floats that they
/// stand for as floats are.
#[test]
fn codes_of_an_adapter_in_place() {
    let tokens = prompt(3, 60);
    for (family, rank) in [(Family::Qwen2, 5), (Family::Llama, 40)] {
        let model = model(family, 5);
        let mut layers = adapter(&model.config, 9, rank).layers;
        for pair in layers.iter_mut().flatten().flatten() {
            for tensor in [&mut pair.a, &mut pair.b] {
                *tensor = int8(tensor);
            }
        }
        let adapter = adapter_of(layers);
        let want = reference::forward(&model, &tokens, Some((&adapter, 20))).expect("a good model");
        for isa in Isa::available() {
            let mut engine = engine(&model, &EngineOptions { isa, ..options() });
            let id = engine.load_adapter(&adapter).expect("it fits");
            let got = engine
                .logits(&tokens, Some(AdapterSpan::starting(id, 20)))
                .expect("finite logits");
            assert_close(&got, &want.logits, FLOAT);
        }
    }
}

/// Rounded to 8 bits with a scale per row.
fn int8(tensor: &Tensor) -> Tensor {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for row in tensor.to_f32().chunks_exact(tensor.cols()) {
        let scale = row.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0;
        codes.extend(row.iter().map(|x| (x / scale).round() as i8 as u8));
        scales.push(scale);
    }
    Tensor::int8(tensor.shape.clone(), Bytes::copy_of(&codes), &scales).expect("the same shape")
}

/// bf16 in place, and a head dim and group other than the tiny models'.
#[test]
fn bf16_in_place_and_other_shapes() {
    let config = Config {
        num_attention_heads: 6,
        num_key_value_heads: 1,
        head_dim: 24,
        hidden_size: 80,
        ..tiny_config(Family::Qwen2)
    };
    let model = model_of(&config, 6);
    let narrow = |tensor: &Tensor| {
        Tensor::bf16_from_f32(tensor.shape.clone(), &tensor.to_f32()).expect("the same shape")
    };
    let mut weights = model.weights.clone();
    for layer in &mut weights.layers {
        layer.linears = layer.linears.each_ref().map(narrow);
    }
    weights.embed_tokens = narrow(&weights.embed_tokens);
    let narrow = Model::from_parts(
        config,
        weights,
        None,
        None,
        model.generation.clone(),
        model.source.clone(),
    )
    .expect("the same parts");
    let tokens = prompt(4, 50);
    let want = reference::forward(&narrow, &tokens, None).expect("a good model");
    let mut engine = engine(&Arc::new(narrow), &options());
    assert_close(
        &engine.logits(&tokens, None).expect("finite logits"),
        &want.logits,
        FLOAT,
    );
}

#[test]
fn hidden_states_are_the_reference_s() {
    let model = model(Family::Qwen2, 7);
    let adapter = adapter(&model.config, 2, 4);
    let mut engine = engine(
        &model,
        &EngineOptions {
            max_batch_tokens: 16,
            ..options()
        },
    );
    let id = engine.load_adapter(&adapter).expect("it fits");
    let tokens = prompt(5, 40);
    let e = model.config.hidden_size;
    let state = |hidden: &[f32], position: usize| hidden[position * e..(position + 1) * e].to_vec();
    let base = reference::forward(&model, &tokens, None)
        .expect("a good model")
        .hidden;
    for (hidden, positions) in [
        (HiddenStates::Prompt, 0..40),
        (HiddenStates::Last, 39..40),
        (HiddenStates::PromptFrom(30), 30..40),
        (HiddenStates::PromptFrom(40), 40..40),
    ] {
        let answer = run_one(
            &mut engine,
            &Request {
                hidden,
                ..Request::greedy(tokens.clone(), 0)
            },
        );
        assert_eq!(
            answer.hidden.keys().map(|&(_, p)| p).collect::<Vec<_>>(),
            positions.clone().collect::<Vec<_>>()
        );
        for position in positions {
            assert_close(
                &answer.hidden[&(0, position)],
                &state(&base, position),
                FLOAT,
            );
        }
    }
    // Generated tokens too, under an adapter that begins inside the prompt.
    let request = Request {
        hidden: HiddenStates::All,
        n: 2,
        ..sampled(tokens.clone(), 6, 1)
    };
    let answer = run_one(&mut engine, &with_adapter(request, id, 35));
    for stream in 0..2 {
        let mut all = tokens.clone();
        all.extend(answer.tokens(stream));
        let want = reference::forward(&model, &all, Some((&adapter, 35)))
            .expect("a good model")
            .hidden;
        let first = if stream == 0 { 0 } else { 40 };
        let got: Vec<usize> = answer
            .hidden
            .keys()
            .filter(|k| k.0 == stream)
            .map(|k| k.1)
            .collect();
        assert_eq!(
            got,
            (first..45).collect::<Vec<_>>(),
            "the last token is never fed back"
        );
        for position in first..45 {
            assert_close(
                &answer.hidden[&(stream, position)],
                &state(&want, position),
                FLOAT,
            );
        }
    }
}

/// METHOD 2: the base computes the prompt, the adapter the rest, and both together are one masked forward pass.
#[test]
fn base_prefill_and_adapter_decode_are_one_masked_pass() {
    for options in formats() {
        let model = model(Family::Qwen2, 8);
        let adapter = adapter(&model.config, 3, 6);
        let mut engine = engine(&model, &options);
        let id = engine.load_adapter(&adapter).expect("it fits");
        let tokens = prompt(6, 90);
        run_one(&mut engine, &Request::greedy(tokens.clone(), 8));
        let answer = run_one(
            &mut engine,
            &with_adapter(
                Request {
                    ignore_eos: true,
                    ..Request::greedy(tokens.clone(), 24)
                },
                id,
                85,
            ),
        );
        assert_eq!(
            answer.cached, 85,
            "everything before the adapter comes from the base's prefill"
        );
        let mut all = tokens.clone();
        all.extend(answer.tokens(0));
        let truth = if options.weights == WeightFormat::Stored {
            None
        } else {
            Some(rounded(&model, options.weights))
        };
        let truth = truth.as_ref().unwrap_or(&model);
        let want = reference::forward(truth, &all, Some((&adapter, 85)))
            .expect("a good model")
            .logits;
        let v = model.config.vocab_size;
        let largest = want.iter().fold(0.0f32, |a, b| a.max(b.abs()));
        let tolerance = largest
            * if options.weights == WeightFormat::Stored {
                2e-5
            } else {
                0.06
            };
        for (i, &token) in answer.tokens(0).iter().enumerate() {
            let row = &want[(tokens.len() - 1 + i) * v..][..v];
            let best = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            assert!(
                best - row[token as usize] <= tolerance,
                "token {i} is {} below the reference's best",
                best - row[token as usize]
            );
            let total = row
                .iter()
                .map(|&x| f64::from(x - best).exp())
                .sum::<f64>()
                .ln() as f32
                + best;
            let logprob = f32::from_bits(answer.streams[&0].logprobs[i]);
            assert!(
                (logprob - (row[token as usize] - total)).abs() <= tolerance,
                "log-probability of token {i}"
            );
        }
    }
}

//! What no golden file can show: packing, micro-batches, checkpointing, the mask, slopes, dropout, long documents, bf16.

use edgethink_model::{Dtype, Family, GenerationConfig, Model, Source, Weights, reference};
use edgethink_testkit::tiny_config;

use super::*;
use crate::ops::frozen::{WRITTEN, in_format};

/// The logits `[T, V]` of the reference pass with these weights.
fn reference_logits(config: Config, params: &[Param], tokens: &[u32]) -> Vec<f32> {
    let tensor = |p: &Param| Tensor::from_f32(p.shape.clone(), &p.values).unwrap();
    let named = params.iter().map(|p| (p.name.clone(), tensor(p)));
    let weights = Weights::from_named(&config, named.collect()).unwrap();
    let model = Model::from_parts(
        config,
        weights,
        None,
        None,
        GenerationConfig::default(),
        Source::Memory,
    )
    .unwrap();
    reference::forward(&model, tokens, None).unwrap().logits
}

#[test]
fn packing_splitting_and_checkpointing_change_nothing() {
    Device::tested()
        .iter()
        .for_each(packing_splitting_and_checkpointing_change_nothing_on);
}

fn packing_splitting_and_checkpointing_change_nothing_on(device: &Device) {
    for family in ["qwen2", "qwen3"] {
        let g = golden(family);
        let leaves = Leaves::base(device, &g.params, false);
        let (loss, whole) = run(
            &g.pass(None, Checkpointing::Off),
            &leaves,
            &g.params,
            &g.all,
            1000,
        );
        for (limit, checkpointing) in [
            (1, Checkpointing::Off),
            (20, Checkpointing::Off),
            (1000, Checkpointing::On),
            (1, Checkpointing::On),
            (1000, Checkpointing::Offload),
        ] {
            let pass = g.pass(None, checkpointing);
            let (other, grads) = run(&pass, &leaves, &g.params, &g.all, limit);
            assert!((loss - other).abs() <= 1e-4);
            for ((p, a), b) in g.params.iter().zip(&whole).zip(&grads) {
                assert_close(&p.name, b, a, 1e-5);
            }
        }
        let [kept, moved] = [Checkpointing::On, Checkpointing::Offload]
            .map(|checkpointing| run(&g.pass(None, checkpointing), &leaves, &g.params, &g.all, 20));
        // A GPU may sum in another order each time.
        assert!(
            kept == moved || !device.is_cpu(),
            "the host has other values"
        );
    }
}

#[test]
fn prompt_tokens_are_untouched_by_a_masked_adapter() {
    Device::tested()
        .iter()
        .for_each(prompt_tokens_are_untouched_by_a_masked_adapter_on);
}

fn prompt_tokens_are_untouched_by_a_masked_adapter_on(device: &Device) {
    let g = golden("qwen2");
    let (adapter, layout) = g.adapter();
    let base = Leaves::base(device, &g.params, false);
    let both = Leaves::frozen(device, params::stored(&g.params), false, BaseFormat::F32)
        .with_adapter(&adapter, false);
    let batch = Batcher::new(&g.spec, 64).batch(&g.masked, &[0, 1, 2]);
    let plain = gradient::logits(&g.pass(None, Checkpointing::Off), &base, &batch);
    let masked = gradient::logits(&g.pass(Some(&layout), Checkpointing::Off), &both, &batch);
    let mut row = 0;
    for e in &g.masked.examples {
        for i in 0..e.len {
            let at = row * g.spec.vocab..(row + 1) * g.spec.vocab;
            let same = plain[at.clone()] == masked[at];
            assert_eq!(
                same,
                i < e.adapter_from,
                "token {i} of a document that starts its adapter at {}",
                e.adapter_from
            );
            row += 1;
        }
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    Device::tested()
        .iter()
        .for_each(gradients_are_the_slopes_of_the_loss_on);
}

fn gradients_are_the_slopes_of_the_loss_on(device: &Device) {
    let g = golden("qwen3");
    let pass = g.pass(None, Checkpointing::Off);
    let (_, grads) = run(
        &pass,
        &Leaves::base(device, &g.params, false),
        &g.params,
        &g.all,
        1000,
    );
    // The direction of each tensor's own gradient, where the slope is largest against rounding.
    for (i, grad) in grads.iter().enumerate() {
        let norm = grad
            .iter()
            .map(|x| f64::from(*x).powi(2))
            .sum::<f64>()
            .sqrt();
        let step = 2e-3;
        let loss = |sign: f64| {
            let mut params = g.params.clone();
            for (v, d) in params[i].values.iter_mut().zip(grad) {
                *v += (sign * step * f64::from(*d) / norm) as f32;
            }
            run(
                &pass,
                &Leaves::base(device, &params, false),
                &params,
                &g.all,
                1000,
            )
            .0
        };
        let slope = (loss(1.0) - loss(-1.0)) / (2.0 * step);
        assert!(
            (slope - norm).abs() <= 0.01 * norm + 5e-3,
            "{}: slope {slope}, gradient {norm}",
            g.params[i].name
        );
    }
}

#[test]
fn logits_are_those_of_the_reference_pass() {
    Device::tested()
        .iter()
        .for_each(logits_are_those_of_the_reference_pass_on);
}

fn logits_are_those_of_the_reference_pass_on(device: &Device) {
    let scaled = r#"{"rope_type":"llama3","factor":4.0,"low_freq_factor":1.0,"high_freq_factor":4.0,
        "original_max_position_embeddings":16}"#;
    for (model_type, architecture, extra) in [
        (
            "llama",
            "LlamaForCausalLM",
            format!(r#","rope_scaling":{scaled}"#),
        ),
        (
            "mistral",
            "MistralForCausalLM",
            r#","sliding_window":5"#.to_owned(),
        ),
        ("qwen2", "Qwen2ForCausalLM", String::new()),
        ("qwen3", "Qwen3ForCausalLM", r#","head_dim":8"#.to_owned()),
    ] {
        let config = Config::from_json(&format!(
            r#"{{"model_type":"{model_type}","architectures":["{architecture}"],"vocab_size":40,"hidden_size":16,
            "intermediate_size":24,"num_hidden_layers":2,"num_attention_heads":4,"num_key_value_heads":2,
            "max_position_embeddings":64,"rms_norm_eps":1e-6,"rope_theta":10000.0,"hidden_act":"silu",
            "tie_word_embeddings":false{extra}}}"#
        ))
        .unwrap();
        let spec = base_model::spec(&config);
        let params = crate::params::init(&spec, 0.3, 5);
        let tokens: Vec<u32> = (0..25).map(|i| (i * 7 + 3) % 40).collect();
        let want = reference_logits(config, &params, &tokens);
        let mut set = Dataset::default();
        set.push(&tokens, vec![1.0; tokens.len()], 0);
        let slots = spec.numbered_slots();
        let pass = Pass {
            spec: &spec,
            slots: &slots,
            checkpointing: Checkpointing::Off,
            adapter: None,
            teacher: None,
        };
        let batch = Batcher::new(&spec, 64).batch(&set, &[0]);
        let got = gradient::logits(&pass, &Leaves::base(device, &params, false), &batch);
        assert_close(model_type, &got, &want, 1e-4);
    }
}

#[test]
fn long_documents_run_in_blocks_and_give_the_same() {
    Device::tested()
        .iter()
        .for_each(long_documents_run_in_blocks_and_give_the_same_on);
}

fn long_documents_run_in_blocks_and_give_the_same_on(device: &Device) {
    // 250 tokens are three blocks of query rows; the reference pass knows no blocks.
    let g = golden("qwen2");
    let mut config = g.config.clone();
    config.max_position_embeddings = 512;
    let tokens: Vec<u32> = (0..250u32).map(|i| (i * i + 3 * i) % 40).collect();
    let want = reference_logits(config, &g.params, &tokens);
    let mut set = Dataset::default();
    set.push(&tokens, vec![1.0; tokens.len()], 0);
    let batch = Batcher::new(&g.spec, 256).batch(&set, &[0]);
    let leaves = Leaves::base(device, &g.params, false);
    let pass = g.pass(None, Checkpointing::Off);
    assert_close(
        "long",
        &gradient::logits(&pass, &leaves, &batch),
        &want,
        1e-4,
    );
}

#[test]
fn dropout_is_the_same_in_every_split_and_off_without_its_seed() {
    Device::tested()
        .iter()
        .for_each(dropout_is_the_same_in_every_split_and_off_without_its_seed_on);
}

fn dropout_is_the_same_in_every_split_and_off_without_its_seed_on(device: &Device) {
    let g = golden("qwen2");
    let (adapter, layout) = g.adapter();
    let leaves = Leaves::frozen(device, params::stored(&g.params), false, BaseFormat::F32)
        .with_adapter(&adapter, false);
    let pass = |dropout, checkpointing| {
        let mut pass = g.pass(Some(&layout), checkpointing);
        if let Some(side) = &mut pass.adapter {
            side.dropout = dropout;
        }
        pass
    };
    let at = |dropout, checkpointing, limit| {
        run(
            &pass(dropout, checkpointing),
            &leaves,
            &adapter,
            &g.masked,
            limit,
        )
    };
    let (loss, whole) = at(Some((0.3, 5)), Checkpointing::Off, 1000);
    for (limit, checkpointing) in [
        (1, Checkpointing::Off),
        (20, Checkpointing::Offload),
        (1000, Checkpointing::On),
    ] {
        let (other, grads) = at(Some((0.3, 5)), checkpointing, limit);
        assert!(
            (loss - other).abs() <= 1e-4,
            "{limit}: {other} is not {loss}"
        );
        for ((p, a), b) in adapter.iter().zip(&whole).zip(&grads) {
            assert_close(&p.name, b, a, 1e-5);
        }
    }
    let plain = g.number("lora_masked_loss");
    assert!((at(None, Checkpointing::Off, 1000).0 - plain).abs() <= 1e-4);
    for seed in [5, 6] {
        let dropped = at(Some((0.3, seed)), Checkpointing::Off, 1000).0;
        assert!((dropped - plain).abs() > 0.01, "seed {seed} drops nothing");
        assert!(
            seed == 5 || (dropped - loss).abs() > 0.01,
            "the seed is not used"
        );
    }
}

#[test]
fn dropout_leaves_the_slope_of_its_own_loss() {
    Device::tested()
        .iter()
        .for_each(dropout_leaves_the_slope_of_its_own_loss_on);
}

fn dropout_leaves_the_slope_of_its_own_loss_on(device: &Device) {
    let g = golden("qwen2");
    let (adapter, layout) = g.adapter();
    let mut pass = g.pass(Some(&layout), Checkpointing::Off);
    if let Some(side) = &mut pass.adapter {
        side.dropout = Some((0.3, 5));
    }
    let frozen = || Leaves::frozen(device, params::stored(&g.params), false, BaseFormat::F32);
    let leaves = frozen().with_adapter(&adapter, false);
    let (_, grads) = run(&pass, &leaves, &adapter, &g.masked, 1000);
    for (i, grad) in grads.iter().enumerate() {
        let squares = grad.iter().map(|x| f64::from(*x).powi(2));
        let norm = squares.sum::<f64>().sqrt();
        let step = 2e-3;
        let loss = |sign: f64| {
            let mut adapter = adapter.clone();
            for (v, d) in adapter[i].values.iter_mut().zip(grad) {
                *v += (sign * step * f64::from(*d) / norm) as f32;
            }
            let leaves = frozen().with_adapter(&adapter, false);
            run(&pass, &leaves, &adapter, &g.masked, 1000).0
        };
        let slope = (loss(1.0) - loss(-1.0)) / (2.0 * step);
        assert!(
            (slope - norm).abs() <= 0.01 * norm + 5e-3,
            "{}: slope {slope}, gradient {norm}",
            adapter[i].name
        );
    }
}

#[test]
fn bf16_rounds_the_weights_of_the_pass_and_nothing_else() {
    Device::tested()
        .iter()
        .for_each(bf16_rounds_the_weights_of_the_pass_and_nothing_else_on);
}

fn bf16_rounds_the_weights_of_the_pass_and_nothing_else_on(device: &Device) {
    let g = golden("qwen2");
    let rounded: Vec<Param> = g
        .params
        .iter()
        .map(|p| Param {
            values: p
                .values
                .iter()
                .map(|&v| half::bf16::from_f32(v).to_f32())
                .collect(),
            ..p.clone()
        })
        .collect();
    assert!(rounded != g.params, "the golden weights are bf16 already");
    let pass = g.pass(None, Checkpointing::Off);
    let (loss, grads) = run(
        &pass,
        &Leaves::base(device, &g.params, true),
        &g.params,
        &g.all,
        1000,
    );
    let (same, same_grads) = run(
        &pass,
        &Leaves::base(device, &rounded, false),
        &g.params,
        &g.all,
        1000,
    );
    assert!(loss == same && grads == same_grads, "{loss} is not {same}");
    // Weights are off by 2^-9 at most, so the loss of this net is off by less than a hundredth.
    let want = g.number("loss_all");
    assert!(
        loss != want && (loss - want).abs() <= 0.01 * want,
        "{loss}, f32 {want}"
    );
}

#[test]
fn a_frozen_base_in_bf16_is_its_rounded_values() {
    Device::tested()
        .iter()
        .for_each(a_frozen_base_in_bf16_is_its_rounded_values_on);
}

fn a_frozen_base_in_bf16_is_its_rounded_values_on(device: &Device) {
    for family in ["qwen2", "qwen3"] {
        let g = golden(family);
        if let Err(error) =
            device.check_base(&params::stored(&g.params), BaseFormat::Bf16, FloatType::F32)
        {
            assert!(error.to_string().contains("base_dtype"), "{error}");
            continue;
        }
        let (adapter, layout) = g.adapter();
        let mut rounded = g.params.clone();
        for p in rounded.iter_mut().filter(|p| p.shape.len() == 2) {
            for v in &mut p.values {
                *v = half::bf16::from_f32(*v).to_f32();
            }
        }
        for checkpointing in [Checkpointing::Off, Checkpointing::On] {
            let pass = g.pass(Some(&layout), checkpointing);
            let of = |device: &Device, params: &[Param], dtype| {
                let leaves = Leaves::frozen(device, params::stored(params), false, dtype);
                let leaves = leaves.with_adapter(&adapter, false);
                run(&pass, &leaves, &adapter, &g.masked, 1000)
            };
            let (loss, grads) = of(device, &g.params, BaseFormat::Bf16);
            // The same sums of the same values.
            let (want, want_grads) = of(device, &rounded, BaseFormat::F32);
            assert!((loss - want).abs() <= 1e-6 * want, "{loss} is not {want}");
            for ((p, got), want) in adapter.iter().zip(&grads).zip(&want_grads) {
                assert_close(&p.name, got, want, 1e-6);
            }
            // Sums in another order.
            let (cpu, _) = of(&Device::CPU, &g.params, BaseFormat::Bf16);
            assert!((loss - cpu).abs() <= 1e-6 * cpu, "{loss} is not {cpu}");
            let (exact, _) = of(device, &g.params, BaseFormat::F32);
            assert!((loss - exact).abs() > 1e-5 * exact, "nothing was rounded");
        }
    }
}

#[test]
fn a_base_held_as_stored_is_the_same_network() {
    Device::tested()
        .iter()
        .for_each(a_base_held_as_stored_is_the_same_network_on);
}

/// Not only to rounding: the products are of the same values. The matrices are wide enough for blocks.
fn a_base_held_as_stored_is_the_same_network_on(device: &Device) {
    for family in [Family::Qwen2, Family::Qwen3] {
        let config = tiny_config(family);
        let spec = base_model::spec(&config);
        let params = params::init(&spec, 0.1, 3);
        let g = Golden {
            slots: spec.numbered_slots(),
            spec,
            config,
            params,
            ..golden("qwen2")
        };
        let (mut adapter, layout) = sft::init(&g.spec, &lora(), 0);
        for p in &mut adapter {
            p.values = params::normal(&mut params::generator(4, &p.name), 0.1, p.values.len());
        }
        for dtype in WRITTEN {
            let base: NamedTensors = params::stored(&g.params)
                .into_iter()
                .map(|(name, tensor)| match tensor.shape.len() {
                    2 => (name, in_format(dtype, &tensor.shape, &tensor.to_f32())),
                    _ => (name, tensor),
                })
                .collect();
            if let Err(error) = device.check_base(&base, BaseFormat::Stored, FloatType::F32) {
                assert!(matches!(dtype, Dtype::F16 | Dtype::BF16), "{error}");
                assert!(error.to_string().contains("q_proj.weight"), "{error}");
                continue;
            }
            for checkpointing in [Checkpointing::Off, Checkpointing::On] {
                for compute in [FloatType::F32, FloatType::Bf16] {
                    if device.check_base(&base, BaseFormat::F32, compute).is_err() {
                        continue;
                    }
                    let mut pass = g.pass(Some(&layout), checkpointing);
                    pass.adapter.as_mut().expect("an adapter").compute = compute;
                    let of = |format| {
                        let leaves = Leaves::frozen(device, base.clone(), false, format);
                        let leaves = leaves.with_adapter(&adapter, false);
                        run(&pass, &leaves, &adapter, &g.masked, 1000)
                    };
                    let (stored, f32) = (of(BaseFormat::Stored), of(BaseFormat::F32));
                    let (got, want) = (stored.0, f32.0);
                    assert!(stored == f32, "{family:?} {dtype}: {got} is not {want}");
                }
            }
        }
    }
}

#[test]
fn norms_and_biases_are_f32_in_every_format() {
    for (format, linear, table) in [
        (BaseFormat::F32, BaseFormat::F32, BaseFormat::F32),
        (BaseFormat::Bf16, BaseFormat::Bf16, BaseFormat::Bf16),
        (BaseFormat::Stored, BaseFormat::Stored, BaseFormat::F32),
    ] {
        let layer = "model.layers.3.self_attn.q_proj";
        assert_eq!(format.of(&format!("{layer}.weight"), &[2, 3]), linear);
        assert_eq!(format.of(&format!("{layer}.bias"), &[2]), BaseFormat::F32);
        assert_eq!(format.of("model.embed_tokens.weight", &[2, 3]), table);
        assert_eq!(format.of("model.norm.weight", &[3]), BaseFormat::F32);
    }
}

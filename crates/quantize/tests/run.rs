//! Whole runs: what is written loads, is close, and is the same after a stop.

use std::path::{Path, PathBuf};

use edgethink_model::{Config, Dtype, Family, Linear, Model, Tensor, reference};
use edgethink_quantize::{Job, QuantizeError, Report, Scheme, quantize};
use edgethink_testkit::{tiny_config, tiny_model_of};

const RANGES: &str = "
[linears]
bits = 4
group = 32
range = { lp = 2.0 }
rounding = \"nearest\"
[embedding]
bits = 8
group = 32
range = \"minmax\"
rounding = \"nearest\"
[lm_head]
bits = 4
group = 32
range = { lp = 2.0 }
rounding = \"nearest\"
[tied]
bits = 8
group = 32
range = \"minmax\"
rounding = \"nearest\"
";

fn scheme(change: impl Fn(String) -> String) -> Scheme {
    Scheme::from_toml(&change(RANGES.to_owned())).expect("a valid scheme")
}

/// GPTQ with all transforms that every family has room for.
fn aware() -> Scheme {
    scheme(|text| {
        text.replacen("\"nearest\"", "\"gptq\"", 1)
            + "[gptq]\ndamping = 0.01\nact_order = true\nsweeps = 2\n[calibration]\nctx = 16\nchunks = 6\n[transforms]\nvalue = true\nup = true\nnorm = true\n"
    })
}

struct Place {
    dir: tempfile::TempDir,
    model: tempfile::TempDir,
    calibration: Vec<u32>,
}

impl Place {
    fn new(config: &Config) -> Self {
        Self {
            dir: tempfile::tempdir().expect("a directory"),
            model: tiny_model_of(config, 5),
            calibration: (0..100u32).map(|i| (i * 37 + i * i * 11) % 300).collect(),
        }
    }

    fn source(&self) -> Model {
        Model::load(self.model.path().to_str().expect("UTF-8")).expect("it loads")
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("model.gguf")
    }

    fn run(&self, scheme: &Scheme, out: &Path, stop_after: usize) -> Result<Report, QuantizeError> {
        self.run_on(2, scheme, out, stop_after)
    }

    fn run_on(
        &self,
        threads: usize,
        scheme: &Scheme,
        out: &Path,
        stop_after: usize,
    ) -> Result<Report, QuantizeError> {
        let job = Job {
            scheme,
            calibration: Some(&self.calibration),
            trained: None,
            out,
            name: "tiny",
            threads,
        };
        let mut calls = 0;
        quantize(self.source(), &job, &mut |progress| {
            assert!(progress.done <= progress.total, "{progress:?}");
            calls += 1;
            calls <= stop_after
        })
    }
}

fn load(path: &Path) -> Model {
    Model::load(path.to_str().expect("UTF-8")).expect("it loads")
}

/// 1 - cosine of the logits of a text.
fn distance(a: &Model, b: &Model, chunks: &[&[u32]]) -> f64 {
    let logits = |model: &Model| -> Vec<f32> {
        let one = |chunk: &&[u32]| {
            reference::forward(model, chunk, None)
                .expect("it runs")
                .logits
        };
        chunks.iter().flat_map(one).collect()
    };
    let (a, b) = (logits(a), logits(b));
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(*a) * f64::from(*b))
            .sum()
    };
    1.0 - dot(&a, &b) / (dot(&a, &a) * dot(&b, &b)).sqrt()
}

/// How far noise of the size of rounding moves the logits: every weight of every matrix gets an even draw of half a min-max step of its
/// group of 32 to either side, whose variance is that of rounding without any search. The farthest of eight draws: rounding is one more
/// draw, of errors that are no larger.
fn noised(source: impl Fn() -> Model, levels: f32, chunks: &[&[u32]]) -> f64 {
    let model = source();
    let far = |seed: u64| {
        let mut state = seed;
        let mut noise = |tensor: &Tensor, levels: f32| {
            let mut values = tensor.to_f32();
            for group in values.chunks_mut(32) {
                let step = group.iter().fold(0.0f32, |m, w| m.max(w.abs())) / levels;
                for w in group {
                    // Knuth's linear congruential generator (MMIX); its high bits are good.
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1_442_695_040_888_963_407);
                    *w += step * ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5);
                }
            }
            Tensor::from_f32(tensor.shape.clone(), &values).expect("as before")
        };
        let mut noisy = source();
        let weights = &mut noisy.weights;
        weights.embed_tokens = noise(&weights.embed_tokens, 127.0);
        weights.lm_head = weights.lm_head.as_ref().map(|head| noise(head, levels));
        for linear in weights.layers.iter_mut().flat_map(|l| &mut l.linears) {
            *linear = noise(linear, levels);
        }
        distance(&noisy, &model, chunks)
    };
    (1..=8).map(far).fold(0.0, f64::max)
}

/// The families that GGUF can hold as they are: Mistral's window has no place in its architecture.
const FAMILIES: [Family; 3] = [Family::Qwen2, Family::Qwen3, Family::Llama];

#[test]
fn every_family_becomes_a_file_that_loads_and_is_close() {
    for family in FAMILIES {
        let place = Place::new(&tiny_config(family));
        let eight = scheme(|t| t.replace("bits = 4", "bits = 8"));
        // What GPTQ makes closer is what its calibration text gives, so that is what is compared.
        let text: Vec<&[u32]> = place.calibration[..96].chunks(16).collect();
        let noise8 = noised(|| place.source(), 127.0, &text);
        let noise4 = noised(|| place.source(), 7.0, &text);
        for (scheme, dtype, most) in [
            (eight, Dtype::Q8_0, noise8),
            (scheme(|t| t), Dtype::Q4_0, noise4),
            (aware(), Dtype::Q4_0, noise4),
        ] {
            let report = place
                .run(&scheme, &place.out(), usize::MAX)
                .expect("it runs");
            let quantized = load(&place.out());
            let config = &quantized.config;
            assert_eq!(config.num_hidden_layers, 2);
            assert_eq!(
                quantized.weights.layers[1].linear(Linear::Down).dtype,
                dtype
            );
            assert_eq!(quantized.weights.embed_tokens.dtype, Dtype::Q8_0);
            assert_eq!(report.stored_bytes as usize, quantized.weights.size_bytes());
            assert_eq!(
                report.file_bytes,
                std::fs::metadata(place.out()).expect("it is there").len()
            );
            let far = distance(&quantized, &place.source(), &text);
            let how = scheme.linears.rounding;
            eprintln!("{family:?} in {dtype} by {how:?}: {far:.5}, noise {most:.5}");
            assert!(
                far <= most,
                "{family:?} in {dtype} by {how:?}: {far}, noise {most}"
            );
            assert!(
                !place.dir.path().join("model.gguf.work").exists(),
                "the work is cleared away"
            );
        }
    }
}

#[test]
fn a_stopped_run_goes_on_to_the_same_bytes() {
    let place = Place::new(&Config {
        tie_word_embeddings: false,
        ..tiny_config(Family::Qwen2)
    });
    for scheme in [aware(), scheme(|t| t)] {
        let whole = place.dir.path().join("whole.gguf");
        place.run(&scheme, &whole, usize::MAX).expect("it runs");
        let want = std::fs::read(&whole).expect("it was written");
        // Stopped at every step: 1 embedding, 2 x 7 linears, 1 lm_head. A resumed run also passes the parts that it finds.
        for stop in 0..16 {
            let stopped = place.run(&scheme, &place.out(), stop);
            assert!(
                matches!(stopped, Err(QuantizeError::Stopped { .. })),
                "{stop}: {stopped:?}"
            );
            assert!(!place.out().exists(), "nothing half-written at {stop}");
            place
                .run(&scheme, &place.out(), usize::MAX)
                .expect("it goes on");
            assert!(
                std::fs::read(place.out()).expect("it was written") == want,
                "other bytes after a stop at {stop}"
            );
            std::fs::remove_file(place.out()).expect("it is there");
        }
    }
}

/// Range search, transforms, Hessians, GPTQ and the calibration text's hidden states, on any number of threads.
#[test]
fn threads_change_no_byte() {
    for family in [Family::Qwen2, Family::Llama] {
        let place = Place::new(&tiny_config(family));
        for (name, scheme) in [("search", scheme(|text| text)), ("aware", aware())] {
            let [one, two, many] = [1, 2, 7].map(|threads| {
                let out = place.dir.path().join(format!("{name}-{threads}.gguf"));
                let done = place.run_on(threads, &scheme, &out, usize::MAX);
                done.expect("it runs");
                std::fs::read(&out).expect("written")
            });
            assert!(one == two && one == many, "{family:?} {name}");
        }
    }
}

#[test]
fn the_work_of_another_run_is_refused() {
    let place = Place::new(&tiny_config(Family::Llama));
    let stopped = place.run(&scheme(|t| t), &place.out(), 3);
    assert!(matches!(stopped, Err(QuantizeError::Stopped { .. })));
    let other = scheme(|t| t.replacen("group = 32", "group = \"channel\"", 1));
    match place.run(&other, &place.out(), usize::MAX) {
        Err(QuantizeError::OtherWork { what, path }) => {
            assert_eq!(
                (what, path),
                ("scheme", place.dir.path().join("model.gguf.work"))
            );
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_refused_scheme_is_not_in_the_way_of_the_next() {
    // Its rows have 64 elements, so the lm_head, the last part, has no groups of 128.
    let place = Place::new(&Config {
        tie_word_embeddings: false,
        ..tiny_config(Family::Qwen2)
    });
    let refused = scheme(|t| {
        let at = t.find("[lm_head]").expect("a table");
        let (before, after) = t.split_at(at);
        before.to_owned() + &after.replacen("group = 32", "group = 128", 1)
    });
    let error = place.run(&refused, &place.out(), usize::MAX);
    assert!(
        matches!(error, Err(QuantizeError::Columns { .. })),
        "{error:?}"
    );
    assert!(!place.dir.path().join("model.gguf.work").exists());
    place
        .run(&scheme(|t| t), &place.out(), usize::MAX)
        .expect("nothing is left of the refused one");
}

#[test]
fn a_damaged_part_is_named() {
    let place = Place::new(&tiny_config(Family::Llama));
    let stopped = place.run(&scheme(|t| t), &place.out(), 12);
    assert!(matches!(stopped, Err(QuantizeError::Stopped { .. })));
    let part = place.dir.path().join("model.gguf.work/layer-0000.gguf");
    let bytes = std::fs::read(&part).expect("one layer is done");
    std::fs::write(&part, &bytes[..bytes.len() / 2]).expect("it can be cut");
    let error = place
        .run(&scheme(|t| t), &place.out(), usize::MAX)
        .expect_err("half a part");
    assert!(matches!(error, QuantizeError::Part { .. }), "{error:?}");
    assert!(error.to_string().contains("layer-0000.gguf"), "{error}");
}

#[test]
fn calibration_is_checked() {
    let mut place = Place::new(&tiny_config(Family::Llama));
    place.calibration.truncate(50);
    let error = place
        .run(&aware(), &place.out(), usize::MAX)
        .expect_err("too short");
    assert!(
        matches!(
            error,
            QuantizeError::ShortCalibration {
                found: 50,
                needed: 96
            }
        ),
        "{error}"
    );
    place.calibration = vec![320; 96];
    let error = place
        .run(&aware(), &place.out(), usize::MAX)
        .expect_err("no such token");
    assert!(
        matches!(
            error,
            QuantizeError::Token {
                index: 0,
                id: 320,
                ..
            }
        ),
        "{error}"
    );
    assert!(!place.out().exists());
}

#[test]
fn weights_that_are_not_finite_are_named() {
    // A norm so large that the folded columns overflow an f16 scale.
    let place = Place::new(&tiny_config(Family::Llama));
    let mut model = place.source();
    let mut values = model.weights.layers[1].linear(Linear::K).to_f32();
    values[70] = f32::NAN;
    let shape = model.weights.layers[1].linear(Linear::K).shape.clone();
    model.weights.layers[1].linears[Linear::K as usize] =
        edgethink_model::Tensor::from_f32(shape, &values).expect("as before");
    let job = Job {
        scheme: &scheme(|t| t),
        calibration: None,
        trained: None,
        out: &place.out(),
        name: "tiny",
        threads: 1,
    };
    let error = quantize(model, &job, &mut |_| true).expect_err("a NaN");
    match error {
        QuantizeError::NonFinite { name, row, .. } => {
            assert_eq!(
                (name.as_str(), row),
                ("model.layers.1.self_attn.k_proj.weight", 1)
            );
        }
        other => panic!("{other:?}"),
    }
}

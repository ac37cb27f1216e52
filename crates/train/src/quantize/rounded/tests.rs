//! The gradient is the slope of what is computed, and what is computed is what `edgethink quantize` writes.

use edgethink_model::{Config, Family, Tensor};
use edgethink_quantize::{Job, Origin, Trained, quantize};
use edgethink_testkit::{tiny_config, tiny_model_of};

use super::*;

/// A scheme with every transform that a tied model with biases has room for.
fn scheme(key: bool) -> Scheme {
    let format = "bits = 4\ngroup = 32\nrange = { lp = 2.0 }\nrounding = \"nearest\"\n";
    let tables = ["linears", "embedding", "lm_head", "tied"];
    let tables: String = tables.iter().map(|t| format!("[{t}]\n{format}")).collect();
    let text = format!("{tables}[transforms]\nnorm = true\nvalue = true\nup = true\nkey = {key}\n");
    Scheme::from_toml(&text).expect("a valid scheme")
}

fn model(config: &Config) -> Model {
    let dir = tiny_model_of(config, 5);
    Model::load(dir.path().to_str().expect("UTF-8")).expect("it loads")
}

/// Numbers between -size and size that look random.
fn wave(n: usize, salt: usize, size: f32) -> Vec<f32> {
    let one = |i: usize| ((i * 7919 + salt * 104_729) % 1009) as f32 / 504.5 - 1.0;
    (0..n).map(|i| one(i) * size).collect()
}

/// Parameters away from the start.
fn moved(params: &[Param]) -> Vec<Param> {
    let mut params = params.to_vec();
    for (salt, p) in params.iter_mut().enumerate() {
        p.values = wave(p.values.len(), salt, 0.2);
    }
    params
}

/// Each family, with key where its norms leave room for it.
fn cases() -> Vec<(Config, Scheme)> {
    [Family::Qwen2, Family::Qwen3, Family::Llama]
        .map(|family| (tiny_config(family), scheme(family != Family::Qwen3)))
        .to_vec()
}

#[test]
fn the_gradient_of_the_transforms_is_the_slope() {
    for (config, scheme) in cases() {
        let (rounded, start) = Rounded::new(&model(&config), &scheme).expect("it fits");
        let params = moved(&start);
        let folded = rounded.folded(&params);
        let upstream: Vec<Vec<f32>> = folded
            .iter()
            .enumerate()
            .map(|(salt, p)| wave(p.values.len(), salt + 77, 1.0))
            .collect();
        let loss = |params: &[Param]| -> f64 {
            let folded = rounded.folded(params);
            let pairs = folded.iter().zip(&upstream);
            let one = |(p, g): (&Param, &Vec<f32>)| -> f64 {
                let pairs = p.values.iter().zip(g);
                pairs.map(|(w, g)| f64::from(*w) * f64::from(*g)).sum()
            };
            pairs.map(one).sum()
        };
        let mut out: Vec<Vec<f32>> = params.iter().map(|p| vec![0.0; p.values.len()]).collect();
        rounded.unfold(&folded, &upstream, &mut out);
        let first_range = rounded.matrices[0].param;
        for at in 0..first_range {
            let n = params[at].values.len();
            for i in [0, n / 3, n - 1] {
                let shifted = |by: f32| {
                    let mut params = params.clone();
                    params[at].values[i] += by;
                    loss(&params)
                };
                let slope = (shifted(1e-2) - shifted(-1e-2)) / 2e-2;
                let got = f64::from(out[at][i]);
                assert!(
                    (slope - got).abs() <= 1e-3 * slope.abs().max(1.0),
                    "{:?}, {} {i}: {got} for {slope}",
                    config.family,
                    params[at].name
                );
            }
        }
    }
}

#[test]
fn the_start_is_what_the_scheme_alone_gives() {
    for (config, scheme) in cases() {
        let source = model(&config);
        let (rounded, params) = Rounded::new(&source, &scheme).expect("it fits");
        compare(
            &rounded.weights(&params),
            &written(source, &scheme, None),
            2e-3,
        );
    }
}

#[test]
fn trained_weights_are_what_is_written() {
    for (config, scheme) in cases() {
        let source = model(&config);
        let (rounded, start) = Rounded::new(&source, &scheme).expect("it fits");
        let params = moved(&start);
        let origin = Origin {
            model: source.hash().expect("it reads").to_string(),
            scheme: scheme.clone(),
        };
        let dir = tempfile::tempdir().expect("a directory");
        let trained = rounded.trained(&params);
        trained.save(dir.path(), &origin).expect("it is written");
        let read = Trained::load(dir.path(), &origin, &config).expect("it is read");
        assert_eq!(read, trained);
        compare(
            &rounded.weights(&params),
            &written(source, &scheme, Some(&read)),
            0.0,
        );
    }
}

/// The tensors of the file that a quantization writes.
fn written(source: Model, scheme: &Scheme, trained: Option<&Trained>) -> Vec<(String, Tensor)> {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("model.gguf");
    let job = Job {
        scheme,
        calibration: None,
        trained,
        out: &out,
        name: "tiny",
        threads: 2,
    };
    quantize(source, &job, &mut |_| true).expect("it runs");
    let model = Model::load(out.to_str().expect("UTF-8")).expect("it loads");
    let named = model.weights.named();
    let named = named.into_iter();
    named.map(|(name, tensor)| (name, tensor.clone())).collect()
}

/// Equal but for a share `most` of the groups, whose scale an f16 rounds to the neighbour.
fn compare(got: &[Param], want: &[(String, Tensor)], most: f64) {
    for (got, (name, want)) in got.iter().zip(want) {
        assert_eq!(&got.name, name);
        let want = want.to_f32();
        let pairs = got.values.iter().zip(&want);
        let other = pairs.filter(|(a, b)| a != b).count();
        assert!(
            other as f64 <= most * want.len() as f64,
            "{name}: {other} of {} differ",
            want.len()
        );
    }
}

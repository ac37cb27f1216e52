//! The engine against transformers at real shapes, on random f32 weights. By hand: it needs what `golden/real_shapes.py` wrote.
//!
//! ```text
//! python golden/real_shapes.py OUT
//! cargo run --release -p edgethink-engine --example real_shapes -- OUT [NAME...]
//! ```

use std::error::Error;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use edgethink_engine::{Engine, EngineOptions, Event, KvFormat, Request, Sampling, WeightFormat};
use edgethink_model::{Config, Dtype, Model};
use edgethink_testkit::{Extras, Tol, compare, golden_at, write_random_model};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let out = args
        .next()
        .ok_or("give the directory of golden/real_shapes.py")?;
    let mut names: Vec<String> = args.collect();
    if names.is_empty() {
        for entry in fs::read_dir(&out)? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "json") {
                names.extend(
                    path.file_stem()
                        .map(|stem| stem.to_string_lossy().into_owned()),
                );
            }
        }
    }
    let mut failed = 0;
    for name in names {
        let started = Instant::now();
        let result = check(Path::new(&out), &name);
        let seconds = started.elapsed().as_secs();
        match result {
            Ok(error) => eprintln!(
                "{name}: ok, logits within {error:.1e} of the largest, 64 greedy tokens alike ({seconds} s)"
            ),
            Err(error) => {
                failed += 1;
                eprintln!("{name}: {error} ({seconds} s)");
            }
        }
    }
    if failed > 0 {
        Err(format!("{failed} failed").into())
    } else {
        Ok(())
    }
}

/// The largest error of a logit over the largest logit.
fn check(out: &Path, name: &str) -> Result<f64, Box<dyn Error>> {
    let case = golden_at(&out.join(format!("{name}.json")));
    let config = Config::from_json(&case.config_json())?;
    let dir = out.join(name);
    write_random_model(&dir, &config, case.seed(), Dtype::F32, Extras::None);
    let model = Model::load(dir.to_str().ok_or("the path is not UTF-8")?)?;
    let options = EngineOptions {
        weights: WeightFormat::Stored,
        kv: KvFormat::F32,
        kv_tokens: 1024,
        ..EngineOptions::for_model(&config)
    };
    let mut engine = Engine::new(Arc::new(model), options)?;
    let prompt = case.tokens("prompt");
    let logits = engine.logits(&prompt, None)?;
    let report = compare(&logits, &case.tensor("logits"), Tol::RelToMax(1e-3))?;

    let mut request = Request::new(prompt);
    request.sampling = Sampling::greedy();
    request.max_tokens = 64;
    request.ignore_eos = true;
    engine.submit(request)?;
    let mut tokens = Vec::new();
    while !engine.idle() {
        for event in engine.step()? {
            match event {
                Event::Token { token, .. } => tokens.push(token),
                Event::Failed { error, .. } => return Err(error.into()),
                _ => {}
            }
        }
    }
    if tokens != case.tokens("greedy") {
        return Err(format!(
            "greedy tokens {tokens:?}, expected {:?}",
            case.tokens("greedy")
        )
        .into());
    }
    fs::remove_dir_all(&dir)?;
    Ok(report.max_rel_to_max)
}
